"""The models of a run, scored on the selection and the test cases of their fold."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from voxelsoup.common.files import read_json
from voxelsoup.common.text import counted
from voxelsoup.evaluation.case_scores import COLUMNS
from voxelsoup.evaluation.kept_scores import KeptScores, kept_scores
from voxelsoup.evaluation.score import load_model, score_cases
from voxelsoup.evaluation.tensorboard import write_evaluation
from voxelsoup.study.study import Study

log = logging.getLogger(__name__)

# Cases whose scores are kept together: what a killed job has to repeat.
AT_ONCE = 16
# All trials of a fold wait for its stem: what its scores may take of the time that it has trained.
SHARE_OF_A_STEM = 0.05


def score_models(
    models: Iterable[KeptScores],
    fold: dict[str, list[str]],
    folder: Path,
    study: Study,
    device: torch.device,
    seconds: float = math.inf,
) -> None:
    """Score models on the cases of their fold that no scores are known of, and keep the scores.

    Test cases are scored by all metrics of the study, selection cases by Dice and loss alone.

    Args:
        fold: its parts (`selection`, `test`) and their cases, preprocessed in ``folder``.
        seconds: after which no further cases are begun, ``AT_ONCE`` at a time.

    Raises:
        InputError: if a model file cannot be read or does not fit the study's network.
    """
    began = time.monotonic()
    for known in models:
        missing = known.missing
        if not missing:
            continue
        log.info("%s: scores of %s", known.model, counted(len(missing), "case"))
        model = load_model(known.model, study, device)
        for start in range(0, len(missing), AT_ONCE):
            if time.monotonic() - began > seconds:
                return
            cases = missing[start : start + AT_ONCE]
            known.keep(score_cases(model, cases, folder, study, device, measured=fold["test"]))


def score_at_once(
    models: Iterable[Path],
    kept: Path,
    fold: dict[str, list[str]],
    folder: Path,
    fingerprints: Mapping[str, str],
    study: Study,
    device: torch.device,
    seconds: float = math.inf,
) -> None:
    """Score the models of a run in the job that has just trained it.

    What goes wrong, and what ``seconds`` do not suffice for, is left to the rule `evaluate`, which
    does the same for whatever is missing: the run itself is complete.

    Args:
        kept: folder of the scores of the fold (``KeptScores``); the others as ``score_models``.
    """
    try:
        known = list(dict.fromkeys(kept_scores(models, kept, study, fold, fingerprints)))
        score_models(known, fold, folder, study, device, seconds)
        if not any(one.missing for one in known):
            write_evaluations(known, fold)
    except Exception as error:
        log.warning("its scores are left to the rule `evaluate`: %s", error)


def write_evaluations(models: Iterable[KeptScores], fold: dict[str, list[str]]) -> None:
    """Write what runs' own models score on selection cases beside the curves of their training."""
    for known in models:
        # The run's own model has this beside it, a checkpoint along the run has not.
        record = known.model.with_name("run.json")
        if record.exists():
            trained = read_json(record)
            rows = known.rows(fold["selection"])[COLUMNS]
            write_evaluation(record.parent, rows, trained["steps"], trained["parameters"])
