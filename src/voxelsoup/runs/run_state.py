"""What a run is doing: the one place that decides it, from what is known of the run.

The plan, ``voxelsoup trials``, ``status`` and ``prune`` ask here. Whether a run is being trained is
seen by its lease (``lease.is_alive``): a process that gave no sign of life for so long as a lease
lasts is lost, also if it is merely stopped: it cannot be distinguished from a hung one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from voxelsoup.common.errors import ErrorDescription
from voxelsoup.runs.divergence import DivergedTrial, newest_note
from voxelsoup.runs.failures import (
    BEFORE_TRAINING,
    KILLED,
    PREEMPTED,
    Failure,
    SlurmJob,
    end_by_error,
    end_of_attempt,
    end_of_job,
)
from voxelsoup.runs.invocation import Invocation
from voxelsoup.runs.lease import LeaseView, is_alive, look_at, server_time
from voxelsoup.runs.record import (
    Attempt,
    RunRecord,
    SavedState,
    first_difference,
    read_record,
    read_saved,
)

RunState = Literal[
    "waiting", "queued", "running", "saving", "retrying", "resumed", "done", "diverged", "dropped",
    "failed", "lost",
]  # fmt: skip
# Of these a process is at work.
AT_WORK: tuple[RunState, ...] = ("running", "saving", "retrying", "resumed")
# Of these no more is to come, unless the study is started again.
OVER: tuple[RunState, ...] = ("done", "diverged", "dropped", "failed", "lost")


@dataclass(frozen=True)
class RunFacts:
    """What is known of one run.

    Attributes:
        name: such as ``fold0/stem``.
        epochs: that it is to have.
        done: whether its results are there, with all epochs.
        job_began: whether its job wrote a log; asked only where there is no record.
        error: what ended that job.
        dropped_after: the rung of a halving after which its fold continues without it.
        diverged: where it diverged, if the study goes on without it.
        for_good: whether its last attempt ended with an error that the next one would end with too.
    """

    name: str
    epochs: int
    done: bool
    record: RunRecord | None = None
    lease: LeaseView | None = None
    job_began: bool = False
    error: ErrorDescription | None = None
    dropped_after: int | None = None
    diverged: DivergedTrial | None = None
    for_good: bool = False

    @property
    def last(self) -> Attempt | None:
        """The last attempt that wrote something down."""
        return self.record.attempts[-1] if self.record and self.record.attempts else None

    @property
    def job(self) -> str | None:
        """Number of the Slurm job that holds or held the run last."""
        if self.lease is not None and self.lease.owner is not None:
            return self.lease.owner.job
        return self.last.owner.job if self.last else None


@dataclass(frozen=True)
class Queue:
    """A study's Slurm jobs at one moment.

    Attributes:
        latest: run -> the newest job that trains it.
        note: why Slurm did not answer, in a line.
    """

    jobs: dict[str, SlurmJob] = field(default_factory=dict)
    latest: dict[str, SlurmJob] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Circumstances:
    """What is the same for all runs of a study.

    Attributes:
        now: in seconds after 1970, by the clock that dates the leases (``lease.server_time``).
        lease_seconds: an owner without a sign of life for so long is taken for dead.
        snakemake: its last start.
        snakemake_lives: whether that still runs.
    """

    now: float
    lease_seconds: float
    snakemake: Invocation | None = None
    snakemake_lives: bool = False
    queue: Queue = field(default_factory=Queue)

    @property
    def allowed(self) -> int:
        """Attempts that the last Snakemake gives a run."""
        return 1 + (self.snakemake.retries if self.snakemake else 0)

    def tried(self, facts: RunFacts) -> int:
        """Attempts of a run under the last Snakemake."""
        if self.snakemake is None or facts.record is None:
            return 0
        began = self.snakemake.started
        return sum(attempt.started >= began for attempt in facts.record.attempts)


@dataclass(frozen=True)
class RunCondition:
    """What a run is doing.

    Attributes:
        detail: what belongs to the state, in a few words.
        failure: why its last attempt ended before its time, if it did.
    """

    state: RunState
    detail: str = ""
    failure: Failure | None = None

    @property
    def at_work(self) -> bool:
        """Whether a process trains the run."""
        return self.state in AT_WORK


def run_condition(facts: RunFacts, around: Circumstances) -> RunCondition:
    """What a run is doing."""
    job = around.queue.jobs.get(facts.job or "")
    ended = job is not None and not (job.is_running or job.waits)
    if is_alive(facts.lease, around.now, around.lease_seconds) and not ended:
        return _at_work(facts, around)
    if facts.diverged is not None:
        return RunCondition("diverged", f"at {facts.diverged.place}")
    if facts.dropped_after is not None:
        return RunCondition("dropped", f"after rung {facts.dropped_after}")
    if facts.done:
        return RunCondition("done")
    newest = around.queue.latest.get(facts.name)
    # A job that Slurm requeues keeps its number.
    if newest is not None and (newest.id != facts.job or newest.waits):
        return _of_newer_job(newest, facts, around)
    return _ended(facts, job, around)


def condition_by_states(folder: str | Path, now: float, lease_seconds: float) -> RunCondition:
    """What a run is doing as far as its states say, without its results and Slurm."""
    facts = RunFacts(str(folder), 0, False, read_record(folder), look_at(folder))
    return run_condition(facts, Circumstances(now, lease_seconds))


def _at_work(facts: RunFacts, around: Circumstances) -> RunCondition:
    assert facts.lease is not None
    record, last, owner = facts.record, facts.last, facts.lease.owner
    tried = around.tried(facts)
    if record is None or last is None or (owner is not None and last.owner.id != owner.id):
        # It holds the lease and has not written its record yet.
        return _beginning(tried + 1, around)
    if record.state == "finished" and facts.done:
        return RunCondition("done")
    if record.state == "saving":
        return RunCondition("saving")
    if tried > 1:
        return RunCondition("retrying", f"{tried} of {max(tried, around.allowed)}")
    if last.from_step:
        epoch = last.from_step * facts.epochs / record.steps
        return RunCondition("resumed", f"resumed after epoch {epoch:.4g}")
    return RunCondition("running")


def _beginning(attempt: int, around: Circumstances) -> RunCondition:
    if attempt > 1:
        return RunCondition("retrying", f"{attempt} of {max(attempt, around.allowed)}, starting")
    return RunCondition("running", "starting")


def _of_newer_job(job: SlurmJob, facts: RunFacts, around: Circumstances) -> RunCondition:
    """A job was submitted for the run that has not trained it yet."""
    tried = around.tried(facts)
    if job.waits:
        # What was preempted is submitted again beyond what is allowed.
        again = f"attempt {tried + 1} of {max(tried + 1, around.allowed)}, " if tried else ""
        return RunCondition("queued", again + job.waits_for)
    if job.is_running:
        return _beginning(tried + 1, around)
    failure = end_of_job(job) or end_by_error(facts.error) or BEFORE_TRAINING
    return _failed(failure, tried + 1, facts, around)


def _ended(facts: RunFacts, job: SlurmJob | None, around: Circumstances) -> RunCondition:
    """No process trains the run, and no newer job will."""
    tried, record, lease = around.tried(facts), facts.record, facts.lease
    if lease is not None and not lease.released:
        if job is not None:
            return _failed(end_of_job(job) or KILLED, tried, facts, around)
        return RunCondition("lost", _last_sign(lease), KILLED)
    if record is not None and facts.last is not None:
        failure = end_of_attempt(facts.last, job) if record.state == "stopped" else None
    else:
        failure, tried = end_by_error(facts.error), 1
    if failure is not None:
        return _failed(failure, tried, facts, around)
    if record is None and facts.job_began and around.snakemake_lives:
        return RunCondition("running", "starting")
    if record is not None and record.state == "finished":
        # At a rung, or prolonged since.
        return RunCondition("waiting", f"resumes after epoch {record.epoch}")
    return RunCondition("waiting")


def _failed(failure: Failure, tried: int, facts: RunFacts, around: Circumstances) -> RunCondition:
    """Its last attempt failed; Snakemake may give it another one."""
    if around.snakemake_lives and failure.words == PREEMPTED.words:
        return RunCondition("waiting", f"{failure.words}; it is submitted again", failure)
    if around.snakemake_lives and tried < around.allowed and not (tried and facts.for_good):
        if tried == 0:
            return RunCondition("waiting", f"earlier: {failure.words}", failure)
        again = f"attempt {tried + 1} of {around.allowed} follows"
        return RunCondition("waiting", f"{failure.words}; {again}", failure)
    return RunCondition("failed", failure.words, failure)


def _last_sign(lease: LeaseView) -> str:
    owner = lease.owner
    if owner is not None and owner.is_dead():
        return f"died: {owner}"
    seen = datetime.fromtimestamp(lease.beat, UTC).astimezone()
    return f"no sign of life since {seen:%d %b %H:%M:%S} from {owner or 'its process'}"


def plan(folder: str, epochs: int, settings: dict[str, Any], lease_seconds: float) -> str:
    """What training a run now will do, in words for the plan of a workflow.

    ``folder`` holds the run's states; its result depends on ``settings`` and ``epochs``. An owner
    without a sign of life for ``lease_seconds`` is taken for dead.
    """
    record = read_record(folder)
    saved = record.saved if record else read_saved(folder)
    todo = _to_train(saved, epochs, settings)
    if record is not None and record.attempts and record.attempts[-1].diverged:
        note = newest_note(Path(folder))
        if note and note.diverged and not first_difference(note.identity["settings"], settings):
            return f"is known to diverge at {note.error.place}"
    # Of thousands of runs few are at work.
    if record is None or record.state not in ("running", "saving"):
        return todo
    if not condition_by_states(folder, server_time(folder), lease_seconds).at_work:
        return todo
    lease = look_at(folder)
    return f"takes over from {(lease and lease.owner) or 'another process'} and {todo}"


def _to_train(saved: SavedState | None, epochs: int, settings: dict[str, Any]) -> str:
    if saved is None:
        return f"trains {epochs} epochs"
    changed = first_difference(saved.identity.get("settings", {}), settings)
    done = saved.step / settings["training"]["steps_per_epoch"]
    if changed:
        return f"starts over with {epochs} epochs: {changed}"
    if done > epochs:
        return f"starts over with {epochs} epochs: it was trained for {done:g}"
    if done == epochs:
        return f"is trained already ({epochs} epochs)"
    return f"continues after epoch {done:g} of {epochs}"
