"""Which runs are shown, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from voxelsoup.common.errors import InputError
from voxelsoup.runs.run_state import AT_WORK, RunState
from voxelsoup.status.rows import RunRow
from voxelsoup.study.study import FINAL

STATES: tuple[RunState, ...] = get_args(RunState)
# What needs attention, then what moves, then what waits, then what is over.
URGENCY: tuple[RunState, ...] = (
    *("failed", "lost", "retrying", "saving", "resumed", "running"),
    *("queued", "waiting", "diverged", "dropped", "done"),
)
SORTABLE: dict[str, Callable[[RunRow], Any]] = {
    "fold": lambda row: row.fold,
    "run": lambda row: row.run,
    "state": lambda row: URGENCY.index(row.state),
    "epoch": lambda row: row.epoch,
    "loss": lambda row: row.training_loss,
    "score": lambda row: row.selection_score,
    "selection_loss": lambda row: row.selection_loss,
    "speed": lambda row: row.epochs_per_hour,
    "end": lambda row: row.estimated_end,
    "gpu": lambda row: row.gpu,
    "host": lambda row: row.host,
    "job": lambda row: int(row.job) if row.job and row.job.isdecimal() else None,
    "partition": lambda row: row.partition,
    "attempt": lambda row: row.attempt,
    "started": lambda row: row.started,
    "hours": lambda row: row.hours,
}


@dataclass(frozen=True)
class Choice:
    """The rows that the user asked for.

    Attributes:
        sort: name of a column or a swept key, with ``-`` before it for the largest first; empty
            for the order of the study.
        states: ``running`` stands for all that are at work.
        where: swept key -> value that a trial must have.
    """

    sort: str = ""
    states: Sequence[str] = ()
    folds: Sequence[int] = ()
    where: Sequence[tuple[str, Any]] = ()

    def of(self, rows: Sequence[RunRow]) -> list[RunRow]:
        """The rows that were asked for, in the order that was."""
        states = set(self.states) | (set(AT_WORK) if "running" in self.states else set())
        chosen = [
            row
            for row in rows
            if (not states or row.state in states)
            and (not self.folds or row.fold in self.folds)
            and all(_equal(row.parameters.get(key), value) for key, value in self.where)
        ]
        return _sorted(chosen, self.sort) if self.sort else chosen


def urgent_first(rows: Sequence[RunRow]) -> list[RunRow]:
    """For where not all rows can be shown: what needs attention comes first."""
    return sorted(rows, key=lambda row: URGENCY.index(row.state))


def checked(
    sort: str, states: str, folds: str, where: Sequence[str], rows: Sequence[RunRow]
) -> Choice:
    """Make a choice of what was typed: options are empty if not given; ``rows`` are all runs.

    Raises:
        InputError: naming what is possible.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row.parameters))
    chosen_states = [state.strip() for state in states.split(",") if state.strip()]
    for state in chosen_states:
        if state not in STATES:
            raise _impossible("--state", state, STATES)
    present = {"final" if row.fold == FINAL else str(row.fold): row.fold for row in rows}
    chosen_folds = [fold.strip() for fold in folds.split(",") if fold.strip()]
    for fold in chosen_folds:
        if fold not in present:
            raise _impossible("--fold", fold, present)
    if sort:
        name = sort.removeprefix("-")
        column = name if name in SORTABLE else _key(name, keys, "--sort", [*SORTABLE, *keys])
        sort = sort.replace(name, column)
    conditions = [_condition(text, keys, rows) for text in where]
    return Choice(sort, chosen_states, [present[fold] for fold in chosen_folds], conditions)


def _condition(text: str, keys: list[str], rows: Sequence[RunRow]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError("--where", f"`{text}`", "KEY=VALUE", "such as `optimizer.lr=0.01`")
    key = _key(name.strip(), keys, "--where", keys)
    values = {repr(row.parameters[key]): row.parameters[key] for row in rows if row.parameters}
    for possible in values.values():
        if _equal(possible, value.strip()):
            return key, possible
    raise _impossible(f"--where {key}", value, values)


def _key(name: str, keys: list[str], option: str, possible: Sequence[str]) -> str:
    """The swept key of this name; its last part will do where no other key ends with it."""
    fitting = [key for key in keys if name in (key, key.rpartition(".")[2])]
    if len(fitting) != 1:
        raise _impossible(option, name, possible)
    return fitting[0]


def _impossible(option: str, found: str, possible: Sequence[Any] | dict[str, Any]) -> InputError:
    named = ", ".join(str(value) for value in possible)
    expected = f"one of {named}" if named else "nothing: this study sweeps nothing"
    return InputError(option, f"there is no `{found}`", expected, "name one of those")


def _equal(value: Any, expected: Any) -> bool:
    """Whether a parameter is what was typed: 1e-3 and 0.001 are the same."""
    if value == expected or str(value) == str(expected):
        return True
    if not isinstance(expected, str):
        return False
    try:
        return bool(value == yaml.safe_load(expected) or value == float(expected))
    except (ValueError, yaml.YAMLError):
        return False


def _sorted(rows: list[RunRow], sort: str) -> list[RunRow]:
    name = sort.removeprefix("-")
    value = SORTABLE.get(name) or (lambda row: row.parameters.get(name))
    known = [row for row in rows if value(row) is not None]
    # Values of a swept key may be of several types, which only their names can order.
    numbers = all(isinstance(value(row), int | float) for row in known)

    def order(row: RunRow) -> Any:
        return value(row) if name in SORTABLE or numbers else str(value(row))

    known.sort(key=order, reverse=sort.startswith("-"))
    return known + [row for row in rows if value(row) is None]
