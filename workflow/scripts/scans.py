"""List the scans to predict, and share them out to jobs."""

from pathlib import Path

from segsoup.cases.scans import find_scans
from segsoup.files import write_json
from segsoup.logs import job_log

with job_log(snakemake.log[0]):
    asked = snakemake.params
    names = [case.name for case in find_scans(asked.scans, asked.channels, asked.called)]
    size = asked.cases_per_job
    shares = [names[first : first + size] for first in range(0, len(names), size)]
    batches = {f"{number:04d}": share for number, share in enumerate(shares)}
    write_json(Path(snakemake.output[0]), {"batches": batches})
