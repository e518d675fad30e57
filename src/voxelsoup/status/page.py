"""The status as a page that refreshes itself: one file, for a web server or the disk."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import get_args

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from voxelsoup.common.files import write_text
from voxelsoup.runs.run_state import AT_WORK, RunState
from voxelsoup.status.rows import RunRow, StudyStatus
from voxelsoup.status.terminal import head_line
from voxelsoup.study.trials import short_keys, shown

TEMPLATES = "templates"

# A curve is drawn in a box of whole numbers, which keeps thousands of them small.
CURVE_POINTS = 60
CURVE_WIDTH, CURVE_HEIGHT = 120, 24

# After these a run does nothing more by itself.
ENDED: tuple[RunState, ...] = ("done", "diverged", "dropped", "failed")


def write_page(status: StudyStatus, path: Path, refresh_seconds: float) -> None:
    """Write the page atomically; the ``losses`` of the runs become its curves.

    It reloads itself as often as it will be written again.

    Raises:
        InputError: if it cannot be written.
    """
    script = _part("page.js")
    environment = Environment(
        loader=PackageLoader("voxelsoup.status", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"curve": curve, "moment": _moment, "shown": shown}
    page = environment.get_template("page.html").render(
        status=status,
        head=head_line(status),
        refresh_seconds=refresh_seconds,
        counts={state: status.count(state) for state in get_args(RunState)},
        at_work=status.count(*AT_WORK),
        ended=status.count(*ENDED) == len(status.rows),
        columns=_columns(status.rows),
        parameters=_parameters(status.rows),
        on_slurm=_on_slurm(status.rows),
        style=Markup(_part("page.css")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(path, page)


@dataclass(frozen=True)
class _Column:
    """A column of the page; its cells are in the template.

    Attributes:
        key: what an address calls it.
        kind: how it is sorted, ``number``, ``text``, ``time`` or ``state``; empty for the curve.
        width: in CSS. Widths do not depend on rows out of sight, which a browser need not lay out.
        title: what its head adds where the mouse points.
    """

    key: str
    label: str
    kind: str
    width: str
    title: str = ""


def _columns(rows: Sequence[RunRow]) -> list[_Column]:
    short = short_keys(_parameters(rows))
    of_parameters = [_parameter_column(rows, key, label) for key, label in short.items()]
    of_slurm = [
        _Column("job", "Slurm job", "number", _fitting("Slurm job", [row.job for row in rows])),
        _Column(
            "partition", "Partition", "text", _fitting("Partition", [r.partition for r in rows])
        ),
    ]
    best = "of the best model so far"
    return [
        _Column("fold", "Fold", "number", "4.5rem"),
        _Column("run", "Run", "text", _fitting("Run", [f"{row.label} {row.run}" for row in rows])),
        _Column("state", "State", "state", "12rem"),
        _Column("epoch", "Epoch", "number", "8.5rem"),
        _Column("training_loss", "Training loss", "number", "6.25rem", "of the last epoch done"),
        _Column("curve", "Curve", "", "8rem", "training loss; the width stands for all epochs"),
        _Column("selection_score", "Selection score", "number", "6.75rem", f"mean Dice {best}"),
        _Column("selection_loss", "Selection loss", "number", "6.75rem", best),
        *of_parameters,
        _Column("epochs_per_hour", "Epochs per hour", "number", "6.75rem"),
        _Column("estimated_end", "Estimated end", "time", "8.25rem"),
        _Column("gpu", "GPU", "text", _fitting("GPU", [row.gpu for row in rows])),
        _Column("host", "Host", "text", _fitting("Host", [row.host for row in rows])),
        *(of_slurm if _on_slurm(rows) else []),
        _Column("attempt", "Attempt", "number", "6rem"),
        _Column("started", "Started", "time", "8.25rem"),
    ]


def _parameter_column(rows: Sequence[RunRow], key: str, label: str) -> _Column:
    values = [row.parameters[key] for row in rows if key in row.parameters]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    width = _fitting(label, map(shown, values))
    return _Column(key, label, "number" if numbers else "text", width, title=key)


def _parameters(rows: Sequence[RunRow]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.parameters))


def _on_slurm(rows: Sequence[RunRow]) -> bool:
    return any(row.job or row.partition for row in rows)


def _fitting(label: str, texts: Iterable[str | None]) -> str:
    """The width of a column for its longest text; a very long one is broken into lines."""
    longest = max(len(label), *(len(text or "") for text in texts), 4)
    return f"calc({min(longest, 26)}ch + 2.5rem)"


def curve(row: RunRow) -> str:
    """The path of a run's training loss in an SVG of ``CURVE_WIDTH`` x ``CURVE_HEIGHT``.

    The width stands for all epochs that the run is to have, the height for its own range of
    losses. Empty with fewer than two losses that are numbers.
    """
    points = _thinned(row.losses, CURVE_POINTS)
    if len(points) < 2:
        return ""
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    span, length = high - low or 1.0, max(row.epochs, len(row.losses))
    corners = [
        (round(CURVE_WIDTH * at / length), round(CURVE_HEIGHT * (high - loss) / span))
        for at, loss in points
    ]
    (x, y), path = corners[0], [f"M{corners[0][0]} {corners[0][1]}l"]
    for next_x, next_y in corners[1:]:
        # A minus parts two numbers as well as a blank does.
        path.append(f"{next_x - x}{'' if next_y < y else ' '}{next_y - y} ")
        x, y = next_x, next_y
    return "".join(path).strip()


def _thinned(losses: Sequence[float], count: int) -> list[tuple[float, float]]:
    """At most so many (epoch, loss): means over parts of equal length, the last loss as it is."""
    known = [(epoch, loss) for epoch, loss in enumerate(losses, 1) if math.isfinite(loss)]
    if len(known) <= count:
        return list(known)
    edges = [len(known) * part // (count - 1) for part in range(count)]
    parts = [known[start:end] for start, end in pairwise(edges)]
    means = [tuple(sum(values) / len(part) for values in zip(*part, strict=True)) for part in parts]
    return [(epoch, loss) for epoch, loss in means] + known[-1:]


def _moment(at: datetime) -> str:
    """A moment as the page's script reads it; without a script, the reader sees it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _part(name: str) -> str:
    return (files("voxelsoup.status") / TEMPLATES / name).read_text(encoding="utf-8")
