"""What keeps a run safe: its lease, its saved states, and the signals that end it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from voxelsoup.common.errors import InputError, Stopped
from voxelsoup.common.files import write_text
from voxelsoup.runs.divergence import Diverged, NotFinite, forget_note, read_note, write_note
from voxelsoup.runs.lease import Lease, LeaseLost
from voxelsoup.runs.origins import changed_code
from voxelsoup.runs.record import Recorder, first_difference
from voxelsoup.runs.resume_state import State, newest_state, not_finite, prune_states, save_state
from voxelsoup.runs.signals import Interruption
from voxelsoup.study.sections.resources import Recovery

log = logging.getLogger(__name__)

HISTORY = "history.csv"

Capture = Callable[[], State]


class HandedOver(Stopped):
    """Another copy of this run asked for it and resumes from the state saved here."""


class RunGuard:
    """Guards one run, as a context: no other process trains it, and its states are saved.

    States are written beside the training by a thread, one at a time; the training waits only
    for the copy of its tensors. A signal, or another copy of the run that asks for it, ends the
    run at the next step with its state saved. A state that holds NaN or infinity is never written:
    the run goes back to the one before it, and is known to diverge if it comes to the same.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        steps: int,
        settings: Recovery,
        on_code_change: Literal["keep", "redo"] | None = None,
    ) -> None:
        """Guard the run whose lease, states and record lie in ``folder``.

        Its result depends on ``identity``: a state of another identity is of no use. ``steps`` are
        the optimizer steps of the whole run. ``on_code_change`` says what becomes of a state
        that another version of the code has trained.
        """
        self.on_code_change = on_code_change
        self.folder, self.identity, self.steps, self.settings = folder, identity, steps, settings
        self.interruption = Interruption()
        self.lease = Lease(folder, settings.lease_seconds)
        self.recorder = Recorder(folder, self.lease.owner, steps)
        # Copying and writing, also where the writing ran beside the training.
        self.seconds_saving = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._writing: Future[None] | None = None
        self._saved_at = time.monotonic()
        self._stepped = False
        # The step at which the run was not finite, as long as it has not passed it since.
        self._to_pass: int | None = None
        self._exits = ExitStack()

    def __enter__(self) -> RunGuard:
        with ExitStack() as exits:
            exits.enter_context(self.interruption)
            self.lease.acquire(self.interruption.check)
            exits.callback(self.lease.release)
            exits.callback(self._writer.shutdown)
            self._exits = exits.pop_all()
        self.recorder.start(self.lease.taken_from)
        return self

    def newest(self) -> State | None:
        """The state to resume from, or None to start from the beginning."""
        state = self._usable_state()
        note = read_note(self.folder, self.identity)
        self._to_pass = note.step if note else None
        # Epochs after the state are trained again: their rows must not stand here twice.
        self._show(state["rows"] if state else [])
        self.recorder.resumes(state["step"] if state else 0, state["rows"] if state else [])
        return state

    def _usable_state(self) -> State | None:
        state = newest_state(self.folder)
        if state is None:
            return None
        changed = first_difference(_without_code(state), _without_code({"identity": self.identity}))
        changed = changed or self._change_of_code(state)
        if changed is None and state["step"] > self.steps:
            changed = f"it was trained for {state['step']} steps and is to have {self.steps}"
        if changed:
            log.info("starting over: %s", changed)
            self.recorder.attempt.started_over = changed
            prune_states(self.folder, 0)
            return None
        log.info("resuming after step %d of %d", state["step"], self.steps)
        return state

    def _change_of_code(self, state: State) -> str | None:
        """Why a state of other code is of no use, if the user has said so.

        Raises:
            InputError: if nobody has said what is to become of it.
        """
        before, now = state["identity"].get("code"), self.identity.get("code")
        if before == now or self.on_code_change == "keep":
            return None
        changed = changed_code(before, now or {})
        if self.on_code_change is None:
            raise InputError(
                self.folder,
                f"the run's state was trained by another version of the code ({changed})",
                "a state of this version, or a decision",
                "--config on_code_change=keep continues it, --config on_code_change=redo starts "
                "over",
            )
        return changed

    def after_step(self, step: int, capture: Capture) -> None:
        """To be called after every step: saves when it is time, and ends the run if it has to.

        ``capture`` copies the run's state, and is called only when it is saved.

        Raises:
            Interrupted: a signal came; the state is saved.
            HandedOver: another copy of the run asked for it; the state is saved.
            LeaseLost: another copy has taken over.
            NotFinite: the run's numbers are not finite; no such state is written.
            InputError: a state could not be written.
        """
        if not self._stepped:
            self._stepped = True
            self.recorder.first_step_done()
        if self._writing is not None and self._writing.done():
            self._wait()
        if self.lease.lost:
            self.lease.confirm()
        if self._to_pass is not None and step >= self._to_pass:
            self._pass(step, capture)
        if self.interruption.signal or self.lease.wanted:
            self.save(step, capture)
            self.interruption.check()
            raise HandedOver(f"handed over after step {step} to another process of this run")
        due = time.monotonic() - self._saved_at > 60 * self.settings.save_minutes
        if due and self._writing is None:
            began = time.monotonic()
            self._writing = self._writer.submit(self._write, step, capture())
            self._saved_at = time.monotonic()
            self.seconds_saving += self._saved_at - began

    def _pass(self, step: int, capture: Capture) -> None:
        """Save where the run was not finite before: it is now, or this raises."""
        self.save(step, capture)
        forget_note(self.folder)
        self._to_pass = None
        self.recorder.attempt.passed = step
        log.info(
            "all numbers are finite at step %d the second time, so that what happened there was "
            "no property of the run: look at the GPU and its memory if this is repeated",
            step,
        )

    def go_back(self, error: Diverged) -> None:
        """Note that the run is not finite, for it to train again from its newest state.

        Raises:
            Diverged: it has gone back before and has not passed that step since.
            LeaseLost: another copy has taken over; nothing is written.
            InputError: the note could not be written.
        """
        with suppress(NotFinite):
            self._wait()
        self.lease.confirm()
        note = read_note(self.folder, self.identity)
        again = note is not None and error.step <= note.step
        write_note(self.folder, self.identity, error, diverged=again)
        if again:
            raise error
        self.recorder.attempt.went_back = f"{error.what} was not finite at {error.place}"
        self.recorder.shows("running")
        log.warning(
            "%s is NaN or infinite at %s: going back to the last good state, once",
            error.what,
            error.place,
        )

    def after_epoch(self, rows: list[dict[str, float]]) -> None:
        """Show the history while the run is training.

        Raises:
            LeaseLost: another copy has taken over.
            InputError: the history could not be written.
        """
        self.lease.confirm()
        self._show(rows)
        self.recorder.epoch_done(rows)

    def save(self, step: int, capture: Capture) -> None:
        """Save a state and wait until it is on the disk.

        Raises:
            LeaseLost: another copy has taken over; nothing is written.
            NotFinite: it is not finite; nothing is written.
            InputError: it could not be written.
        """
        # The record of a run that another process owns by now stays as it is.
        self.lease.confirm()
        self.recorder.shows("saving")
        self._wait()
        began = time.monotonic()
        state = capture()
        self.seconds_saving += time.monotonic() - began
        self._write(step, state)
        self.recorder.shows("running")

    def save_alone(self, step: int, capture: Capture) -> None:
        """Save a state before the run ends for another reason, which nothing here replaces."""
        with suppress(InputError, NotFinite, Stopped):
            self.save(step, capture)

    def confirm(self) -> None:
        """Make sure that results may be written.

        Raises:
            LeaseLost: another copy has taken over.
        """
        self.lease.confirm()

    def finish(self) -> None:
        """The run's results are written: only its last state is still of use."""
        prune_states(self.folder, 1)
        forget_note(self.folder)
        self.recorder.ended()

    def ends_now(self, reason: Stopped) -> None:
        """The process ends without leaving this context, because the thread in it hangs."""
        if not self.lease.lost:
            self.recorder.ended(reason)
        self.lease.release()

    def _write(self, step: int, state: State) -> None:
        began = time.monotonic()
        wrong = not_finite(state)
        if wrong is not None:
            raise NotFinite(step, f"the state of the run (`{wrong}`)")
        self.lease.confirm()
        save_state(self.folder, step, {**state, "step": step, "identity": self.identity})
        self.recorder.state_saved(step, self.identity)
        self.seconds_saving += time.monotonic() - began

    def _show(self, rows: list[dict[str, float]]) -> None:
        write_text(self.folder / HISTORY, pd.DataFrame(rows).to_csv(index=False))

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # After a takeover the record is the successor's.
        if error is not None and not isinstance(error, LeaseLost):
            self.recorder.ended(error)
        self._exits.close()


def _without_code(state: State) -> dict[str, Any]:
    return {key: value for key, value in state["identity"].items() if key != "code"}
