"""The curve of a training, with the time of each epoch, from the records of its run."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from voxelsoup.runs.record import RunRecord
from voxelsoup.status.read_runs import HISTORY

# Column of a history -> what TensorBoard's events call it.
NAMES = {"training_loss": "training/loss", "lr": "training/learning rate"}
EPOCH = "epoch"


@dataclass(frozen=True)
class Point:
    """What is known of a run at one optimizer step.

    Attributes:
        time: in seconds after 1970 (UTC).
        values: name of a curve -> its value; it may be NaN where a run diverged.
    """

    step: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class Span:
    """Steps that one attempt trained, up to ``last``, and from when to when it did so."""

    first: int
    last: int
    began: float
    ended: float


class Histories:
    """Histories of runs, each file read once as long as it does not change."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int], list[dict[str, float]]]] = {}

    def of(self, states: str, folder: str) -> list[dict[str, float]]:
        """The rows of a run, one per epoch: of its states, which are newer, or of its results."""
        for place in (states, folder):
            with suppress(OSError, ValueError, TypeError):
                if rows := self._read(f"{place}/{HISTORY}"):
                    return rows
        return []

    def _read(self, path: str) -> list[dict[str, float]]:
        found = Path(path).stat()
        sign = (found.st_mtime_ns, found.st_size)
        if path not in self._known or self._known[path][0] != sign:
            with Path(path).open(encoding="utf-8", newline="") as stream:
                rows = [
                    {name: float(value) for name, value in row.items()}
                    for row in csv.DictReader(stream)
                ]
            self._known[path] = (sign, rows)
        return self._known[path][1]


def curve(rows: Sequence[dict[str, float]], spans: Sequence[Span]) -> list[Point]:
    """One point per epoch, in the order of their steps.

    A history has no times: an epoch is dated between begin and end of the attempt that trained it.
    """
    points: dict[int, Point] = {}
    for row in rows:
        step = int(row["step"])
        values = {name: row[column] for column, name in NAMES.items() if column in row}
        points[step] = Point(step, _time_of(step, spans), values | {EPOCH: row["epoch"]})
    return [points[step] for step in sorted(points)]


def _time_of(step: int, spans: Sequence[Span]) -> float:
    # What a later attempt repeated is its own.
    held = [span for span in spans if span.first < step <= span.last]
    if held:
        span = held[-1]
        share = (step - span.first) / (span.last - span.first)
        return span.began + share * (span.ended - span.began)
    later = [span.ended for span in spans if span.last < step]
    return max(later) if later else min((span.began for span in spans), default=0.0)


def spans_of_record(record: RunRecord, steps_per_epoch: float) -> list[Span]:
    """The steps that each attempt of a run trained, by its record."""
    spans = []
    attempts = record.attempts
    for number, attempt in enumerate(attempts):
        following = attempts[number + 1].started if number + 1 < len(attempts) else record.updated
        last = round(attempt.to_epoch * steps_per_epoch)
        if last > attempt.from_step:
            began = seconds(attempt.first_step or attempt.started)
            ended = max(began, seconds(attempt.ended or following))
            spans.append(Span(attempt.from_step, last, began, ended))
    return spans


def seconds(time: str) -> float:
    """An ISO 8601 time in seconds after 1970."""
    return datetime.fromisoformat(time).timestamp()
