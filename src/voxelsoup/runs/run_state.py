"""From what is known of a run to what it is doing, in one word and a remark."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from voxelsoup.runs.invocation import Invocation
from voxelsoup.runs.lease import LeaseView
from voxelsoup.runs.record import Attempt, RunRecord
from voxelsoup.status.failures import KILLED, Failure, end_of_attempt, end_of_job, end_of_log
from voxelsoup.status.rows import RunState
from voxelsoup.status.slurm_jobs import Job, Queue, why_pending

BEFORE_TRAINING = Failure(
    "failed before its training began", "its log, or that of its Slurm job, says why"
)


@dataclass(frozen=True)
class RunFacts:
    """What is known of one run.

    Attributes:
        name: the run, such as ``fold0/stem``.
        epochs: that it is to have.
        done: whether its results are there, with all epochs.
        record: what it says of itself.
        lease: who holds or held it.
        log_end: the end of its log, where it left nothing else.
        dropped_after: the rung of a halving after which its fold goes on without it.
    """

    name: str
    epochs: int
    done: bool
    record: RunRecord | None = None
    lease: LeaseView | None = None
    log_end: str = ""
    dropped_after: int | None = None

    @property
    def last(self) -> Attempt | None:
        """The last attempt that wrote something down."""
        return self.record.attempts[-1] if self.record and self.record.attempts else None

    @property
    def job(self) -> str | None:
        """Number of the Slurm job of whoever holds or held the run last."""
        if self.lease is not None and self.lease.owner is not None:
            return self.lease.owner.job
        return self.last.owner.job if self.last else None


@dataclass(frozen=True)
class Circumstances:
    """What is the same for all runs of a study.

    Attributes:
        now: in seconds after 1970, by the clock that dates the leases.
        lease_seconds: an owner without a sign of life for so long is taken for dead.
        snakemake: its last start.
        snakemake_lives: whether it still runs.
        queue: what Slurm knows.
    """

    now: float
    lease_seconds: float
    snakemake: Invocation | None
    snakemake_lives: bool
    queue: Queue

    def alive(self, lease: LeaseView | None) -> bool:
        """Whether somebody holds a lease and lives."""
        if lease is None or lease.released:
            return False
        if lease.owner is not None and lease.owner.is_dead():
            return False
        return self.now - lease.beat <= self.lease_seconds

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
class RunVerdict:
    """What a run is doing.

    Attributes:
        state: in one word.
        detail: what belongs to it, in a few words.
        failure: why its last attempt ended before its time, if it did.
    """

    state: RunState
    detail: str = ""
    failure: Failure | None = None


def judge(facts: RunFacts, around: Circumstances) -> RunVerdict:
    """What a run is doing."""
    job = around.queue.jobs.get(facts.job or "")
    ended = job is not None and not (job.goes_on or job.waits)
    if around.alive(facts.lease) and not ended:
        return _at_work(facts, around)
    if facts.dropped_after is not None:
        return RunVerdict("dropped", f"after rung {facts.dropped_after}")
    if facts.done:
        return RunVerdict("done")
    newest = around.queue.latest.get(facts.name)
    # A job that Slurm requeues keeps its number.
    if newest is not None and (newest.id != facts.job or newest.waits):
        return _of_newer_job(newest, facts, around)
    return _ended(facts, job, around)


def _at_work(facts: RunFacts, around: Circumstances) -> RunVerdict:
    assert facts.lease is not None
    record, last, owner = facts.record, facts.last, facts.lease.owner
    tried = around.tried(facts)
    if record is None or last is None or (owner is not None and last.owner.id != owner.id):
        # It holds the lease and has not written its record yet.
        return _beginning(tried + 1, around)
    if record.state == "finished" and facts.done:
        return RunVerdict("done")
    if record.state == "saving":
        return RunVerdict("saving")
    if tried > 1:
        return RunVerdict("retrying", f"{tried} of {max(tried, around.allowed)}")
    if last.from_step:
        epoch = last.from_step * facts.epochs / record.steps
        return RunVerdict("resumed", f"resumed after epoch {epoch:.4g}")
    return RunVerdict("running")


def _beginning(attempt: int, around: Circumstances) -> RunVerdict:
    if attempt > 1:
        return RunVerdict("retrying", f"{attempt} of {max(attempt, around.allowed)}, starting")
    return RunVerdict("running", "starting")


def _of_newer_job(job: Job, facts: RunFacts, around: Circumstances) -> RunVerdict:
    """A job was submitted for the run that has not trained it yet."""
    tried = around.tried(facts)
    if job.waits:
        again = f"attempt {tried + 1} of {around.allowed}, " if tried else ""
        return RunVerdict("queued", again + why_pending(job.reason))
    if job.goes_on:
        return _beginning(tried + 1, around)
    failure = end_of_job(job) or end_of_log(facts.log_end) or BEFORE_TRAINING
    return _failed(failure, tried + 1, around)


def _ended(facts: RunFacts, job: Job | None, around: Circumstances) -> RunVerdict:
    """Nobody trains the run, and no newer job will."""
    tried, last, lease = around.tried(facts), facts.last, facts.lease
    if lease is not None and not lease.released:
        if job is not None:
            return _failed(end_of_job(job) or KILLED, tried, around)
        return RunVerdict("lost", _last_sign(lease), KILLED)
    if facts.record is not None and facts.record.state == "stopped" and last is not None:
        failure = end_of_attempt(last, job)
        if failure is not None:
            return _failed(failure, tried, around)
    if last is None:
        failure = end_of_log(facts.log_end)
        if failure is not None:
            return _failed(failure, 1, around)
        if facts.log_end and around.snakemake_lives:
            return RunVerdict("running", "starting")
    if facts.record is not None and facts.record.state == "finished":
        # At a rung, or made longer since.
        return RunVerdict("waiting", f"resumes after epoch {facts.record.epoch}")
    return RunVerdict("waiting")


def _failed(failure: Failure, tried: int, around: Circumstances) -> RunVerdict:
    """Its last attempt failed; Snakemake may give it another one."""
    if around.snakemake_lives and tried < around.allowed:
        if tried == 0:
            return RunVerdict("waiting", f"earlier: {failure.words}", failure)
        again = f"attempt {tried + 1} of {around.allowed} follows"
        return RunVerdict("waiting", f"{failure.words}; {again}", failure)
    return RunVerdict("failed", failure.words, failure)


def _last_sign(lease: LeaseView) -> str:
    owner = lease.owner
    if owner is not None and owner.is_dead():
        return f"died: {owner}"
    seen = datetime.fromtimestamp(lease.beat, UTC).astimezone()
    return f"no sign of life since {seen:%d %b %H:%M:%S} from {owner or 'its process'}"
