"""Successive halving: all trials begin, and at every rung only the best go on.

Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization,
AISTATS 2016. Chosen within each fold, by its own selection cases: a choice over folds would see the
test cases of each of them.

Only schedule-free runs may be halved. Such a run at a rung is, to the bit, the beginning of the
longer one, and its averaged weights are as good there as a run of that length gets. A scheduled
run is neither: its learning rates depend on its length, and are still high in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.runs.progress import read_progress
from voxelsoup.study.sections.sweep import Halving
from voxelsoup.study.trials import Trial

# Products such as 0.33 x 100 must not be one more because of their last bit.
TOLERANCE = 1e-9


def rung_epochs(halving: Halving, epochs: int) -> list[int]:
    """Epochs that a run has at the end of each rung; the last rung ends with the run.

    Each rung but the first is longer than the one before by ``1 / keep``, so that all rungs cost
    about the same.

    Args:
        halving: the study's section.
        epochs: of a whole run.
    """
    powers = range(halving.rungs - 1, -1, -1)
    return [max(1, round(epochs * halving.keep**power)) for power in powers]


def kept_of(halving: Halving, count: int) -> int:
    """How many of so many trials go on after a rung: their share, rounded up."""
    return math.ceil(halving.keep * count - TOLERANCE)


def trials_at_rungs(halving: Halving, count: int) -> list[int]:
    """How many of a fold's trials each rung trains."""
    counts = [count]
    for _ in range(halving.rungs - 1):
        counts.append(kept_of(halving, counts[-1]))
    return counts


def share_of_epochs(halving: Halving, epochs: int, count: int) -> float:
    """Epochs that are trained in all, as a share of those of the full grid."""
    ends = [0, *rung_epochs(halving, epochs)]
    counts = trials_at_rungs(halving, count)
    spent = sum(n * (ends[i + 1] - ends[i]) for i, n in enumerate(counts))
    return spent / (count * epochs)


def check_halving(halving: Halving, trials: Sequence[Trial], where: str) -> None:
    """Make sure that the runs of a study can be halved.

    Raises:
        InputError: if a trial has a scheduled optimizer, runs differ in length, or two rungs end
            after the same epoch.
    """
    lengths = sorted({trial.study.training.epochs for trial in trials})
    if len(lengths) > 1:
        raise InputError(
            where,
            f"`sweep.halving` is set, and the trials have {' and '.join(map(str, lengths))} epochs",
            "trials of one length: those of a rung are compared after the same number of epochs",
            "take `training.epochs` out of the sweep, or leave out `sweep.halving`",
        )
    for trial in trials:
        schedule = trial.study.optimizer.schedule
        if schedule != "schedule-free":
            raise InputError(
                where,
                f"`sweep.halving` is set, and trial {trial.id} has the schedule `{schedule}`",
                "schedule-free trials only: a scheduled run cannot be judged at a rung and "
                "continued, for its learning rates depend on its length and are still high there",
                "take the schedule out of the sweep (set `optimizer.schedule: schedule-free`), "
                "or leave out `sweep.halving`",
            )
    ends = rung_epochs(halving, lengths[0])
    if len(set(ends)) < len(ends):
        raise InputError(
            where,
            f"`sweep.halving` has rungs that end after epochs {', '.join(map(str, ends))}",
            "rungs that each end later than the one before",
            "take fewer `rungs`, a smaller `keep`, or more `training.epochs`",
        )


def ranking(scores: Mapping[str, float]) -> list[str]:
    """Trials, the best first; of equals, the one whose id sorts first; not a number comes last."""

    def place(trial: str) -> tuple[float, str]:
        score = scores[trial]
        return (math.inf if math.isnan(score) else -score), trial

    return sorted(scores, key=place)


def rung_record(
    fold: int, rung: int, epochs: int, halving: Halving, scores: Mapping[str, float]
) -> dict[str, Any]:
    """What ``rungs/{rung}.json`` says: who was compared, and who goes on.

    Args:
        fold: number of the fold.
        rung: counted from 1.
        epochs: that the trials had at its end.
        halving: the study's section.
        scores: trial -> mean Dice on the selection cases.
    """
    ranked = ranking(scores)
    kept = ranked[: kept_of(halving, len(ranked))]
    return {
        "fold": fold,
        "rung": rung,
        "epochs": epochs,
        "keep": halving.keep,
        "kept": kept,
        "scores": {trial: _or_none(scores[trial]) for trial in ranked},
    }


def _or_none(score: float) -> float | None:
    return None if math.isnan(score) else score


def dropped_trials(results: Path, fold: int, halving: Halving | None) -> dict[str, int]:
    """Trial -> the rung after which it was dropped, as far as the rungs of a fold have ended.

    Args:
        results: the study's results folder.
        fold: number of the fold.
        halving: the study's section, if it has one.
    """
    dropped: dict[str, int] = {}
    for rung in range(1, halving.rungs if halving else 1):
        try:
            record = read_json(results / f"fold{fold}" / "rungs" / f"{rung}.json")
        except (OSError, ValueError):
            break
        kept = set(record["kept"])
        dropped |= {trial: rung for trial in record["scores"] if trial not in kept}
    return dropped


def states_of_rung(states: Path, rung: int, steps: int) -> Path:
    """Where a run keeps its states on the way to a rung.

    That is the run's own folder, so that it goes on from there. Only where the run is beyond the
    rung already, as when a finished study is halved afterwards, the way to it is trained aside.

    Args:
        states: the run's folder.
        rung: counted from 1.
        steps: optimizer steps at the end of the rung.
    """
    progress = read_progress(states)
    beyond = progress is not None and progress["step"] > steps
    return states / f"rung{rung}" if beyond else states
