"""List the single models of a fold with their scores."""

from pathlib import Path

from segsoup.candidates import list_candidates, write_candidates
from segsoup.logs import job_log

with job_log(snakemake.log[0]):
    listed, asked = Path(snakemake.output[0]), snakemake.params
    trials = listed.parent / "trials"
    write_candidates(listed, list_candidates(trials, asked.models, set(asked.ingredients)))
