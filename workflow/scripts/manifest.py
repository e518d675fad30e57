"""List every file of the study with its hash."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.deploy.file_manifest import entries_of, write_manifest

with job_log(snakemake.log[0]):
    entries = entries_of(Path(snakemake.params.results), snakemake.params.folds, snakemake.threads)
    write_manifest(Path(snakemake.output[0]), entries)
