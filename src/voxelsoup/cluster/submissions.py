"""Jobs handed to Slurm one by one, and what becomes of those that it does not take.

What Slurm refuses for now waits here, and uses up no attempt; what it can never accept ends the
study; anything else is a failed attempt of its job. Each is said once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from voxelsoup.cluster.submission_errors import Refusal, classify

# Seconds until what waits is tried again, doubled as long as nothing is accepted.
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
# One reason is said again after so many seconds.
REMINDER_S = 1800.0

Job = Any


class Gate(Protocol):
    """How jobs get to Slurm; in reality that is Snakemake's Slurm plugin."""

    def submit(self, job: Job) -> str | None:
        """Try once; returns None if Slurm took the job, and otherwise why it did not."""

    def fail(self, job: Job, why: str) -> None:
        """Report a failed attempt of a job."""

    def drop(self, job: Job) -> None:
        """End a job without a word and without a further attempt."""

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call something after a while, unless all has ended by then."""

    def is_ending(self) -> bool:
        """Whether nothing more is to be submitted."""


class Submissions:
    """Submits jobs; called from several threads at once.

    ``note`` is called with what the status of the study should say (empty: nothing), and whether
    that is why the study ends.
    """

    def __init__(
        self, gate: Gate, log: logging.Logger, note: Callable[[str, bool], None] | None = None
    ) -> None:
        self._gate, self._log = gate, log
        self._note = note or (lambda text, ends: None)
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._pause = FIRST_PAUSE_S
        self._scheduled = False
        self._said: dict[str, float] = {}
        self._over = False

    def submit(self, job: Job) -> bool:
        """Hand a job to Slurm; returns whether it took it."""
        if self._over or self._gate.is_ending():
            self._gate.drop(job)
            return False
        why = self._gate.submit(job)
        if why is None:
            self._pause = FIRST_PAUSE_S
            return True
        refusal = classify(why)
        if self._over:
            # Interrupted: what its `sbatch` says of that is of no interest.
            self._gate.drop(job)
        elif refusal.kind == "for good":
            self._end(job, refusal)
        elif refusal.kind == "for now":
            self._wait(job, refusal)
        else:
            self._gate.fail(job, why)
        return False

    def stop(self) -> None:
        """Submit nothing more."""
        self._over = True

    def _wait(self, job: Job, refusal: Refusal) -> None:
        with self._lock:
            self._waiting.append(job)
            number = len(self._waiting)
            now = time.monotonic()
            is_new = now - self._said.get(refusal.said, -REMINDER_S) >= REMINDER_S
            if is_new:
                self._said[refusal.said] = now
            self._note(f"{number} waiting to be submitted: {refusal.said}", False)
        if is_new:
            self._log.warning(
                f"Slurm takes no job for now: {refusal.said}\n"
                f"  waiting for: {refusal.advice}; tried again every "
                f"{LONGEST_PAUSE_S:g} s at most, and no attempt is used up"
            )
        self._schedule()

    def _schedule(self) -> None:
        """Make sure that what waits will be tried again."""
        with self._lock:
            if self._scheduled or not self._waiting:
                return
            self._scheduled = True
        self._gate.later(self._pause, self._retry)

    def _retry(self) -> None:
        """Submit what waits, up to the first one that is still refused: that goes to the end."""
        with self._lock:
            self._scheduled = False
            # Slower as long as nothing is accepted, which sets it back.
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        while (job := self._next()) is not None:
            if not self.submit(job) and not (self._over or self._gate.is_ending()):
                self._schedule()
                return
        self._all_submitted()

    def _next(self) -> Job | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _all_submitted(self) -> None:
        """Nothing waits any more."""
        with self._lock:
            if self._over or self._waiting or self._gate.is_ending():
                return
            self._said.clear()
            self._note("", False)
        self._log.warning("Slurm takes jobs again: all that waited are submitted.")

    def _end(self, job: Job, refusal: Refusal) -> None:
        """End the study: what runs is finished, and nothing more is submitted."""
        with self._lock:
            is_first, self._over = not self._over, True
            dropped = [job, *self._waiting]
            self._waiting.clear()
            if is_first:
                self._note(f"ended: {refusal.said} (fix: {refusal.advice})", True)
        if is_first:
            self._log.error(
                f"Slurm will never take this job: {refusal.said}\n"
                f"  fix: {refusal.advice}\n"
                "  The study ends here, once the jobs that Slurm has already taken are done "
                "(Ctrl-C ends them now: trainings save their states)."
            )
        for one in dropped:
            self._gate.drop(one)
