"""Predict a test set with one model of a fold, and score the label maps."""

from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.common.logs import job_log
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.evaluation.label_maps import RegionValues, score_pairs
from voxelsoup.evaluation.metrics import scoring_of
from voxelsoup.models import devices
from voxelsoup.prediction.advice import as_of_a_study
from voxelsoup.prediction.batch import OutputSettings, PredictionProgress, predict_cases
from voxelsoup.prediction.ground_truth import labelled_scans, predicted_pairs, regions_of_truth
from voxelsoup.prediction.model_files import open_models
from voxelsoup.prediction.outcomes import log_outcome
from voxelsoup.prediction.predictor import PredictionSettings, order_of
from voxelsoup.study.loading import load
from voxelsoup.study.study import Study


def predict_and_score(study: Study, asked: Any) -> tuple[pd.DataFrame, dict[str, InputError]]:
    """Per-case scores of a model on the test set, and what is wrong with the other cases.

    Raises:
        InputError: if the test set as a whole cannot be used.
    """
    models = open_models([Path(snakemake.input[0]).parent])
    layout = study.comparison.test_set_layouts.get(snakemake.wildcards.test_set)
    truth = labelled_scans(asked.scans, study.dataset.channels, layout=layout)
    regions = dict(study.regions)
    values = RegionValues(
        regions_of_truth(regions, truth.regions, asked.scans),
        regions,
        frozenset(study.dataset.background),
        truth.ignored or study.dataset.ignore_label,
        study.dataset.not_annotated,
    )
    settings = PredictionSettings(
        models,
        order_of(models, study.predict.label_order, "predict.label_order"),
        overlap=study.evaluation.overlap,
        window_batch=study.evaluation.window_batch,
        precision=study.training.precision,
        accept=study.dataset.accept,
    )
    device = devices.prepare(study.training.device, snakemake.threads)
    outputs = OutputSettings(Path(asked.predictions))
    progress = PredictionProgress(finished=log_outcome)
    outcomes = predict_cases(truth.unlabelled_cases, settings, outputs, device, progress)
    pairs, problems = predicted_pairs(truth, outputs.folder, outcomes)
    by_voxels = study.dataset.accept.placement is not None
    scoring = scoring_of(study.scored_metrics)
    rows, unusable = score_pairs(pairs, values, scoring, snakemake.threads, by_voxels)
    return rows, problems | unusable


with job_log(snakemake.log[0]):
    asked = snakemake.params
    try:
        rows, problems = predict_and_score(load(snakemake.config), asked)
    except InputError as error:
        raise as_of_a_study(error) from error
    problems = {case: as_of_a_study(problem) for case, problem in problems.items()}
    if problems:
        raise BadCases(
            asked.scans, problems, "or take these cases out of the test set, in a copy of it"
        )
    write_rows(Path(snakemake.output[0]), rows)
