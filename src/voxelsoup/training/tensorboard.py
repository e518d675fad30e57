"""TensorBoard events: what a run does, beside its results, for `tensorboard --logdir results`.

They are for looking at: nothing is read from them, and where they cannot be written the run goes
on without them. They are written here and not by torch's ``SummaryWriter``, whose thread prints a
traceback where the disk is full (seen with tensorboard 2.21.0), and which names files by its
host's clock: TensorBoard reads the files of a resumed run in the order of their names.

tensorboard is imported when the first event is written, for importing it takes a while.
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

if TYPE_CHECKING:
    from voxelsoup.training.epochs import Epoch

log = logging.getLogger(__name__)

# TensorBoard reads the files whose names contain this.
PREFIX = "events.out.tfevents."


class TrainingEvents:
    """Writes the epochs of a run as they are trained (a ``training.Observer``)."""

    def __init__(self, folder: Path) -> None:
        """Set up for a folder of results, whose path below `--logdir` is the run's name."""
        self.folder = folder
        self._file: EventFile | None = None

    def begin(self, step: int) -> None:
        """An attempt resumes after so many optimizer steps: later events no longer count."""
        with without_stopping_the_run(self.folder):
            if step == 0:
                for path in self.folder.glob(f"{PREFIX}*"):
                    path.unlink(missing_ok=True)
            file = EventFile(self.folder)
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
            with without_stopping_the_run(self.folder):
                file.scalars(values, epoch.step)
                self._file = file


@contextmanager
def without_stopping_the_run(folder: Path) -> Iterator[None]:
    """A disk that is full or read-only costs the events, not the run."""
    try:
        yield
    except OSError as error:
        log.warning("no more TensorBoard events in %s: %s", folder, error)


class EventFile:
    """A new file of events, newer by its name than all others of the run."""

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
