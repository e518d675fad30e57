"""Why a run ended before its time, in words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from voxelsoup.runs.record import Attempt, Stop
from voxelsoup.status.slurm_jobs import Job

# An attempt that was asked to end so shortly before its limit ended because of it, in seconds.
NEAR_LIMIT = 120.0
# Stops that are no failures of the run: a scheduler, a user or another copy asked for them.
ASKED_TO_END = ("Interrupted", "HandedOver")

GPU_MEMORY_MEND = (
    "lower `training.patch` or `training.batch_size`, set `training.precision: bfloat16`, or ask "
    "for a GPU with more memory (`resources.training.gpu_model`)"
)
MEMORY_MEND = "raise `resources.training.mem_mb`, or lower `training.workers`"


@dataclass(frozen=True)
class Failure:
    """Why a run ended.

    Attributes:
        words: the reason, in a few words.
        fix: what the user can do.
        message: what the program or Slurm said.
    """

    words: str
    fix: str
    message: str = ""


# What Slurm calls the end of a job, and the reason beside it.
SLURM_ENDS = {
    "TIMEOUT": Failure(
        "time limit",
        "start again, it resumes from its last state; raise `resources.training.runtime`",
    ),
    "OUT_OF_MEMORY": Failure("out of main memory", MEMORY_MEND),
    "NODE_FAIL": Failure("node failure", "start again: it resumes from its last state"),
    "BOOT_FAIL": Failure("node failure", "start again: it resumes from its last state"),
    "CANCELLED": Failure("cancelled", "start again: it resumes from its last state"),
    "PREEMPTED": Failure(
        "preempted by another job", "start again, or use a partition that is not preempted"
    ),
    "DEADLINE": Failure("deadline of its job", "start again without the deadline"),
}
KILLED = Failure(
    "killed, no reason known",
    "start again: it resumes from its last state; if it happens again, look for `out of memory` "
    "in the host's log (`dmesg`)",
)


def end_of_job(job: Job | None) -> Failure | None:
    """Why a Slurm job ended, as far as Slurm says more than that it failed."""
    if job is None:
        return None
    if "OutOfMemory" in job.reason:
        return SLURM_ENDS["OUT_OF_MEMORY"]
    return SLURM_ENDS.get(job.state)


def end_of_attempt(attempt: Attempt, job: Job | None) -> Failure | None:
    """Why an attempt ended that could write it down.

    Args:
        attempt: the attempt; None comes back if it did not say.
        job: its Slurm job, which knows who asked it to end.
    """
    stop = attempt.stop
    if stop is None:
        return None
    if stop.kind not in ASKED_TO_END:
        return _of_error(stop)
    if stop.kind == "HandedOver":
        return Failure("handed over to another copy", "start again: it resumes", stop.message)
    known = end_of_job(job)
    if known is None and _near_limit(attempt):
        known = SLURM_ENDS["TIMEOUT"]
    known = known or SLURM_ENDS["CANCELLED"]
    return Failure(known.words, known.fix, stop.message)


def _near_limit(attempt: Attempt) -> bool:
    if attempt.time_limit is None or attempt.ended is None:
        return False
    left = datetime.fromisoformat(attempt.time_limit) - datetime.fromisoformat(attempt.ended)
    return left.total_seconds() < NEAR_LIMIT


def _of_error(stop: Stop) -> Failure:
    """An exception of the training."""
    message = stop.message.lower()
    if "out of memory" in message and ("cuda" in message or "gpu" in message):
        return Failure("out of memory on the GPU", GPU_MEMORY_MEND, stop.message)
    no_memory = ("can't allocate memory", "cannot allocate memory", "killed by signal: killed")
    if stop.kind == "MemoryError" or any(text in message for text in no_memory):
        return Failure("out of main memory", MEMORY_MEND, stop.message)
    if "loss is nan or infinite" in message or "loss is no number" in message:
        return Failure("bad loss", stop.fix, stop.message)
    if "no space left" in message or "quota exceeded" in message:
        fix = stop.fix or "free some space, then start again"
        return Failure("disk full", fix, stop.message)
    if stop.fix:
        return Failure(_first_line(stop.message), stop.fix, stop.message)
    where = f" at {stop.where}" if stop.where else ""
    return Failure(
        f"error{where}: {_first_line(stop.message)}",
        "its log has the full message; a traceback there is a defect in voxelsoup or a library",
        f"{stop.kind}: {stop.message}",
    )


def end_of_log(text: str) -> Failure | None:
    """Why a job ended before its training began, as its log tells it; None if it does not.

    Args:
        text: the log, of which the end will do.
    """
    if "this is a defect in voxelsoup or in a library" in text and "Traceback" in text:
        last = text.rstrip().rpartition("\n")[2]
        return Failure(f"error: {last}", "its log has the traceback", last)
    if "\n  fix: " in text:
        before, _, fix = text.rpartition("\n  fix: ")
        said = before.rpartition("\n  expected: ")[0]
        # A line of a log begins with the time.
        found = said.rpartition("\n")[2][9:]
        return Failure(found, fix.strip(), found)
    return None


def _first_line(text: str, length: int = 120) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= length else f"{line[: length - 3]}..."
