"""Why a run ended early, in words, and the fix.

The reasons come as data: the error that an attempt or its job wrote down, and the end of its job as
Slurm knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from voxelsoup.common.errors import ErrorDescription
from voxelsoup.runs.record import DIVERGED, OUT_OF_GPU_MEMORY, Attempt

# An attempt that was asked to end so shortly before its limit ended because of it, in seconds.
NEAR_LIMIT = 120.0
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
BEGUN = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED", "STOPPED")

GPU_MEMORY = "out of memory on the GPU"
GPU_MEMORY_FIX = (
    "lower `training.patch` or `training.batch_size`, set `training.precision: bfloat16`, or ask "
    "for a GPU with more memory (`resources.training.gpu_model`)"
)
MEMORY_FIX = "raise `resources.training.mem_mb`, or lower `training.workers`"
RESUMES = "start again: it resumes from its last state"


@dataclass(frozen=True)
class SlurmJob:
    """What Slurm says of one job.

    Attributes:
        state: as Slurm calls it, such as ``PENDING`` or ``TIMEOUT``, like ``reason``.
        waits_for: the same of a job that waits, in words.
        runs: the runs that it trains, such as ``fold0/stem``.
    """

    id: str
    state: str
    partition: str = ""
    reason: str = ""
    waits_for: str = ""
    runs: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in PENDING

    @property
    def is_running(self) -> bool:
        """Whether it has begun and has not ended."""
        return self.state in BEGUN


@dataclass(frozen=True)
class Failure:
    """Why a run ended, in a few words; ``message`` is what the program or Slurm said."""

    words: str
    fix: str
    message: str = ""


PREEMPTED = Failure(
    "preempted by another job", "start again, or use a partition that is not preempted"
)
# What Slurm calls the end of a job.
SLURM_ENDS = {
    "TIMEOUT": Failure("time limit", f"{RESUMES}; raise `resources.training.runtime`"),
    "OUT_OF_MEMORY": Failure("out of main memory", MEMORY_FIX),
    "NODE_FAIL": Failure("node failure", RESUMES),
    "BOOT_FAIL": Failure("node failure", RESUMES),
    "CANCELLED": Failure("cancelled", RESUMES),
    "PREEMPTED": PREEMPTED,
    "DEADLINE": Failure("deadline of its job", "start again without the deadline"),
}
KILLED = Failure(
    "killed, no reason known",
    f"{RESUMES}; if it happens again, look for `out of memory` in the host's log (`dmesg`)",
)
# Ends of attempts that say what was lost: their words, and the fix.
LOST = {
    "WorkerLost": ("a data worker was killed", f"{MEMORY_FIX}; {RESUMES}"),
    "ProcessLost": ("a process of the run died", RESUMES),
    "Hung": (
        "no step ended for long",
        f"{RESUMES}; its log says where it stood (`training.watchdog`)",
    ),
}
BEFORE_TRAINING = Failure(
    "failed before its training began", "its log, or that of its Slurm job, says why"
)


def end_of_job(job: SlurmJob | None) -> Failure | None:
    """Why a Slurm job ended, as far as Slurm says more than that it failed."""
    if job is None:
        return None
    return SLURM_ENDS.get("OUT_OF_MEMORY" if "OutOfMemory" in job.reason else job.state)


def end_of_attempt(attempt: Attempt, job: SlurmJob | None) -> Failure | None:
    """Why an attempt ended that could write it down; its job knows why it was ended."""
    stop = attempt.stop
    if stop is None or stop.kind != "Interrupted":
        return end_by_error(stop)
    # A scheduler or a user asked for it: no failure of the run.
    known = end_of_job(job) or SLURM_ENDS["TIMEOUT" if _near_limit(attempt) else "CANCELLED"]
    return Failure(known.words, known.fix, stop.message)


def _near_limit(attempt: Attempt) -> bool:
    if attempt.time_limit is None or attempt.ended is None:
        return False
    left = datetime.fromisoformat(attempt.time_limit) - datetime.fromisoformat(attempt.ended)
    return left.total_seconds() < NEAR_LIMIT


def end_by_error(error: ErrorDescription | None) -> Failure | None:
    """Why a training or its job ended with an error; None without one, or if it was interrupted."""
    if error is None or error.kind == "Interrupted":
        return None
    if error.kind == "HandedOver":
        return Failure("handed over to another copy", "start again: it resumes", error.message)
    if error.kind == DIVERGED:
        return Failure("diverged", error.fix, error.message)
    if error.kind in LOST:
        return Failure(*LOST[error.kind], error.message)
    if error.kind in OUT_OF_GPU_MEMORY:
        return Failure(GPU_MEMORY, error.fix or GPU_MEMORY_FIX, error.message)
    message = error.message.lower()
    # Libraries below torch have no error of their own for it.
    if "out of memory" in message and ("cuda" in message or "gpu" in message):
        return Failure(GPU_MEMORY, GPU_MEMORY_FIX, error.message)
    no_memory = (
        "can't allocate memory", "cannot allocate memory", "main memory is full",
        "killed by signal: killed",
    )  # fmt: skip
    if error.kind == "MemoryError" or any(text in message for text in no_memory):
        return Failure("out of main memory", MEMORY_FIX, error.message)
    # As earlier versions wrote it.
    if "loss is nan or infinite" in message or "loss is no number" in message:
        return Failure("diverged", error.fix, error.message)
    if "no space left" in message or "quota exceeded" in message:
        fix = error.fix or "free some space, then start again"
        return Failure("disk full", fix, error.message)
    if error.fix:
        return Failure(_first_line(error.message), error.fix, error.message)
    where = f" at {error.where}" if error.where else ""
    return Failure(
        f"error{where}: {_first_line(error.message)}",
        "its log has the full message; a traceback there is a defect in voxelsoup or a library",
        f"{error.kind}: {error.message}",
    )


def _first_line(text: str, length: int = 120) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= length else f"{line[: length - 3]}..."
