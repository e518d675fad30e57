"""What only Slurm knows of a study's jobs: asked with one call of `squeue` and one of `sacct`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from voxelsoup.cluster.slurm import ask
from voxelsoup.common.errors import InputError

# The table is better late than never, and better without Slurm than late.
PATIENCE_S = 10
# Job, state, partition, nodes, reason and comment, which may hold the separator.
LAYOUT = "%A|%T|%P|%N|%r|%k"
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
GOING_ON = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED", "STOPPED")

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


@dataclass(frozen=True)
class Job:
    """One Slurm job.

    Attributes:
        id: its number.
        state: as Slurm calls it, such as ``PENDING`` or ``TIMEOUT``.
        partition: where it is to run, runs or ran.
        host: its node, if it has one.
        reason: why it is in that state, as Slurm calls it.
        runs: the runs that it trains, such as ``fold0/stem``.
    """

    id: str
    state: str
    partition: str = ""
    host: str = ""
    reason: str = ""
    runs: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in PENDING

    @property
    def goes_on(self) -> bool:
        """Whether it has begun and has not ended."""
        return self.state in GOING_ON


@dataclass(frozen=True)
class Queue:
    """A study's jobs at one moment.

    Attributes:
        jobs: by their numbers.
        latest: run -> the newest job that trains it.
        asked: whether Slurm answered.
        note: why it did not, in a line.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    latest: dict[str, Job] = field(default_factory=dict)
    asked: bool = False
    note: str = ""


def ask_slurm(names: list[str], wanted: Iterable[str]) -> Queue:
    """Ask Slurm about a study's jobs.

    Args:
        names: the names that Snakemake gives its jobs.
        wanted: numbers of jobs that somebody asks for, also if they ended long ago.
    """
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
    forgotten = sorted(set(wanted) - set(jobs))
    if forgotten:
        jobs |= _ask_accounting(forgotten)
    latest: dict[str, Job] = {}
    for job in sorted(jobs.values(), key=lambda job: _order(job.id)):
        latest |= dict.fromkeys(job.runs, job)
    return Queue(jobs, latest, asked=True)


def parse_queue(printed: str) -> dict[str, Job]:
    """Read what ``squeue`` prints in ``LAYOUT``; a job's number -> the job."""
    found = {}
    for line in printed.splitlines():
        if line.count("|") < 5:
            continue
        number, state, partition, host, reason, comment = line.strip().split("|", 5)
        runs = tuple(word for word in comment.split() if word.startswith("fold"))
        found[number] = Job(number, state, partition, host, reason, runs)
    return found


def _ask_accounting(numbers: list[str]) -> dict[str, Job]:
    """What the accounting knows of jobs that the controller has forgotten, if there is any."""
    layout = "JobIDRaw,State,Partition,NodeList"
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
        number, state, partition, host = line.split("|", 3)
        # Such as `CANCELLED by 1000`.
        found[number] = Job(number, state.partition(" ")[0], partition, host)
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
