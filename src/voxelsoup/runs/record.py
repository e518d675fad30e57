"""The record of a run: what it is doing and how it ended, in one small file for people who look.

It lies beside the run's states, is written at the run's start and end, after epochs and while a
state is saved, and never after a step. No result depends on it: a full disk loses the record, not
the run.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from voxelsoup.common import provenance
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_json
from voxelsoup.runs.lease import Owner

log = logging.getLogger(__name__)

RECORD = "status.json"
Doing = Literal["running", "saving", "finished", "stopped"]
# Epochs may be shorter than people can see, and a file server's answer longer than an epoch.
SECONDS_BETWEEN_EPOCHS = 1.0
# The speed is that of the last few epochs: the first one also warms up.
EPOCHS_OF_SPEED = 5


@dataclass(frozen=True)
class Stop:
    """Why an attempt ended before its time.

    Attributes:
        kind: the exception's class.
        message: what it says.
        where: the innermost line of voxelsoup or of a script on its way, as ``augment.py line 33``.
        fix: what the user can do, where the exception knows.
    """

    kind: str
    message: str
    where: str = ""
    fix: str = ""


@dataclass
class Attempt:
    """One process that trained the run.

    Attributes:
        started: when, in UTC (ISO 8601), as all times here.
        owner: which process on which host in which job.
        partition: of its Slurm job.
        time_limit: when Slurm will end its job, where Slurm tells.
        device: model of the GPU, or ``cpu``; None until it is chosen.
        gpu_index: number of the GPU on its host.
        from_step: optimizer steps of the state that it went on from; 0 at the beginning.
        to_epoch: epochs that it had done when the record was last written.
        ended: when it ended; None if nobody could write that down.
        stop: why it ended before its time.
    """

    started: str
    owner: Owner
    partition: str | None = None
    time_limit: str | None = None
    device: str | None = None
    gpu_index: str | None = None
    from_step: int = 0
    to_epoch: int = 0
    ended: str | None = None
    stop: Stop | None = None


@dataclass
class RunRecord:
    """What a run says of itself.

    Attributes:
        state: what its last attempt is doing, or how it ended.
        updated: when the record was written.
        steps: optimizer steps of the whole run.
        epoch: epochs done.
        step: optimizer steps done at the end of that epoch.
        training_loss: mean of that epoch.
        lr: learning rate that it began with.
        seconds_per_epoch: mean of the last few epochs of this attempt.
        peak_memory_mb: main memory of the process, in MB.
        peak_gpu_memory_mb: what torch has taken of the GPU, in MB.
        seconds: time that all attempts have taken until ``updated``.
        attempts: oldest first.
    """

    state: Doing
    updated: str
    steps: int
    epoch: int = 0
    step: int = 0
    training_loss: float | None = None
    lr: float | None = None
    seconds_per_epoch: float | None = None
    peak_memory_mb: float | None = None
    peak_gpu_memory_mb: float | None = None
    seconds: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)


class Recorder:
    """Writes the record of a run while this process trains it."""

    def __init__(self, folder: Path, owner: Owner, steps: int) -> None:
        """Set up.

        Args:
            folder: the run's states.
            owner: this process, as its lease names it.
            steps: optimizer steps of the whole run.
        """
        self.folder, self.owner = folder, owner
        self.record = RunRecord("running", provenance.now(), steps)
        self._began = time.monotonic()
        self._before = 0.0
        self._written = -SECONDS_BETWEEN_EPOCHS
        self._ends: deque[float] = deque(maxlen=EPOCHS_OF_SPEED + 1)

    def start(self) -> None:
        """This process owns the run now, and another attempt begins."""
        earlier = read_record(self.folder)
        if earlier is not None:
            self._before = earlier.seconds
            # What the run has come to stays to be seen until training goes on.
            self.record = replace(earlier, state="running", steps=self.record.steps)
        limit = os.environ.get("SLURM_JOB_END_TIME", "")
        attempt = Attempt(
            started=provenance.now(),
            owner=self.owner,
            partition=os.environ.get("SLURM_JOB_PARTITION"),
            time_limit=_utc(float(limit)) if limit.isdecimal() else None,
        )
        self._began = time.monotonic()
        self.record.attempts.append(attempt)
        self._write()

    def trains_on(self, device: str, index: int | None) -> None:
        """Say which device was chosen.

        Args:
            device: its model, or ``cpu``.
            index: its number among those that this process sees; None if it is no GPU.
        """
        attempt = self.record.attempts[-1]
        attempt.device = device
        attempt.gpu_index = None if index is None else _index_on_host(index, os.environ)
        self._write()

    def goes_on(self, step: int, rows: list[dict[str, float]]) -> None:
        """Training begins, after so many steps and epochs."""
        self.record.attempts[-1].from_step = step
        self.record.epoch = self.record.step = 0
        self.record.training_loss = self.record.lr = self.record.seconds_per_epoch = None
        self._note(rows)
        self._ends.clear()
        self._ends.append(time.monotonic())
        self._write()

    def epoch_done(self, rows: list[dict[str, float]]) -> None:
        """An epoch is done; the record is written about once a second at most."""
        self._ends.append(time.monotonic())
        if len(self._ends) > 1:
            self.record.seconds_per_epoch = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        self._note(rows)
        if time.monotonic() - self._written >= SECONDS_BETWEEN_EPOCHS:
            self._write()

    def shows(self, state: Doing) -> None:
        """Change what the run is doing."""
        self.record.state = state
        self._write()

    def finished(self) -> None:
        """The run has all its epochs and its results are written."""
        self._end("finished", None)

    def stopped(self, error: BaseException) -> None:
        """The attempt ends before its time."""
        self._end("stopped", stop_of(error))

    def _end(self, state: Doing, stop: Stop | None) -> None:
        attempt = self.record.attempts[-1]
        attempt.ended, attempt.stop = provenance.now(), stop
        self.shows(state)

    def _note(self, rows: list[dict[str, float]]) -> None:
        if rows:
            last = rows[-1]
            self.record.epoch, self.record.step = int(last["epoch"]), int(last["step"])
            self.record.training_loss, self.record.lr = last["training_loss"], last["lr"]
        self.record.attempts[-1].to_epoch = self.record.epoch

    def _write(self) -> None:
        now = time.monotonic()
        self._written = now
        self.record.seconds = round(self._before + now - self._began, 3)
        self.record.updated = provenance.now()
        self.record.peak_memory_mb = peak_memory_mb()
        self.record.peak_gpu_memory_mb = peak_gpu_memory_mb()
        try:
            write_json(self.folder / RECORD, asdict(self.record))
        except (InputError, OSError) as error:
            log.warning("%s could not be written: %s", self.folder / RECORD, error)


def read_record(folder: Path | str) -> RunRecord | None:
    """The record of a run; None if there is none that can be read."""
    try:
        with open(f"{folder}/{RECORD}", encoding="utf-8") as stream:  # noqa: PTH123
            content = json.load(stream)
        record = RunRecord(**_known(RunRecord, content))
        record.attempts = [_attempt(attempt) for attempt in content["attempts"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record


def _attempt(content: dict[str, Any]) -> Attempt:
    attempt = Attempt(**_known(Attempt, content))
    attempt.owner = Owner(**_known(Owner, content["owner"]))
    if content.get("stop"):
        attempt.stop = Stop(**_known(Stop, content["stop"]))
    return attempt


# Of each class once: thousands of records are read at a time.
_NAMES: dict[type, set[str]] = {
    kind: {f.name for f in fields(kind)} for kind in (RunRecord, Attempt, Owner, Stop)
}


def _known(kind: type, content: dict[str, Any]) -> dict[str, Any]:
    """Without what another version of voxelsoup has written beside it."""
    return {key: value for key, value in content.items() if key in _NAMES[kind]}


def stop_of(error: BaseException) -> Stop:
    """An exception in words."""
    fix = error.fix if isinstance(error, InputError) else ""
    message = f"{error.where}: {error.found}" if isinstance(error, InputError) else str(error)
    return Stop(type(error).__name__, message or type(error).__name__, _place(error), fix)


def _place(error: BaseException) -> str:
    """The innermost line on the way to an exception that is voxelsoup's own, or a script's."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[1])
    own = [frame for frame in frames if frame.filename.startswith(package)]
    others = [f for f in frames if "site-packages" not in f.filename and "<" not in f.filename]
    chosen = (own or others)[-1:]
    return "".join(f"{Path(frame.filename).name} line {frame.lineno}" for frame in chosen)


def _index_on_host(index: int, environment: Mapping[str, str]) -> str:
    """Number of a GPU on its host: a process counts those that it may see from 0."""
    # Where Slurm hides the others, CUDA_VISIBLE_DEVICES counts from 0 too, and Slurm knows better.
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES"):
        numbers = environment.get(name, "").split(",")
        if index < len(numbers) and numbers[index].strip().isdecimal():
            return numbers[index].strip()
    return str(index)


def peak_memory_mb() -> float:
    """Most main memory that this process has had so far, in MB."""
    # Linux counts in KiB.
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def peak_gpu_memory_mb() -> float | None:
    """Most memory that tensors of this process have had on its GPU so far, in MB; None on a CPU."""
    # Whoever trains has torch; whoever only reads a record must not wait for its import.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return round(torch.cuda.max_memory_allocated() / 1e6, 1)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
