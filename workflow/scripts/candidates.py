"""List the single models of a fold with their scores."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.soups.candidates import list_candidates, write_candidates

with job_log(snakemake.log[0]):
    listed, asked = Path(snakemake.output[0]), snakemake.params
    trials = listed.parent / "trials"
    write_candidates(listed, list_candidates(trials, asked.models, set(asked.ingredients)))
