"""Runs whose numbers become NaN or infinite: they go back once, and diverge the second time.

What happened is noted beside the run's states, with the run's identity. The note outlives the
attempt, so that no later one repeats what is known to end the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.text import counted, listed
from voxelsoup.runs.record import read_result
from voxelsoup.study.sections.sweep import OnDiverged

NOTE = "not_finite.json"
FIX = "lower `optimizer.lr`, set `training.gradient_clip`, or add `optimizer.warmup_steps`"
# Trials of a fold that must be left for the others to be skipped: fewer are no choice.
FEWEST_LEFT = 2


class NotFinite(Exception):
    """Numbers of a run are NaN or infinite.

    ``step`` is the optimizer step whose loss it is, or after which the state was found so.
    """

    def __init__(self, step: int, what: str) -> None:
        """``what`` is not finite, as ``the training loss``."""
        self.step, self.what = step, what
        super().__init__(f"{what} is NaN or infinite at step {step}")


class Diverged(InputError):
    """A run whose numbers are not finite, and were not the second time either."""

    def __init__(self, epoch: int, step: int, what: str, run: str = "") -> None:
        """``what`` is not finite at a step of ``run``, counted from 1, of an epoch likewise."""
        self.epoch, self.step, self.what = epoch, step, what
        self.place = f"epoch {epoch}, step {step}"
        super().__init__(
            f"{run}, {self.place}" if run else self.place,
            f"{what} is NaN or infinite: the run has diverged",
            "finite numbers",
            FIX,
        )

    def of_run(self, run: str) -> Diverged:
        """The same with the run's name in its message."""
        return Diverged(self.epoch, self.step, self.what, run)

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, int, str]]:  # type: ignore[override]
        """As that of ``InputError``."""
        return Diverged, (self.epoch, self.step, self.what)


@dataclass(frozen=True)
class Note:
    """What is known of a run that was not finite.

    Attributes:
        identity: everything that the run's result depends on, as JSON has it.
        diverged: whether it was so twice.
    """

    identity: dict[str, Any]
    epoch: int
    step: int
    what: str
    diverged: bool

    @property
    def error(self) -> Diverged:
        """Why the run ends, if it does."""
        return Diverged(self.epoch, self.step, self.what)


def write_note(folder: Path, identity: Mapping[str, Any], error: Diverged, diverged: bool) -> None:
    """Note beside a run's states that it was not finite.

    Raises:
        InputError: if it cannot be written.
    """
    note = Note(dict(identity), error.epoch, error.step, error.what, diverged)
    write_json(folder / NOTE, asdict(note))


def read_note(folder: Path, identity: Mapping[str, Any]) -> Note | None:
    """What was noted of a run of this identity; that of another one says nothing of it."""
    note = newest_note(folder)
    return note if note and note.identity == json.loads(json.dumps(identity)) else None


def newest_note(folder: Path) -> Note | None:
    """What was noted last of the runs that had this folder of states."""
    try:
        return Note(**read_json(folder / NOTE))
    except (OSError, ValueError, TypeError):
        return None


def forget_note(folder: Path) -> None:
    """The run has passed the step, or another one trains here."""
    (folder / NOTE).unlink(missing_ok=True)


def check_not_diverged(folder: Path, identity: Mapping[str, Any], last_step: int) -> None:
    """End a run at once that is known to diverge before ``last_step``.

    Raises:
        Diverged: as its last attempt did.
    """
    note = read_note(folder, identity)
    if note is not None and note.diverged and note.step <= last_step:
        raise note.error


@dataclass(frozen=True)
class DivergedTrial:
    """A trial of a fold that has no model, for its training diverged."""

    fold: int
    trial: str
    epoch: int
    step: int

    @property
    def place(self) -> str:
        """When it diverged."""
        return f"epoch {self.epoch}, step {self.step}"


def divergence_of(fold: int, results: Path) -> DivergedTrial | None:
    """Where a trial diverged, as its results (``run.json``) say; None if they do not."""
    diverged = read_result(results).get("diverged")
    return DivergedTrial(fold, results.name, **diverged) if diverged else None


def check_divergence(
    policy: OnDiverged,
    diverged: Sequence[DivergedTrial],
    trials: Collection[str],
    labels: Mapping[str, str],
) -> None:
    """Make sure that a fold's trials that diverged may be left out.

    Args:
        policy: `sweep.on_diverged`.
        diverged: those that did.
        trials: ids of all that were or are to be trained as far.
        labels: id -> name for readers.

    Raises:
        InputError: naming those that diverged.
    """
    if not diverged or (policy == "skip" and len(trials) - len(diverged) >= FEWEST_LEFT):
        return
    named = listed(f"{labels[one.trial]} ({one.trial}) at {one.place}" for one in diverged)
    raise InputError(
        f"fold {diverged[0].fold}",
        f"{len(diverged)} of {counted(len(trials), 'trial', '1')} diverged: {named}",
        f"at least {FEWEST_LEFT} trials that do not, to choose and average from"
        if policy == "skip"
        else "no trial that does (`sweep.on_diverged: stop`)",
        f"{FIX}; or take these settings out of `sweep`",
    )


def left_out(diverged: Sequence[DivergedTrial], labels: Mapping[str, str]) -> str:
    """A sentence about the trials that diverged, for readers; empty if there are none.

    ``labels``: id -> name for readers.
    """
    if not diverged:
        return ""
    named = listed(f"{labels[one.trial]} in fold {one.fold} at {one.place}" for one in diverged)
    runs = "One run" if len(diverged) == 1 else f"{len(diverged)} runs"
    verb = "is" if len(diverged) == 1 else "are"
    return f"{runs} diverged (NaN or infinite loss or weights) and {verb} left out: {named}."
