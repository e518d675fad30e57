"""The record of a run: one small file beside its states that says all that others need to know.

It says what the run is doing or how it ended, what each of its attempts trained on which host, and
what its newest state is a state of. It is written at the run's start and end, after epochs (once a
second at most) and with each state. No result depends on it: a full disk loses the record, not the
run.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from voxelsoup.common import provenance
from voxelsoup.common.errors import (
    NO_LARGER_CARD,
    CardTooSmall,
    ErrorDescription,
    GpuMemoryFull,
    InputError,
    describe,
)
from voxelsoup.common.files import read_json, write_json
from voxelsoup.runs.lease import Owner

log = logging.getLogger(__name__)

RECORD = "status.json"
# What an attempt's end is called whose numbers were NaN or infinite twice.
DIVERGED = "Diverged"
# torch.OutOfMemoryError, also under its former name torch.cuda.OutOfMemoryError: on a GPU alone;
# and what jobs make of it.
OUT_OF_GPU_MEMORY = (
    *("OutOfMemoryError", GpuMemoryFull.__name__, CardTooSmall.__name__),
    NO_LARGER_CARD,
)
# Earlier versions kept a part of the record in a file of its own.
SAVED_BEFORE = "progress.json"
Doing = Literal["running", "saving", "finished", "stopped"]
# Epochs may be shorter than a reader can see, and a file server's answer longer than an epoch.
SECONDS_BETWEEN_EPOCHS = 1.0
# The speed is that of the last few epochs: the first one also warms up.
EPOCHS_OF_SPEED = 5


@dataclass
class Attempt:
    """One process that trained the run; all times are in UTC (ISO 8601).

    Attributes:
        taken_from: the process that had the run's lease and did not give it back.
        visible_gpus: what ``CUDA_VISIBLE_DEVICES`` says.
        time_limit: when Slurm will end its job, where Slurm says so.
        device: model of the GPU, or ``cpu``; None until it is chosen.
        gpu_index: number of the GPU on its host.
        gpu_memory: bytes that the GPU has.
        started_over: why the states that were there are of no use, if they are not.
        from_step: optimizer steps of the state that it resumed from; 0 at the beginning.
        first_step: when its first step was done.
        went_back: what was NaN or infinite when it last went back to its newest state.
        passed: the step after which it was finite then, where it had not been before.
        to_epoch: epochs that it had done when the record was last written.
        ended: when it ended; None if it could not be recorded.
        stop: why it ended before its time.
    """

    started: str
    owner: Owner
    taken_from: str | None = None
    visible_gpus: str | None = None
    partition: str | None = None
    time_limit: str | None = None
    device: str | None = None
    gpu_index: str | None = None
    gpu_memory: int | None = None
    started_over: str | None = None
    from_step: int = 0
    first_step: str | None = None
    went_back: str | None = None
    passed: int | None = None
    to_epoch: int = 0
    ended: str | None = None
    stop: ErrorDescription | None = None

    @property
    def diverged(self) -> bool:
        """Whether it ended because the run did (``divergence.Diverged``)."""
        return self.stop is not None and self.stop.kind == DIVERGED

    @property
    def ran_out_of_gpu_memory(self) -> bool:
        """Whether it ended with torch's own error for a GPU whose memory is full."""
        return self.stop is not None and self.stop.kind in OUT_OF_GPU_MEMORY

    @property
    def gpu(self) -> str | None:
        """The device and its number on the host, such as ``NVIDIA H100 #1``."""
        return self.device if self.gpu_index is None else f"{self.device} #{self.gpu_index}"


@dataclass(frozen=True)
class SavedState:
    """What the newest state of a run is a state of.

    Attributes:
        identity: everything that the run's result depends on.
        time: when it was written; of earlier versions unknown.
    """

    identity: dict[str, Any]
    step: int
    time: str = ""


