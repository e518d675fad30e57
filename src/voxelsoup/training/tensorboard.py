"""TensorBoard events: what a run does, beside its results, for `tensorboard --logdir results`.

They are for looking at. Nothing is read from them, and where they cannot be written the run goes
on without them. tensorboard is imported when the first event is written, for it takes a while.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from voxelsoup.evaluation.case_scores import mean_dice, region_means, summary

if TYPE_CHECKING:
    from voxelsoup.training.epochs import Epoch

log = logging.getLogger(__name__)

# TensorBoard reads the files of a run whose names have this in them, in the order of their names.
PREFIX = "events.out.tfevents."
EVALUATION = ".evaluation"

SELECTION_SCORE = "selection/dice"


class TrainingEvents:
    """Writes the epochs of a run as they are trained (a ``training.Observer``)."""

    def __init__(self, folder: Path) -> None:
        """Set up.

        Args:
            folder: the run's results; its path below `--logdir` is the run's name.
        """
        self.folder = folder
        self._file: _EventFile | None = None

    def begin(self, step: int) -> None:
        """An attempt goes on after so many optimizer steps: later events are no longer true."""
        with _without_stopping_the_run(self.folder):
            if step == 0:
                for path in self.folder.glob(f"{PREFIX}*"):
                    path.unlink(missing_ok=True)
            file = _EventFile(self.folder)
            file.forget_after(step)
            self._file = file

    def after_epoch(self, epoch: Epoch) -> None:
        """Write one epoch at its step."""
        values = {
            "training/loss": epoch.training_loss,
            "training/learning rate": epoch.lr,
            "throughput/epochs per hour": 3600 / epoch.seconds,
            "memory/main (MB)": epoch.memory_mb,
        }
        if epoch.gpu_memory_mb is not None:
            values["memory/GPU (MB)"] = epoch.gpu_memory_mb
        file, self._file = self._file, None
        if file is not None:
            with _without_stopping_the_run(self.folder):
                file.scalars(values, epoch.step)
                self._file = file


def write_evaluation(
    folder: Path, rows: pd.DataFrame, step: int, parameters: Mapping[str, Any]
) -> None:
    """Write what a run's own model scores on the selection cases, and its hyperparameters.

    Args:
        folder: the run's results.
        rows: case rows of the selection cases. Those of test cases have no place here: people
            would choose by them.
        step: optimizer steps of the whole run.
        parameters: swept dotted key -> value; without any, nothing is written of them.
    """
    score = mean_dice(rows)
    values = {SELECTION_SCORE: score, "selection/loss": summary(rows)["test_loss"]}
    values |= {f"{SELECTION_SCORE} {region}": dice for region, dice in region_means(rows).items()}
    with _without_stopping_the_run(folder):
        earlier = list(folder.glob(f"{PREFIX}*{EVALUATION}"))
        file = _EventFile(folder, EVALUATION)
        file.scalars(values, step)
        if parameters:
            file.hyperparameters(parameters, {SELECTION_SCORE: score})
        for path in earlier:
            path.unlink(missing_ok=True)


@contextmanager
def _without_stopping_the_run(folder: Path) -> Iterator[None]:
    """A disk that is full or read-only costs the events."""
    try:
        yield
    except OSError as error:
        log.warning("no more TensorBoard events in %s: %s", folder, error)


class _EventFile:
    """A new file of events, newer by its name than all others of the run.

    Written at once and by this thread, unlike TensorBoard's ``SummaryWriter``, whose thread
    would print a traceback where the disk is full.
    """

    def __init__(self, folder: Path, ending: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Clocks of two hosts may differ, and the order of names is the order of reading.
        others = (path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*"))
        numbers = [int(name.partition(".")[0]) for name in others if name[:1].isdigit()]
        number = max(int(time.time()), 1 + max(numbers, default=0))
        name = f"{PREFIX}{number:010d}.{socket.gethostname()}.{os.getpid()}{ending}"
        self.path = folder / name
        self._write(file_version="brain.Event:2")

    def forget_after(self, step: int) -> None:
        """Everything written before of later steps does not count."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write one value of each of these curves."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=Summary(value=found))

    def hyperparameters(self, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Say what distinguishes the run, and by which of its curves runs are compared."""
        from torch.utils.tensorboard.summary import hparams

        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in parameters.items()
        }
        for part in hparams(plain, dict(metrics)):
            self._write(summary=part)

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        event = Event(wall_time=time.time(), **content)
        with self.path.open("ab") as stream:
            RecordWriter(stream).write(event.SerializeToString())
