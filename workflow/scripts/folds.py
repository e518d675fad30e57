"""Split the cases into folds."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.balance import kinds_of_cases
from voxelsoup.data.folds import make_folds
from voxelsoup.data.index.index import read_cases, read_rejected
from voxelsoup.data.index.not_annotated import annotated_cases
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    cases = read_cases(Path(snakemake.input.cases))
    folds = make_folds(
        {case.name: case.patient for case in cases if case.label is not None},
        study.folds,
        study.evaluation.protocol,
        left_out=read_rejected(Path(snakemake.input.rejected)),
        unlabelled=[case.name for case in cases if case.label is None],
        kinds=kinds_of_cases(
            study.dataset, study.regions, study.folds, Path(snakemake.params.root), cases
        ),
        annotated=annotated_cases(cases, study.dataset.not_annotated, study.regions),
    )
    write_json(Path(snakemake.output[0]), folds)
