"""From the study to the runs of a fold: its stem and its trials."""

from __future__ import annotations

from pathlib import Path

from segsoup.study import Study
from segsoup.sweep import Trial
from segsoup.training import Run

# A trial must not see the patches of its stem again in the same order.
STEM_STAGE, TRIAL_STAGE = 0, 1


def stem_run(study: Study, fold: int, cases: list[str], folder: Path) -> Run:
    """The run that trains the stem of a fold, from random weights.

    Args:
        study: the study.
        fold: its fold.
        cases: names of the training cases.
        folder: the preprocessed cases.
    """
    return Run(
        study=study,
        optimizer=study.stem.optimizer or study.optimizer,
        epochs=study.stem.epochs,
        seed=(study.training.seed, fold, STEM_STAGE),
        cases=cases,
        folder=folder,
        initial=None,
    )


def trial_run(trial: Trial, fold: int, cases: list[str], folder: Path, initial: Path | None) -> Run:
    """The run of one trial on a fold, from the stem or a checkpoint if there is one."""
    return Run(
        study=trial.study,
        optimizer=trial.study.optimizer,
        epochs=trial.study.training.epochs,
        seed=(trial.study.training.seed, fold, TRIAL_STAGE),
        cases=cases,
        folder=folder,
        initial=initial,
    )
