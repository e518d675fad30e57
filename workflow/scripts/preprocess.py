"""Preprocess the cases that are new or changed."""

from pathlib import Path

from segsoup.cases.index import read_cases
from segsoup.logs import job_log
from segsoup.preprocess import preprocess_all
from segsoup.study import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    preprocess_all(
        read_cases(Path(snakemake.input.cases)),
        root=Path(snakemake.params.root),
        settings=study.preprocess,
        patch=study.training.patch,
        folder=Path(snakemake.params.folder),
        manifest=Path(snakemake.output.manifest),
        workers=snakemake.threads,
    )
