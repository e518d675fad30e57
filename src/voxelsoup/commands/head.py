"""What runs in the head job of a study: its Snakemake, until it ends or has to hand over.

Started by the batch script of ``voxelsoup submit``: ``python -m voxelsoup.commands.head RESULTS``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from voxelsoup.cluster.head_job import cancel, requeue, submit_head, without_job
from voxelsoup.commands.submit import script_of
from voxelsoup.common.errors import InputError
from voxelsoup.runs.invocation import read_invocation
from voxelsoup.runs.lease import is_alive, look_at, server_time
from voxelsoup.runs.signals import Interruption, end_with_parent
from voxelsoup.runs.submission import End, Submission, read_submission, write_submission
from voxelsoup.status.slurm_jobs import ask_slurm

LOOK_S = 0.5
# Slurm ends a job that was put back into the queue within seconds; `KillWait` is 30 by default.
END_S = 120
NOTIFY_S = 60
STOPPED_BY_TERM = 128 + signal.SIGTERM


def main(results: Path) -> int:
    """Run the head job of a results folder; returns its exit code."""
    with Interruption() as asked:
        job = os.environ["SLURM_JOB_ID"]
        say(f"head job {job} begins on {os.uname().nodename}")
        # For all that is started from here on.
        kept = without_job(os.environ)
        os.environ.clear()
        os.environ.update(kept)
        submission = record_of(results, job)
        wait_for_former(results, submission, asked)
        end_jobs_that_nobody_waits_for(results)
        snakemake = start_snakemake(submission)
        while snakemake.poll() is None and asked.signal is None:
            time.sleep(LOOK_S)
        # Slurm asks all processes of a job to end, and this one may not be the first to do so.
        if asked.signal is None or snakemake.returncode == 0:
            return ended(results, submission, int(snakemake.returncode))
        # Not asked to end: it would cancel its jobs, or wait for them. They run on.
        kill(snakemake)
        if asked.signal == "SIGUSR1":
            return hand_over(results, submission)
        say(f"head job {job} ends: {asked.signal}")
        return STOPPED_BY_TERM


def ended(results: Path, submission: Submission, code: int) -> int:
    """The real end of a study: Snakemake has ended by itself, with this exit code."""
    end: End = "done" if code == 0 else "failed"
    notify(submission, results, end)
    write_submission(results, replace(submission, end=end))
    say(f"head job {submission.job} ends: {end}")
    return code


def record_of(results: Path, job: str, seconds: float = 60) -> Submission:
    """The record of this job, which is written just after it was submitted.

    Raises:
        InputError: if it is not there.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        submission = read_submission(results)
        if submission is not None and submission.job == job and submission.end is None:
            return submission
        time.sleep(LOOK_S)
    raise InputError(
        results,
        f"there is no record of head job {job}",
        "the one that `voxelsoup submit` writes",
        "submit the study again",
    )


def wait_for_former(results: Path, submission: Submission, asked: Interruption) -> None:
    """Wait until no Snakemake holds the study: that of a node that Slurm lost may live on."""
    folder, said = results / ".state", False
    while asked.signal is None:
        lease = look_at(folder)
        if not is_alive(lease, server_time(folder), submission.lease_seconds):
            return
        if not said:
            say(f"waits for the study: {lease and lease.owner} may live")
            said = True
        time.sleep(LOOK_S)


def say(text: str) -> None:
    """Write a line into the log, which Snakemake writes to as well."""
    print(f"[{time.strftime('%a %d %b %H:%M:%S')}] {text}", flush=True)


def end_jobs_that_nobody_waits_for(results: Path) -> None:
    """Cancel what former starts of Snakemake have submitted, except for the trainings under way.

    Snakemake does not know these jobs and submits all of them again. A training runs on until its
    successor has a node and asks it for the run; other jobs have no lease that would keep two of
    them apart.
    """
    invocation = read_invocation(results / ".state")
    if invocation is None:
        return
    queue = ask_slurm(invocation.slurm_names, ())
    if queue.note:
        say(queue.note)
    waiting = [job for job in queue.jobs.values() if job.state == "PENDING"]
    running = [job for job in queue.jobs.values() if job.state == "RUNNING" and not job.runs]
    if waiting or running:
        say(f"{len(waiting) + len(running)} jobs of a former start are submitted again")
        try:
            cancel(*(job.id for job in (*waiting, *running)))
        except InputError as error:
            say(str(error))


def start_snakemake(submission: Submission) -> subprocess.Popen[bytes]:
    """Start Snakemake in a process group of its own; it does not outlive this process."""
    parent = os.getpid()
    return subprocess.Popen(
        submission.snakemake,
        cwd=submission.folder,
        process_group=0,
        preexec_fn=lambda: end_with_parent(parent),
    )


def kill(snakemake: subprocess.Popen[bytes]) -> None:
    """End Snakemake and what it runs on this node, without a further word to Slurm."""
    with suppress(ProcessLookupError):
        os.killpg(snakemake.pid, signal.SIGKILL)
    snakemake.wait()


def hand_over(results: Path, submission: Submission) -> int:
    """Let Slurm start this job again, or submit a successor where it may not be requeued."""
    job = submission.job
    say(f"head job {job} hands over: its time limit is near; jobs under way run on")
    if not (refused := requeue(job)):
        # Slurm ends this process.
        time.sleep(END_S)
        return STOPPED_BY_TERM
    command = [*submission.sbatch, f"--dependency=afterany:{job}"]
    successor = submit_head(command, script_of(results))
    write_submission(results, replace(submission, job=successor))
    say(f"Slurm does not requeue it ({refused}): head job {successor} follows")
    return 0


def notify(submission: Submission, results: Path, end: End) -> None:
    """Call the study's command, if it has one; its failure is not the study's."""
    if submission.notify is None:
        return
    variables = {
        "VOXELSOUP_STATE": end,
        "VOXELSOUP_STUDY": submission.study,
        "VOXELSOUP_RESULTS": str(results),
        "VOXELSOUP_LOG": submission.log,
    }
    try:
        result = subprocess.run(
            submission.notify,
            shell=True,
            cwd=submission.folder,
            env=os.environ | variables,
            timeout=NOTIFY_S,
        )
        if result.returncode != 0:
            say(f"`notify.command` failed with exit code {result.returncode}")
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"`notify.command` failed: {error}")


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except InputError as error:
        sys.exit(f"voxelsoup: {error}")
