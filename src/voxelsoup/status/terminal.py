"""The table of runs: for a terminal, as wide as it is, and as plain text for everything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from voxelsoup.runs.run_state import AT_WORK, RunState
from voxelsoup.status.filters import urgent_first
from voxelsoup.status.rows import RunRow, StudyStatus

STYLES: dict[RunState, str] = {
    "waiting": "dim",
    "queued": "blue",
    "running": "green",
    "saving": "green",
    "resumed": "green",
    "retrying": "yellow",
    "done": "",
    "diverged": "yellow",
    "dropped": "dim",
    "failed": "bold red",
    "lost": "bold red",
}
BAR = 8
GAP = 2
# A remark shorter than this says nothing; the others make room for it.
REMARK = 26
MISSING = "-"
REMARK_TITLE = "remark"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        rank: on a narrow terminal, columns of high rank go first; 0 stays.
        right: whether it is aligned to the right.
    """

    title: str
    text: Callable[[RunRow], str]
    rank: int
    right: bool = False


def columns_of(now: datetime) -> list[Column]:
    """All columns of the table, from left to right; times of this day are shown without date."""
    return [
        Column("run", lambda row: f"{row.place}, {row.label}", 0),
        Column("id", lambda row: row.name, 6),
        Column("state", lambda row: row.state, 0),
        Column("epoch", lambda row: f"{row.epoch}/{row.epochs}", 1, right=True),
        Column("loss", lambda row: _loss(row.training_loss), 4, right=True),
        Column("score", lambda row: _number(row.selection_score, ".4f"), 3, right=True),
        Column("sel. loss", lambda row: _loss(row.selection_loss), 14, right=True),
        Column("epochs/h", lambda row: speed(row.epochs_per_hour), 7, right=True),
        Column("ends", lambda row: moment(row.estimated_end, now), 5),
        Column("GPU", lambda row: (row.gpu or MISSING).removeprefix("NVIDIA "), 6),
        Column("host", lambda row: row.host or MISSING, 9),
        Column("job", lambda row: row.job or MISSING, 8, right=True),
        Column("partition", lambda row: row.partition or MISSING, 11),
        Column("attempt", lambda row: str(row.attempt or MISSING), 10, right=True),
        Column("started", lambda row: moment(row.started, now), 12),
        Column("hours", lambda row: _number(row.hours or None, ".2f"), 13, right=True),
        Column(REMARK_TITLE, lambda row: row.detail or MISSING, 2),
    ]


def _number(value: float | None, layout: str) -> str:
    return MISSING if value is None else format(value, layout)


def _loss(value: float | None) -> str:
    """A loss; one that grows beyond bounds must not make the column wide."""
    return _number(value, ".4f" if value is None or abs(value) < 1e4 else ".1e")


def speed(per_hour: float | None) -> str:
    """Epochs per hour, as precise as they are certain."""
    return _number(per_hour, ".3g" if per_hour is None or per_hour < 100 else ",.0f")


def moment(time: datetime | None, now: datetime) -> str:
    """A time for readers: as short as it is certain."""
    if time is None:
        return MISSING
    if time.date() == now.date():
        return f"{time:%H:%M}"
    if abs(time - now) < timedelta(days=6):
        return f"{time:%a %H:%M}"
    return f"{time:%d %b %H:%M}"


def summary(status: StudyStatus) -> str:
    """How far a study is, in a line."""
    parts = [f"{status.count('done')} of {len(status.rows)} done"]
    working = status.count(*AT_WORK)
    if working:
        parts.append(f"{working} running")
    for state in ("queued", "waiting", "diverged", "dropped", "failed", "lost"):
        if status.count(state):
            parts.append(f"{status.count(state)} {state}")
    line = ", ".join(parts)
    hours, of = (status.gpu_hours, "GPU") if status.gpu_hours else (status.hours, "CPU")
    if hours:
        line += f" · {hours:.3g} {of} hours" if hours < 1000 else f" · {hours:,.0f} {of} hours"
    if status.estimated_end is not None:
        line += f" · ends about {moment(status.estimated_end, status.at)}"
    return line


def head_line(status: StudyStatus) -> str:
    """The study's head job in a line, with the command that follows its log; empty without one."""
    head = status.head
    if head is None:
        return ""
    if not head.is_open:
        return f"head job {head.job}: {head.state}; log: {short_path(head.log)}"
    parts = [
        head.state.lower(),
        head.detail and f"({head.detail})",
        head.node and f"on {head.node}",
    ]
    parts.append(f"since {moment(head.since, status.at)}" if head.since else "")
    doing = " ".join(filter(None, parts))
    return f"head job {head.job}: {doing}; follow it: tail -F {short_path(head.log)}"


