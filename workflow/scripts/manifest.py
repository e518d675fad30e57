"""List every file of the study with its hash."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.deploy.file_manifest import entries_of, write_manifest

with job_log(snakemake.log[0]):
    asked = snakemake.params
    further = asked.get("configurations", [])
    entries = entries_of(Path(asked.results), asked.folds, snakemake.threads, further)
    write_manifest(Path(snakemake.output[0]), entries)
