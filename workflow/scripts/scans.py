"""List the scans to predict, and share them out to jobs."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.prediction.scans import find_scans, refuse_other_inputs, shared_out

with job_log(snakemake.log[0]):
    asked = snakemake.params
    layout = asked.get("layout")
    cases = find_scans(asked.scans, asked.channels, asked.called, layout=layout)
    refuse_other_inputs(cases, Path(asked.folder))
    batches = shared_out(cases, asked.cases_per_job)
    write_json(Path(snakemake.output[0]), {"batches": batches})