@dataclass
class RunRecord:
    """What a run says of itself.

    Attributes:
        state: what its last attempt is doing, or how it ended.
        steps: optimizer steps of the whole run.
        epoch: epochs done.
        step: optimizer steps done at the end of that epoch.
        training_loss: mean of that epoch.
        lr: learning rate that it began with.
        seconds_per_epoch: mean of the last few epochs of this attempt.
        peak_gpu_memory_mb: what torch has taken of the GPU.
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
    saved: SavedState | None = None


class Recorder:
    """Writes the record of a run while this process trains it; may be called by several threads."""

    def __init__(self, folder: Path, owner: Owner, steps: int) -> None:
        """Set up in the folder of the run's states; ``owner`` is this process."""
        self.folder, self.owner = folder, owner
        self.record = RunRecord("running", provenance.now(), steps)
        self._began = time.monotonic()
        self._before = 0.0
        self._written = -SECONDS_BETWEEN_EPOCHS
        self._ends: deque[float] = deque(maxlen=EPOCHS_OF_SPEED + 1)
        self._lock = threading.RLock()

    @property
    def attempt(self) -> Attempt:
        """That of this process."""
        return self.record.attempts[-1]

    def start(self, taken_from: Owner | None = None) -> None:
        """This process owns the run now, and another attempt begins."""
        earlier = read_record(self.folder)
        if earlier is not None:
            self._before = earlier.seconds
            # What the run has come to stays to be seen until training resumes.
            self.record = replace(earlier, state="running", steps=self.record.steps)
        else:
            self.record.saved = read_saved(self.folder)
        limit = os.environ.get("SLURM_JOB_END_TIME", "")
        attempt = Attempt(
            started=provenance.now(),
            owner=self.owner,
            taken_from=str(taken_from) if taken_from else None,
            visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
            partition=os.environ.get("SLURM_JOB_PARTITION"),
            time_limit=_utc(float(limit)) if limit.isdecimal() else None,
        )
        self._began = time.monotonic()
        self.record.attempts.append(attempt)
        self._write()

    def trains_on(self, device: str, index: int | None, memory: int | None = None) -> None:
        """Say which device was chosen: its model, and of a GPU its number in sight and memory."""
        self.attempt.device = device
        self.attempt.gpu_memory = memory
        self.attempt.gpu_index = None if index is None else _index_on_host(index)
        self._write()

    def resumes(self, step: int, rows: list[dict[str, float]]) -> None:
        """Training begins, after so many steps and epochs."""
        self.attempt.from_step = step
        self.record.epoch = self.record.step = 0
        self.record.training_loss = self.record.lr = self.record.seconds_per_epoch = None
        self._note(rows)
        self._ends.clear()
        self._ends.append(time.monotonic())
        self._write()

    def first_step_done(self) -> None:
        """This attempt has trained its first step."""
        self.attempt.first_step = provenance.now()
        self._write()

    def epoch_done(self, rows: list[dict[str, float]]) -> None:
        """An epoch is done; the record is written about once a second at most."""
        self._ends.append(time.monotonic())
        if len(self._ends) > 1:
            self.record.seconds_per_epoch = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        self._note(rows)
        if time.monotonic() - self._written >= SECONDS_BETWEEN_EPOCHS:
            self._write()

    def state_saved(self, step: int, identity: dict[str, Any]) -> None:
        """A state is on the disk."""
        self.record.saved = SavedState(identity, step, provenance.now())
        self._write()

    def shows(self, state: Doing) -> None:
        """Change what the run is doing."""
        self.record.state = state
        self._write()

    def ended(self, error: BaseException | None = None) -> None:
        """The run has all its epochs and results, or the attempt ends before its time."""
        self.attempt.ended = provenance.now()
        self.attempt.stop = None if error is None else describe(error)
        self.shows("finished" if error is None else "stopped")

    def _note(self, rows: list[dict[str, float]]) -> None:
        if rows:
            last = rows[-1]
            self.record.epoch, self.record.step = int(last["epoch"]), int(last["step"])
            self.record.training_loss, self.record.lr = last["training_loss"], last["lr"]
        self.attempt.to_epoch = self.record.epoch

    def _write(self) -> None:
        with self._lock:
            self._written = time.monotonic()
            self.record.seconds = round(self._before + self._written - self._began, 3)
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
        record = _known(RunRecord, content)
        record.attempts = [_attempt(attempt) for attempt in content["attempts"]]
        saved = content.get("saved")
        record.saved = _known(SavedState, saved) if saved else _saved_before(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return record


def read_result(folder: Path | str) -> dict[str, Any]:
    """What the results of a run say of it (``run.json``); empty while there are none."""
    try:
        content = read_json(Path(folder, "run.json"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_saved(folder: Path | str) -> SavedState | None:
    """What the newest state of a run is a state of; None if there is none."""
    record = read_record(folder)
    return record.saved if record else _saved_before(folder)


def _saved_before(folder: Path | str) -> SavedState | None:
    """What an earlier version wrote down of the newest state."""
    path = f"{folder}/{SAVED_BEFORE}"
    # Asked of thousands of runs at a time, of which most have nothing yet.
    if not os.path.exists(path):  # noqa: PTH110
        return None
    try:
        content = read_json(Path(path))
        return SavedState(content["identity"], content["step"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _attempt(content: dict[str, Any]) -> Attempt:
    attempt: Attempt = _known(Attempt, content)
    attempt.owner = _known(Owner, content["owner"])
    if content.get("stop"):
        attempt.stop = _known(ErrorDescription, content["stop"])
    return attempt


# Of each class once: thousands of records are read at a time.
_NAMES: dict[type, set[str]] = {
    kind: {f.name for f in fields(kind)}
    for kind in (RunRecord, Attempt, Owner, ErrorDescription, SavedState)
}


def _known(kind: type, content: dict[str, Any]) -> Any:
    """Built from the known fields; those of another version are ignored."""
    return kind(**{key: value for key, value in content.items() if key in _NAMES[kind]})


def first_difference(before: Any, now: Any, path: str = "") -> str | None:
    """The first setting in which two nested mappings differ, in words; None if none does."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else f"`{path}` was {before} and is {now}"
    for key in dict.fromkeys([*now, *before]):
        inner = f"{path}.{key}" if path else str(key)
        if key == "epochs" and not path and before.get(key) != now.get(key):
            return f"its schedule was made for {before.get(key)} epochs"
        difference = first_difference(before.get(key), now.get(key), inner)
        if difference:
            return difference
    return None


def _index_on_host(index: int) -> str:
    """Number of a GPU on its host: a process counts those that it may see from 0."""
    # Where Slurm hides the others, CUDA_VISIBLE_DEVICES counts from 0 too, and Slurm knows better.
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES"):
        numbers = os.environ.get(name, "").split(",")
        if index < len(numbers) and numbers[index].strip().isdecimal():
            return numbers[index].strip()
    return str(index)


def peak_memory_mb() -> float:
    """Most main memory that this process has had so far, in MB."""
    # Linux counts in KiB.
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def peak_gpu_memory_mb() -> float | None:
    """Most memory that tensors of this process have had on its GPU so far, in MB; None on a CPU."""
    # A training has imported torch; reading a record must not wait for its import.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return round(torch.cuda.max_memory_allocated() / 1e6, 1)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
