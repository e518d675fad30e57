"""Successive halving: all trials begin, and at every rung only the best continue.

Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization,
AISTATS 2016. Each fold chooses by its own selection cases: a choice over folds would see the test
cases of each of them.

Only schedule-free runs may be halved. Such a run at a rung is bit-identical to the beginning of the
longer one, and its averaged weights are as good there as a run of that length gets. A scheduled
run is neither: its learning rates depend on its length, and are still high in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from voxelsoup.common.errors import InputError
from voxelsoup.study.sections.sweep import Halving

if TYPE_CHECKING:
    from voxelsoup.study.trials import Trial

# Products such as 0.33 x 100 must not be one more because of their last bit.
TOLERANCE = 1e-9


def rung_epochs(halving: Halving, epochs: int) -> list[int]:
    """Epochs that a run has at the end of each rung; the last rung ends with the run.

    Each rung but the first is longer than the one before by ``1 / keep``, so that all rungs cost
    about the same.
    """
    powers = range(halving.rungs - 1, -1, -1)
    return [max(1, round(epochs * halving.keep**power)) for power in powers]


def kept_of(halving: Halving, count: int) -> int:
    """How many of so many trials continue after a rung: their share, rounded up."""
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
                "continued, because its learning rates depend on its length and are still high "
                "there",
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
