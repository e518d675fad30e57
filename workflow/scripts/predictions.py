"""Gather the outcome of every case that was to be predicted."""

from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.prediction.outcomes import write_outcomes

with job_log(snakemake.log[0]):
    records = [record for batch in snakemake.input for record in read_json(Path(batch))]
    write_outcomes(Path(snakemake.output[0]), records)
