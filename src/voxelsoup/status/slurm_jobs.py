"""What only Slurm knows of a study's jobs: asked with one call of `squeue` and one of `sacct`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from voxelsoup.cluster.head_job import state_of
from voxelsoup.cluster.slurm import ask
from voxelsoup.common.errors import InputError
from voxelsoup.runs.failures import SlurmJob
from voxelsoup.runs.run_state import Queue
from voxelsoup.runs.submission import read_submission
from voxelsoup.status.rows import HeadJob

# The table is better late than never, and better without Slurm than late.
PATIENCE_S = 10
# The name of a run, behind that of its configuration if that is not the study's first.
RUN = re.compile(r"(\w+/)?(fold\d+|final)/")
# Job, state, partition, reason and comment, which may hold the separator.
LAYOUT = "%A|%T|%P|%r|%k"

# Why a job waits, as squeue calls it, in words. Others are shown as they are.
REASONS = {
    "None": "just submitted",
    "Resources": "waits for free resources",
    "Priority": "others come first",
    "Dependency": "waits for another job",
    "BeginTime": "its start time has not come",
    "JobHeldUser": "held by you",
    "JobHeldAdmin": "held by the administrators",
    "ReqNodeNotAvail": "its nodes are down or reserved",
    "Reservation": "waits for its reservation",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionTimeLimit": "asks for more time than the partition allows",
    "PartitionNodeLimit": "asks for more than the partition has",
    "Licenses": "waits for a licence",
}
LIMITED = ("QOS", "Assoc", "MaxJobs", "MaxCpu", "MaxGRES", "MaxTRES", "MaxNode", "MaxMem")


def ask_slurm(names: list[str], numbers: Iterable[str]) -> Queue:
    """Ask Slurm about the jobs of these names, and of these numbers even if they ended long ago."""
    if not names:
        return Queue()
    try:
        answer = ask(
            *("squeue", "--noheader", "--states=all", "--name", ",".join(names), "-o", LAYOUT),
            patience=PATIENCE_S,
        )
    except InputError as error:
        return Queue(note=f"Slurm was not asked: {error.where}: {error.found}")
    if answer.returncode != 0:
        said = (answer.stderr.strip() or "squeue failed").partition("\n")[0]
        return Queue(note=f"Slurm does not answer: {said}")
    jobs = parse_queue(answer.stdout)
    forgotten = sorted(set(numbers) - set(jobs))
    if forgotten:
        jobs |= _ask_accounting(forgotten)
    latest: dict[str, SlurmJob] = {}
    for job in sorted(jobs.values(), key=lambda job: _order(job.id)):
        latest |= dict.fromkeys(job.runs, job)
    return Queue(jobs, latest)


def head_job(results: Path) -> tuple[HeadJob | None, str]:
    """The head job of a study, if it was submitted, and what could not be found out about it."""
    submission = read_submission(results)
    if submission is None:
        return None, ""
    of_end = HeadJob(submission.job, submission.end or "ended", "", None, "", submission.log)
    if submission.end is not None:
        return of_end, ""
    try:
        found = state_of(submission.job)
    except InputError as error:
        return None, f"Slurm was not asked about head job {submission.job}: {error.found}"
    if found is None or not found.is_open:
        return of_end, ""
    runs = found.state != "PENDING"
    detail = "" if runs else why_pending(found.reason)
    since = found.since if runs else None
    return (
        HeadJob(submission.job, found.state, found.node, since, detail, submission.log),
        "",
    )


def parse_queue(printed: str) -> dict[str, SlurmJob]:
    """Read what ``squeue`` prints in ``LAYOUT``; a job's number -> the job."""
    found = {}
    for line in printed.splitlines():
        if line.count("|") < 4:
            continue
        number, state, partition, reason, comment = line.strip().split("|", 4)
        runs = tuple(word for word in comment.split() if RUN.match(word))
        found[number] = SlurmJob(number, state, partition, reason, why_pending(reason), runs)
    return found


def _ask_accounting(numbers: list[str]) -> dict[str, SlurmJob]:
    """What the accounting knows of jobs that the controller has forgotten, if there is any."""
    layout = "JobIDRaw,State,Partition"
    try:
        answer = ask(
            *("sacct", "-X", "--parsable2", "--noheader", "--format", layout),
            *("--jobs", ",".join(numbers)),
            patience=PATIENCE_S,
        )
    except InputError:
        return {}
    if answer.returncode != 0:
        return {}
    found = {}
    for line in answer.stdout.splitlines():
        number, state, partition = line.split("|", 2)
        # Such as `CANCELLED by 1000`.
        found[number] = SlurmJob(number, state.partition(" ")[0], partition)
    return found


def why_pending(reason: str) -> str:
    """Why a job waits, in words."""
    # Such as `ReqNodeNotAvail, UnavailableNodes:a001`.
    key = reason.partition(",")[0].strip("() ")
    if key.startswith(LIMITED):
        return f"a limit of your account ({key})"
    return REASONS.get(key, key)


def _order(number: str) -> tuple[int, str]:
    return (int(number) if number.isdecimal() else 0, number)
