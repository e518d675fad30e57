"""The command `voxelsoup status`: its options, and what shows the runs."""

from __future__ import annotations

import argparse
import io
import json
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from voxelsoup.common.errors import InputError
from voxelsoup.status.filters import Choice, checked
from voxelsoup.status.one_run import as_json, find_run, look_at_run, view
from voxelsoup.status.rows import RunRow, StudyStatus
from voxelsoup.status.study_status import StatusReader
from voxelsoup.status.terminal import LINES_AROUND, plain_table, summary, table

# Every look at a study on a cluster is a question to its controller.
REFRESH_S = 10.0
# An option shows more of them on a terminal.
MOST_ON_TERMINAL = 200


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="STUDY or RUN",
        help="study file (default: config.yaml), and a run to show in detail, such as fold0/stem, "
        "fold0/3b2a69b9 or the beginning of its id",
    )
    parser.add_argument(
        "--sort", default="", metavar="COLUMN", help="-COLUMN: largest first (--sort=-score)"
    )
    parser.add_argument("--state", default="", metavar="STATES", help="such as running,failed")
    parser.add_argument("--fold", default="", metavar="FOLDS", help="such as 0,2")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only trials with this value, such as optimizer.lr=0.01; may be repeated",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"show at most this many runs (default: {MOST_ON_TERMINAL} on a terminal, "
        "otherwise all)",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        const=str(REFRESH_S),
        metavar="SECONDS",
        help=f"refresh in place until Ctrl-C (default: every {REFRESH_S:g} s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the status as a page")


def status_command(asked: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        InputError: if the study or an option is wrong.
    """
    # A terminal without bars gets question marks instead of an error.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    seconds = _seconds(asked)
    file, name = _study_and_run(asked.targets)
    reader = StatusReader(file)
    console = Console(highlight=False)
    show = _OneRun(reader, name, asked) if name else _AllRuns(reader, asked, seconds)
    if seconds is None:
        show.once(console)
        return 0
    return _watch(show, console, seconds)


def _seconds(asked: argparse.Namespace) -> float | None:
    if asked.watch is None:
        return None
    try:
        seconds = float(asked.watch)
    except ValueError:
        # `--watch study.yaml`: the seconds were left out.
        asked.targets.insert(0, asked.watch)
        return REFRESH_S
    if not 0 < seconds < math.inf:
        raise InputError("--watch", f"`{asked.watch}`", "seconds above 0", "such as --watch 10")
    return seconds


def _study_and_run(targets: list[str]) -> tuple[Path, str | None]:
    """Which of the words is a study file, and which a run."""
    files = [t for t in targets if Path(t).is_file() or Path(t).suffix in (".yaml", ".yml")]
    runs = [target for target in targets if target not in files]
    if len(files) > 1 or len(runs) > 1:
        raise InputError(
            "voxelsoup status",
            f"{len(files)} study files and {len(runs)} runs: {' '.join(targets)}",
            "one study file and one run at most",
            "leave out the others",
        )
    return Path(files[0] if files else "config.yaml"), runs[0] if runs else None


class _OneRun:
    """One run in detail, shown once or again and again."""

    def __init__(self, reader: StatusReader, name: str, asked: argparse.Namespace) -> None:
        if asked.html or asked.sort or asked.state or asked.fold or asked.where or asked.limit:
            raise InputError(
                "voxelsoup status",
                f"one run, `{name}`, with an option for tables or pages",
                "--json and --watch beside a run",
                "leave out the other options, or the run",
            )
        self.reader, self.asked = reader, asked
        self.run = find_run(reader.runs, name)

    def once(self, console: Console) -> None:
        found = look_at_run(self.reader, self.run)
        if self.asked.json:
            print(_json(as_json(found)), flush=True)
        else:
            console.print(view(found, console.width), soft_wrap=not console.is_terminal)

    def refreshed(self, console: Console) -> RenderableType:
        return view(look_at_run(self.reader, self.run), console.width)


class _AllRuns:
    """All runs that were asked for, as a table, JSON or a page."""

    def __init__(
        self, reader: StatusReader, asked: argparse.Namespace, seconds: float | None
    ) -> None:
        self.reader, self.asked, self.seconds = reader, asked, seconds
        self.choice: Choice | None = None
        if asked.limit is not None and asked.limit < 1:
            raise InputError("--limit", f"`{asked.limit}`", "1 or more", "such as --limit 20")

    def once(self, console: Console) -> None:
        status, rows = self._look()
        if self.asked.json:
            print(_status_json(status, rows[: self.asked.limit]), flush=True)
        elif self.asked.html:
            # One line beside the page; there is none while watching.
            if self.seconds is None:
                print(f"{summary(status)}\nwritten to {self.asked.html}", flush=True)
        elif console.is_terminal:
            most = self.asked.limit or MOST_ON_TERMINAL
            console.print(self._table(status, rows, console.width, most))
        else:
            print(plain_table(status, rows[: self.asked.limit]), flush=True)

    def refreshed(self, console: Console) -> RenderableType:
        status, rows = self._look()
        around = LINES_AROUND + (status.head is not None)
        fitting = max(1, console.height - around)
        most = min(self.asked.limit or fitting, fitting)
        return self._table(status, rows, console.width, most)

    def _look(self) -> tuple[StudyStatus, list[RunRow]]:
        asked = self.asked
        status = self.reader.look(curves=asked.html is not None)
        if self.choice is None:
            options = (asked.sort, asked.state, asked.fold, asked.where)
            self.choice = checked(*options, rows=status.rows)
        if asked.html is not None:
            from voxelsoup.status.page import write_page

            write_page(status, asked.html, self.seconds or REFRESH_S)
        return status, self.choice.of(status.rows)

    def _table(
        self, status: StudyStatus, rows: list[RunRow], width: int, most: int
    ) -> RenderableType:
        return table(status, rows, width, most, self.seconds, bool(self.asked.sort))


def _watch(show: _OneRun | _AllRuns, console: Console, seconds: float) -> int:
    """Show it again and again until the user ends it."""
    # The end of a terminal's session, or of a service, ends it like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if console.is_terminal and not show.asked.json:
            _watch_in_place(lambda: show.refreshed(console), console, seconds)
        while True:
            show.once(console)
            time.sleep(seconds)
    except KeyboardInterrupt:
        return 0


def _watch_in_place(
    refreshed: Callable[[], RenderableType], console: Console, seconds: float
) -> None:
    last = refreshed()
    try:
        with Live(last, console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(last, refresh=True)
                time.sleep(seconds)
                last = refreshed()
    finally:
        # The terminal is as it was before; what was seen last stays.
        console.print(last)


def _status_json(status: StudyStatus, rows: list[RunRow]) -> str:
    counts = Counter(row.state for row in status.rows)
    head = None if status.head is None else vars(status.head)
    shown = {"counts": counts, "rows": [_row_json(row) for row in rows], "head": head}
    return _json(vars(status) | shown)


def _row_json(row: RunRow) -> dict[str, Any]:
    content = {"name": row.name} | vars(row)
    # Curves are for pages, and for one run.
    del content["losses"]
    return content


def _json(content: dict[str, Any]) -> str:
    def plain(value: Any) -> str:
        if isinstance(value, datetime):
            return value.isoformat(timespec="seconds")
        raise TypeError(f"{type(value)} is not JSON")

    return json.dumps(content, default=plain)
