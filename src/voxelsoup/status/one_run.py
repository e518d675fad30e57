"""One run in detail: settings, curve, attempts, the end of its log, and why it failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from voxelsoup.common.errors import InputError
from voxelsoup.runs.failures import Failure, end_of_attempt
from voxelsoup.runs.record import Attempt, RunRecord
from voxelsoup.runs.run_state import AT_WORK
from voxelsoup.status.read_runs import KnownRun, read_end
from voxelsoup.status.rows import RunRow
from voxelsoup.status.study_status import StatusReader
from voxelsoup.status.terminal import MISSING, STYLES, moment, speed

LOG_LINES = 12
CURVE_HEIGHT = 6
CURVE_WIDTH = 72
EIGHTHS = " ▁▂▃▄▅▆▇█"
OTHERS_NAMED = 8


@dataclass(frozen=True)
class RunDetails:
    """Everything that is shown of one run.

    Attributes:
        row: as in the table, with its losses.
        parameters: what the study sweeps, of this run.
        attempts: each with why it ended, if it ended before its time.
        log: its path.
        log_lines: the last ones.
    """

    row: RunRow
    parameters: dict[str, Any]
    record: RunRecord | None
    attempts: list[tuple[Attempt, Failure | None]]
    failure: Failure | None
    log: str
    log_lines: list[str]
    at: datetime


def find_run(runs: Sequence[KnownRun], name: str) -> KnownRun:
    """The run that the user names: ``fold0/stem``, the beginning of an id, or a path of results.

    Raises:
        InputError: naming the runs that it could be.
    """
    path = Path(name)
    for run in runs:
        if name == run.name or path == Path(run.folder):
            return run
    # Also `fold0/trials/3b2a69b9`, as in paths, and any path below a run's results.
    prefix = name.replace("/trials/", "/").rstrip("/")
    folders = [str(parent) for parent in path.parents]
    found = [
        run
        for run in runs
        if run.name.startswith(prefix) or run.run.startswith(prefix) or run.folder in folders
    ]
    if len(found) == 1:
        return found[0]
    possible = [run.name for run in found or runs]
    named = ", ".join(possible[:OTHERS_NAMED])
    more = len(possible) - OTHERS_NAMED
    raise InputError(
        "voxelsoup status",
        f"`{name}` is {'several runs' if found else 'no study file and no run of this study'}",
        f"one of {named}" + (f" and {more} others" if more > 0 else ""),
        "name one of those",
    )


def look_at_run(reader: StatusReader, run: KnownRun) -> RunDetails:
    """Read everything about one run."""
    status, facts, condition, around = reader.look_at(run)
    record = facts.record
    attempts = [
        (attempt, end_of_attempt(attempt, around.queue.jobs.get(attempt.owner.job or "")))
        for attempt in (record.attempts if record else [])
    ]
    lines = read_end(run.newest_log).splitlines()[-LOG_LINES:]
    return RunDetails(
        row=status.rows[0],
        parameters=run.trial.parameters if run.trial else {},
        record=record,
        attempts=attempts,
        failure=condition.failure,
        log=run.newest_log,
        log_lines=lines,
        at=status.at,
    )


def as_json(run: RunDetails) -> dict[str, Any]:
    """The same for scripts."""
    return {
        **vars(run.row),
        "parameters": run.parameters,
        "failure": asdict(run.failure) if run.failure else None,
        "record": asdict(run.record) if run.record else None,
        "log": run.log,
        "log_lines": run.log_lines,
        "at": run.at,
    }


def view(run: RunDetails, width: int) -> RenderableType:
    """One run for a terminal of a width, or as plain text."""
    row = run.row
    called = f"{row.place}, {row.label}"
    title = Text.assemble((called, "bold"), f"  {row.name}  ", (row.state, STYLES[row.state]))
    if row.detail:
        title.append(f"  {row.detail}", "dim" if run.failure is None else "")
    parts: list[RenderableType] = [title, Text(), _facts(run)]
    if run.failure is not None:
        parts += [Text(), *_why(run.failure)]
    if len(row.losses) > 1:
        parts += [Text(), Text("training loss", "dim"), _curve(row.losses, width)]
    if run.attempts:
        parts += [Text(), _attempts(run)]
    if run.log_lines:
        parts += [Text(), Text(run.log, "dim")]
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in run.log_lines]
    return Group(*parts)


def _facts(run: RunDetails) -> Table:
    row, record = run.row, run.record
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    shown = {key: str(value) for key, value in run.parameters.items()}
    shown["epoch"] = f"{row.epoch} of {row.epochs}"
    if row.training_loss is not None:
        shown["training loss"] = f"{row.training_loss:.4f}"
    if row.selection_score is not None:
        loss = "" if row.selection_loss is None else f", loss {row.selection_loss:.4f}"
        shown["selection cases"] = f"Dice {row.selection_score:.4f}{loss}"
    if record is not None and record.lr is not None:
        shown["learning rate"] = f"{record.lr:.4g}"
    if row.epochs_per_hour is not None:
        shown["epochs per hour"] = speed(row.epochs_per_hour)
    if row.estimated_end is not None:
        shown["ends about"] = moment(row.estimated_end, run.at)
    if record is not None and record.peak_memory_mb is not None:
        gpu = record.peak_gpu_memory_mb
        of_gpu = "" if gpu is None else f", {gpu / 1000:.2f} GB of the GPU"
        shown["peak memory"] = f"{record.peak_memory_mb / 1000:.2f} GB{of_gpu}"
    went_back = [attempt for attempt, _ in run.attempts if attempt.went_back]
    if went_back:
        last = went_back[-1]
        passed = "" if last.passed is None else f", and passed step {last.passed} then"
        shown["went back once"] = f"{last.went_back}{passed}"
    where = [row.host, row.gpu, row.job and f"job {row.job}", row.partition]
    if any(where):
        shown["at work on" if row.state in AT_WORK else "last on"] = ", ".join(filter(None, where))
    for key, value in shown.items():
        grid.add_row(key, value)
    return grid


def _why(failure: Failure) -> list[RenderableType]:
    lines: list[RenderableType] = [Text.assemble(("why: ", "bold red"), failure.words)]
    if failure.message and failure.message not in failure.words:
        lines.append(Padding(Text(failure.message), (0, 0, 0, 2)))
    lines.append(Text.assemble(("fix: ", "bold"), failure.fix))
    return lines


def _attempts(run: RunDetails) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in ("attempt", "started", "ended", "epochs", "host", "GPU", "job", "outcome"):
        table.add_column(title, no_wrap=title != "outcome")
    record = run.record
    assert record is not None
    per_epoch = record.steps / max(run.row.epochs, 1)
    for number, (attempt, failure) in enumerate(run.attempts, 1):
        last = number == len(run.attempts)

        table.add_row(
            str(number),
            _time(attempt.started, run.at),
            _time(attempt.ended, run.at),
            f"{attempt.from_step // per_epoch:.0f} to {attempt.to_epoch}",
            attempt.owner.host,
            (attempt.gpu or MISSING).removeprefix("NVIDIA "),
            attempt.owner.job or MISSING,
            _outcome(attempt, failure, run if last else None),
        )
    return table


def _outcome(attempt: Attempt, failure: Failure | None, last_of: RunDetails | None) -> str:
    if failure is not None:
        return failure.words
    if attempt.ended is not None:
        return "finished"
    if last_of is None:
        return "killed"
    if last_of.failure is not None:
        return last_of.failure.words
    return last_of.row.state


def _time(text: str | None, now: datetime) -> str:
    return moment(datetime.fromisoformat(text).astimezone() if text else None, now)


def _curve(losses: Sequence[float], width: int) -> Table:
    """Losses over the epochs as bars of eighths of a line; epochs share one where they must."""
    columns = min(len(losses), CURVE_WIDTH, max(10, width - 12))
    pieces = [
        losses[i * len(losses) // columns : (i + 1) * len(losses) // columns]
        for i in range(columns)
    ]
    means = [math.fsum(piece) / len(piece) for piece in pieces]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    # The lowest still has a bar of an eighth.
    heights = [1 + round((mean - low) / span * (8 * CURVE_HEIGHT - 1)) for mean in means]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", style="dim")
    grid.add_column(no_wrap=True)
    for line in reversed(range(CURVE_HEIGHT)):
        bars = "".join(EIGHTHS[min(8, max(0, height - 8 * line))] for height in heights)
        label = {CURVE_HEIGHT - 1: f"{high:.4f}", 0: f"{low:.4f}"}.get(line, "")
        grid.add_row(label, Text(bars, "green"))
    grid.add_row("", Text(f"epoch 1 to {len(losses)}", "dim"))
    return grid
