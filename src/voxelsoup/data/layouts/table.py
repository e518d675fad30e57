"""A table of cases: one row per case, one column per channel, and one for the label map.

Cells are separated by commas, semicolons or tabs, as spreadsheets save them; the table of patients
is one too.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_text
from voxelsoup.common.text import listed
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.case_names import unsafe_text
from voxelsoup.data.layouts.channel_names import match_channels
from voxelsoup.data.layouts.json_files import inside
from voxelsoup.data.layouts.listed_files import with_checked_endings
from voxelsoup.data.volumes.volume import is_volume
from voxelsoup.study.sections.data import Dataset

CASE, LABEL, PATIENT = "case", "label", "patient"
NOT_CHANNELS = (CASE, LABEL, PATIENT)
SEPARATORS = (",", ";", "\t")
# The line that spreadsheets put in front where the separator is not the usual one.
STATED_SEPARATOR = re.compile(r'"?sep=([,;\t])"?$', re.MULTILINE)


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The cases of a table, sorted by name; a case without label is an unlabelled one.

    The table is the study's ``file``, by default cases.csv in ``root``. A cell names a file below
    ``root``, or one component of a 4D file: ``scan.nii.gz#2``. The study's channels are found by
    the names of the columns; columns that are neither a channel nor ``case``, ``label`` or
    ``patient`` are not read.

    Raises:
        InputError: naming the row, if the file is missing, is not a table, lacks a column or a
            cell, names a case twice or a file outside ``root``.
    """
    for column in NOT_CHANNELS:
        if column in dataset.channels:
            raise InputError(
                "dataset.channels",
                f"names a channel `{column}`, which is the name of another column of the table",
                "other names",
                "rename the channel, in the table as well",
            )
    path = Path(dataset.file) if dataset.file is not None else root / "cases.csv"
    # A table of new scans has no such column; in a study, one that is misspelt has to be noticed.
    labels = [] if dataset.unlabelled == "predict" else [LABEL]
    rows = read_rows(path, [CASE, *labels], "dataset.file")
    columns, notes = _columns(rows, dataset, path)
    if len(columns) < len(dataset.channels):
        # Names what is missing.
        rows = read_rows(path, [CASE, *dataset.channels, *labels], "dataset.file")
    seen: dict[str, int] = {}
    cases = []
    for row in rows:
        case = replace(_case(row, columns, root, path), notes=notes)
        first = seen.setdefault(case.name, row.number)
        if first != row.number:
            raise InputError(
                path,
                f"rows {first} and {row.number} both name the case {case.name!r}",
                "every case once",
                "remove or rename one of them",
            )
        cases.append(with_checked_endings(case, dataset, f"row {row.number} of {path}"))
    return sorted(cases, key=lambda case: case.name)