def short_path(path: str) -> str:
    """A path as one would type it here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def plain_table(status: StudyStatus, rows: Sequence[RunRow]) -> str:
    """All columns of rows, as text for a file or another program; quick for thousands."""
    columns = columns_of(status.at)
    cells = [[column.title for column in columns]]
    cells += [[column.text(row) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        lines.append((" " * GAP).join(padded).rstrip())
    head = [*filter(None, (summary(status), head_line(status), status.note)), ""]
    return "\n".join([*head, *lines])


def table(
    status: StudyStatus,
    rows: Sequence[RunRow],
    width: int,
    most: int | None = None,
    refresh_seconds: float | None = None,
    kept_order: bool = False,
) -> RenderableType:
    """The table for a terminal.

    Args:
        width: columns of the terminal.
        most: rows that may be shown; None for all.
        refresh_seconds: how often it is refreshed, to be shown; None if it is not.
        kept_order: whether the order was asked for; otherwise, where not all rows can be shown,
            what needs attention comes first.
    """
    hidden = 0 if most is None else max(0, len(rows) - most)
    if hidden:
        rows = (list(rows) if kept_order else urgent_first(rows))[:most]
    parts: list[RenderableType] = [*_head(status, refresh_seconds), Text()]
    parts.append(_table(rows, columns_of(status.at), width))
    if not rows:
        parts.append(Text("no run matches", "dim"))
    if hidden:
        parts.append(Text(f"{hidden:,} more runs are not shown", "dim", no_wrap=True))
    return Group(*parts)


# Lines of the terminal that are not rows: summary, where and when, a note, space, head, hidden; and
# one for the head job of a study that was submitted.
LINES_AROUND = 7


def _head(status: StudyStatus, refresh_seconds: float | None) -> list[Text]:
    often = "" if refresh_seconds is None else f" · every {refresh_seconds:g} s · Ctrl-C ends it"
    origin = f"{status.study} · {status.results} · {status.at:%a %d %b %H:%M:%S}{often}"
    shorten: Any = {"no_wrap": True, "overflow": "ellipsis"}
    lines = [Text(summary(status), "bold"), Text(origin, "dim", **shorten)]
    if status.head is not None:
        lines.append(Text(head_line(status), "dim", **shorten))
    if status.note:
        lines.append(Text(status.note, "yellow", **shorten))
    return lines


def _table(rows: Sequence[RunRow], columns: Sequence[Column], width: int) -> Table:
    cells = {column.title: [column.text(row) for row in rows] for column in columns}
    shown, with_bar = _fitting(columns, cells, width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for column in shown:
        remark = column.title == REMARK_TITLE
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            # The remark takes what is left; everything else is shown in full.
            min_width=None if remark else _width(column, cells),
        )
        if column.title == "epoch" and with_bar:
            table.add_column(width=BAR)
    for number, row in enumerate(rows):
        line: list[RenderableType] = []
        for column in shown:
            line.append(_cell(column, cells[column.title][number], row))
            if column.title == "epoch" and with_bar:
                line.append(_bar(row))
        table.add_row(*line)
    return table


def _cell(column: Column, text: str, row: RunRow) -> Text:
    if text == MISSING:
        return Text("")
    style = STYLES[row.state] if column.title == "state" else ""
    if row.state in ("waiting", "dropped") or column.title == REMARK_TITLE:
        style = style or "dim"
    return Text(text, style)


def _bar(row: RunRow) -> RenderableType:
    if row.epoch == 0 and row.state not in AT_WORK:
        return Text("")
    colour = STYLES[row.state].removeprefix("bold ") or "bright_black"
    return ProgressBar(
        total=max(row.epochs, 1),
        completed=row.epoch,
        width=BAR,
        style="grey30",
        complete_style=colour,
        finished_style=colour,
    )


def _width(column: Column, cells: dict[str, list[str]]) -> int:
    return max(map(cell_len, [column.title, *cells[column.title]]))


def _fitting(
    columns: Sequence[Column], cells: dict[str, list[str]], width: int
) -> tuple[list[Column], bool]:
    """The columns that there is room for, and whether the bar is among them.

    Columns that are empty in all rows are left out everywhere.
    """
    shown = [c for c in columns if c.rank == 0 or any(text != MISSING for text in cells[c.title])]

    def needed(column: Column) -> int:
        width = _width(column, cells)
        return GAP + (min(width, REMARK) if column.title == REMARK_TITLE else width)

    while shown:
        taken = sum(map(needed, shown)) - GAP
        if taken + GAP + BAR <= width:
            return shown, any(column.title == "epoch" for column in shown)
        last = max(shown, key=lambda column: column.rank)
        # The bar is dropped before the columns that only a narrow terminal lacks.
        if (last.rank <= 3 and taken <= width) or last.rank == 0:
            return shown, False
        shown.remove(last)
    return shown, False
