"""The command `voxelsoup stop`: end a submitted study, and its jobs once they have saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from voxelsoup.cluster.head_job import ENDED, cancel, state_of
from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted
from voxelsoup.runs.failures import SlurmJob
from voxelsoup.runs.invocation import read_invocation
from voxelsoup.runs.lease import is_alive, look_at, server_time
from voxelsoup.runs.submission import read_submission, write_submission
from voxelsoup.status.slurm_jobs import ask_slurm
from voxelsoup.study.study import Study

LOOK_S = 0.5
# Slurm's `KillWait` is half a minute by default.
PATIENCE_S = 180


def stop(file: Path, study: Study) -> int:
    """End all that runs of a study on a cluster.

    Raises:
        InputError: if Slurm does not answer, or if a Snakemake that was not submitted runs it.
    """
    results = Path(study.results)
    # First: as long as it lives, it submits cancelled jobs again.
    head = stop_head(results)
    refuse_other_snakemake(file, study, head)
    jobs = open_jobs(results)
    if head is None and not jobs:
        print(f"{file}: nothing of it runs on the cluster")
        return 0
    if jobs:
        print(f"{counted(len(jobs), 'job')} of the study: asked to save and end", flush=True)
        cancel(*(job.id for job in jobs))
        wait_until(lambda: not open_jobs(results), "its jobs")
    print(f"{file}: stopped. `voxelsoup submit {file}` resumes it")
    return 0


def stop_head(results: Path) -> str | None:
    """End the head job, if there is one under way; returns its number."""
    submission = read_submission(results)
    if submission is None or submission.end is not None:
        return None
    state = state_of(submission.job)
    if state is None or not state.is_open:
        return None
    cancel(submission.job)
    wait_until(lambda: not is_open(submission.job), f"head job {submission.job}")
    write_submission(results, replace(submission, end="stopped"))
    print(f"head job {submission.job}: ended", flush=True)
    return submission.job


def is_open(job: str) -> bool:
    """Whether a job waits, runs or is just ending."""
    state = state_of(job)
    return state is not None and state.is_open


def refuse_other_snakemake(file: Path, study: Study, head: str | None) -> None:
    """Make sure that no Snakemake of a terminal would submit the jobs again.

    Raises:
        InputError: naming it.
    """
    folder = Path(study.results, ".state")
    lease = look_at(folder)
    # That of a head job is gone, though its lease may look alive for a while.
    if head is None and is_alive(lease, server_time(folder), study.recovery.lease_seconds):
        raise InputError(
            file,
            f"is run by {(lease and lease.owner) or 'a Snakemake'}, which was not submitted",
            "a study that `voxelsoup submit` has started",
            "end it in its terminal (Ctrl-C): it cancels its jobs, which save their states",
        )


def open_jobs(results: Path) -> list[SlurmJob]:
    """The jobs of a study that wait, run or are just ending, whoever submitted them.

    Raises:
        InputError: if Slurm does not answer.
    """
    invocation = read_invocation(results / ".state")
    if invocation is None:
        return []
    queue = ask_slurm(invocation.slurm_names, ())
    if queue.note:
        raise InputError("squeue", queue.note, "the jobs of the study", "run it again later")
    return [job for job in queue.jobs.values() if job.state not in ENDED]


def wait_until(ended: Callable[[], bool], what: str) -> None:
    """Wait for what was cancelled.

    Raises:
        InputError: if it takes longer than Slurm gives a job to end.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not ended():
        if time.monotonic() > deadline:
            raise InputError(
                what,
                f"not ended within {PATIENCE_S} s",
                "the end of what was cancelled",
                "look at `squeue --me`, and run the same command again",
            )
        time.sleep(LOOK_S)