def _columns(
    rows: Sequence[Row], dataset: Dataset, path: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Channel -> its column, without those that are missing; and what was assumed."""
    heads = list(rows[0].cells) if rows else []
    there = [
        head
        for head in heads
        if head in dataset.channels
        or (head not in NOT_CHANNELS and names_volumes(row.cells[head] for row in rows))
    ]
    if not there:
        return {}, ()
    match = match_channels(dataset.channels, there, path, dataset.stated_channels)
    return {name: there[place] for name, place in match.places.items()}, match.remarks


def names_volumes(cells: Iterable[str]) -> bool:
    """Whether some cell of a column is the name of a volume."""
    return any(is_volume(str(Source.parse(cell).file)) for cell in cells if cell)


def _case(row: Row, columns: Mapping[str, str], root: Path, path: Path) -> Case:
    if row.count < len(row.cells):
        # A table that was cut off would turn a labelled case into an unlabelled one.
        raise InputError(
            path,
            f"row {row.number} has {row.count} cell(s) under {len(row.cells)} columns",
            "one cell per column; the one of an unlabelled case is empty",
            "complete the row",
        )
    needed = [CASE, *columns.values(), *([PATIENT] if PATIENT in row.cells else [])]
    empty = next((column for column in needed if not row.cells[column]), None)
    if empty is not None:
        raise InputError(
            path,
            f"row {row.number} has nothing under `{empty}`",
            "only the label may be missing",
            "fill the cell, or remove the row",
        )

    def source(column: str) -> Source:
        named = Source.parse(row.cells[column])
        return Source(
            inside(root, str(named.file), path, f"row {row.number} (`{column}`)"), named.component
        )

    return Case(
        row.cells[CASE],
        {channel: source(column) for channel, column in columns.items()},
        source(LABEL) if row.cells.get(LABEL) else None,
        patient=row.cells.get(PATIENT),
    )


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        number: as a spreadsheet counts it; the heads of the columns are row 1.
        cells: column -> text without spaces around it; empty where the row ends early.
        count: how many cells the row has.
    """

    number: int
    cells: dict[str, str]
    count: int


def read_rows(path: Path, columns: Collection[str], key: str) -> list[Row]:
    """All rows that are not empty, of a table with (at least) these columns.

    Messages name ``key``, the study's key of the table.

    Raises:
        InputError: if the file is missing, is not text or not a table, or lacks a column; if a row
            has more cells than there are columns, or a cell holds control characters.
    """
    columns_text = listed(columns)
    expected = f"a table with the columns {columns_text}, separated by commas, semicolons or tabs"
    lines = numbered_lines(path, expected, key)
    heads = lines[0][1] if lines else []
    twice = [head for head, count in Counter(heads).items() if head and count > 1]
    if twice or not set(columns) <= set(heads):
        raise InputError(
            path,
            f"has the column {twice[0]!r} twice" if twice else f"has the columns {heads[:30]}",
            f"the columns {columns_text}, each once, separated by commas, semicolons or tabs",
            "correct the first line of the file",
        )
    return [_row(path, number, cells, heads) for number, cells in lines[1:]]


def numbered_lines(path: Path, expected: str, key: str) -> list[tuple[int, list[str]]]:
    """Number and cells of every row that is not empty, the heads of the columns first.

    Raises InputError if the file is missing, not text or not a table.
    """
    text = read_text(path, expected, f"correct `{key}`")
    stated = STATED_SEPARATOR.match(text)
    separator = stated[1] if stated else _separator(text, path)
    # An opening quote without its end would swallow the rows after it.
    rows = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    found: list[tuple[int, list[str]]] = []
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            if stated and number == 1:
                continue
            cells = [cell.strip() for cell in row]
            if any(cells):
                found.append((number, cells))
    except csv.Error as error:
        raise InputError(
            path, f"row {number + 1} is not a row of a table: {error}", expected, "correct the row"
        ) from error
    return found


def _separator(text: str, path: Path) -> str:
    """What parts the first line into the most cells; by the file's name where nothing does."""
    usual = "," if path.suffix.lower() == ".csv" else "\t"
    first = next((line for line in text.splitlines() if line.strip()), "")

    def cells(separator: str) -> int:
        try:
            return len(next(csv.reader([first], delimiter=separator), []))
        except csv.Error:
            return 0

    return max((usual, *SEPARATORS), key=cells)


def _row(path: Path, number: int, cells: list[str], heads: list[str]) -> Row:
    if any(cells[len(heads) :]):
        raise InputError(
            path,
            f"row {number} has {len(cells)} cells under {len(heads)} columns",
            "one cell per column",
            "correct the row; put a cell that holds the separator between quotes",
        )
    for head, cell in zip(heads, cells, strict=False):
        reason = unsafe_text(cell)
        if reason is not None:
            raise InputError(
                path,
                f"row {number} has a cell under {head!r} that {reason}",
                "plain text",
                "save the table as CSV or TSV text in UTF-8",
            )
    filled = [*cells, *[""] * (len(heads) - len(cells))]
    return Row(number, dict(zip(heads, filled, strict=False)), len(cells))
