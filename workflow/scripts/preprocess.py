"""Preprocess the cases that are new or changed."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.data.index.index import read_cases
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.data.preprocessing.store import end_sharing
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    cases, folder = read_cases(Path(snakemake.input.cases)), Path(snakemake.params.folder)
    if study.part_of:
        # It may have preprocessed as another configuration does, before the study was edited.
        end_sharing(folder)
    preprocess_all(
        # Cases for prediction only are prepared when they are predicted.
        [case for case in cases if case.label is not None],
        root=Path(snakemake.params.root),
        settings=study.preprocess,
        patch=study.training.patch,
        folder=folder,
        manifest=Path(snakemake.output.manifest),
        workers=snakemake.threads,
        ignored=study.dataset.ignore_label,
        not_annotated={case.name: study.not_annotated_in(case.name) for case in cases},
    )
