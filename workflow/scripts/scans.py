"""List the scans to predict, and share them out to jobs."""

from pathlib import Path

from segsoup.cases.scans import find_scans
from segsoup.cases.verdicts import signature_of
from segsoup.files import write_json
from segsoup.logs import job_log

with job_log(snakemake.log[0]):
    asked = snakemake.params
    cases = find_scans(asked.scans, asked.channels, asked.called)
    size = asked.cases_per_job
    shares = [cases[first : first + size] for first in range(0, len(cases), size)]
    # With what tells whether their files have changed: a batch is done again for its own cases.
    batches = {
        f"{number:04d}": {case.name: signature_of(case) for case in share}
        for number, share in enumerate(shares)
    }
    write_json(Path(snakemake.output[0]), {"batches": batches})
