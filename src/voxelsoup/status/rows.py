"""One row per run: what the table, the page and scripts show of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from voxelsoup.runs.run_state import RunState
from voxelsoup.study.study import LONG_RUN, folder_of, place_of
from voxelsoup.study.trials import trial_label

STEM, FINISH = "stem", "finish"


def name_of_run(configuration: str, fold: int, run: str) -> str:
    """What commands, logs and comments of submissions call a run."""
    return "/".join(filter(None, (configuration, folder_of(fold), run)))


@dataclass(frozen=True)
class RunRow:
    """What is known of one run.

    Attributes:
        run: ``stem``, the id of the trial, or ``finish/<model>/<learning rate>``.
        parameters: swept dotted key -> value, for the keys in which the study's trials differ.
        detail: what belongs to the state, such as ``2 of 3`` for a retry, why it is queued or
            why it failed, or that a finish was chosen, in a few words; empty if there is nothing to
            add.
        epoch: epochs done.
        epochs: that it is to have.
        training_loss: mean of the last epoch done.
        selection_loss: mean loss of its best model so far on its selection cases.
        selection_score: mean Dice of that model there.
        epochs_per_hour: of the present attempt, or of the last one.
        estimated_end: when it will have all epochs; of a run at work only.
        gpu: model of the GPU (``cpu`` without one) and its index, such as ``NVIDIA H100 #1``.
        host: where it runs or ran last.
        job: number of its Slurm job.
        attempt: attempts so far.
        started: when the first attempt began.
        hours: that all attempts have trained.
        fix: what the user can do about a run that failed.
        losses: mean training loss of every epoch done; empty unless curves are asked for.
        configuration: that it is of; empty for the study's first one.
    """

    fold: int
    run: str
    parameters: dict[str, Any]
    state: RunState
    detail: str = ""
    epoch: int = 0
    epochs: int = 0
    training_loss: float | None = None
    selection_loss: float | None = None
    selection_score: float | None = None
    epochs_per_hour: float | None = None
    estimated_end: datetime | None = None
    gpu: str | None = None
    host: str | None = None
    job: str | None = None
    partition: str | None = None
    attempt: int = 0
    started: datetime | None = None
    hours: float = 0.0
    fix: str = ""
    losses: Sequence[float] = field(default=(), repr=False)
    configuration: str = ""

    @property
    def name(self) -> str:
        """Its name in commands, as ``fold0/stem``, ``fold2/3b2a69b9`` or ``wide/fold0/stem``."""
        return name_of_run(self.configuration, self.fold, self.run)

    @property
    def place(self) -> str:
        """Its configuration and fold for readers, as ``fold 0`` or ``wide, fold 0``."""
        return ", ".join(filter(None, (self.configuration, place_of(self.fold))))

    @property
    def label(self) -> str:
        """The name for readers, as ``stem`` or ``lr 0.03, seed 1``."""
        # A finish is named by its place, which has its model and its learning rate.
        if self.run in (STEM, LONG_RUN) or self.run.startswith(FINISH):
            return self.run
        return trial_label(self.parameters, [*self.parameters])


@dataclass(frozen=True)
class HeadJob:
    """The Slurm job in which a study's Snakemake runs, if it was submitted.

    Attributes:
        state: Slurm's word, or what became of the study: done, failed or stopped.
        node: where it runs; empty while it waits.
        since: when it began to run, this time.
        detail: why it waits, in words.
        log: what Snakemake prints.
    """

    job: str
    state: str
    node: str
    since: datetime | None
    detail: str
    log: str

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state.isupper()


@dataclass(frozen=True)
class StudyStatus:
    """All runs of a study at one moment.

    Attributes:
        study: name of its file.
        rows: one per run, folds in order, stems first, trials in the order of the study.
        gpu_hours: hours of GPUs that all attempts have taken; 0 where runs train on CPUs.
        hours: the same of any device.
        estimated_end: when all runs will be done, at the present pace; None if nothing runs.
        note: why nothing is submitted, and what could not be found out, such as from a Slurm
            controller that does not answer.
        head: the study's head job; None if it was not submitted.
    """

    study: str
    results: str
    at: datetime
    rows: Sequence[RunRow]
    gpu_hours: float
    hours: float
    estimated_end: datetime | None = None
    note: str = ""
    head: HeadJob | None = None

    def count(self, *states: RunState) -> int:
        """Number of runs in any of these states."""
        return sum(row.state in states for row in self.rows)
