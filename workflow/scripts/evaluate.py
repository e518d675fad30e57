"""Score a run's models: on selection cases, and by all metrics on the test cases of its fold."""

from pathlib import Path

import pandas as pd

from voxelsoup.common.files import read_json, sha256
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.evaluation.case_scores import COLUMNS, write_no_rows, write_rows
from voxelsoup.evaluation.score import load_model, score_cases
from voxelsoup.evaluation.tensorboard import write_evaluation
from voxelsoup.models import devices
from voxelsoup.runs.divergence import divergence_of
from voxelsoup.study.study import Study


def score_models(study: Study, fold: dict, folder: Path, models: list[Path]) -> None:
    """Score each model on the cases of its fold, and write its scores."""
    sharing = study.resources.runs_per_gpu
    device = devices.prepare(study.training.device, snakemake.threads, runs_per_gpu=sharing)
    cases = sorted({*fold["selection"], *fold["test"]})

    # A scheduled optimizer has one kind of weights, which lie in several files.
    scores: dict[str, pd.DataFrame] = {}
    places = snakemake.output.selections, snakemake.output.tests
    for model, selection, test in zip(models, *places, strict=True):
        digest = sha256(model)
        if digest not in scores:
            scored = load_model(model, study, device)
            scores[digest] = score_cases(
                scored, cases, folder, study, device, measured=fold["test"]
            )
        rows = scores[digest]
        chosen_by = rows.loc[rows["case"].isin(fold["selection"]), COLUMNS]
        write_rows(Path(selection), chosen_by)
        write_rows(Path(test), rows[rows["case"].isin(fold["test"])])

        # The run's own model has this beside it, a checkpoint along the run has not.
        record = model.with_name("run.json")
        if record.exists():
            trained = read_json(record)
            write_evaluation(record.parent, chosen_by, trained["steps"], trained["parameters"])


with job_log(snakemake.log[0]):
    folder, number = Path(snakemake.params.folder), snakemake.wildcards.fold
    study, fold = study_of_fold(snakemake.config, Path(snakemake.input.folds), number, folder)
    models = list(map(Path, snakemake.input.models))
    if divergence_of(int(number), models[0].parent) is None:
        score_models(study, fold, folder, models)
    else:
        # There are no models to score, and no device is needed to say so.
        for path in (*snakemake.output.selections, *snakemake.output.tests):
            write_no_rows(Path(path))
