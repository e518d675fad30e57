"""A table of cases: one row per case, one column per channel, and one for the label map."""

from __future__ import annotations

from pathlib import Path

from segsoup.cases.case import Case, Source
from segsoup.cases.descriptions import inside
from segsoup.cases.spreadsheet import Row, read_rows
from segsoup.errors import InputError
from segsoup.study import Dataset

CASE, LABEL, PATIENT = "case", "label", "patient"


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The cases of a table, sorted by name; a case without label is an unlabelled one.

    A cell names a file, or one component of a 4D file: ``scan.nii.gz#2``. Columns that are
    neither a channel nor ``case``, ``label`` or ``patient`` are not read.

    Args:
        dataset: its file (by default cases.csv in ``root``), and its channels.
        root: folder of the data set, which all files are relative to.

    Raises:
        InputError: naming the row, if the file is missing, is no table, lacks a column or a
            cell, names a case twice or a file outside of ``root``.
    """
    for column in (CASE, LABEL, PATIENT):
        if column in dataset.channels:
            raise InputError(
                "dataset.channels",
                f"names a channel `{column}`, which is a column of its own in a table",
                "other names",
                "rename the channel, in the table as well",
            )
    path = Path(dataset.file) if dataset.file is not None else root / "cases.csv"
    # A table of new scans has no such column; in a study, one that is misspelt has to be noticed.
    labels = [] if dataset.unlabelled == "predict" else [LABEL]
    rows = read_rows(path, [CASE, *dataset.channels, *labels], "dataset.file")
    seen: dict[str, int] = {}
    cases = []
    for row in rows:
        case = _case(row, dataset.channels, root, path)
        first = seen.setdefault(case.name, row.number)
        if first != row.number:
            raise InputError(
                path,
                f"rows {first} and {row.number} both name the case {case.name!r}",
                "every case once",
                "remove or rename one of them",
            )
        cases.append(case)
    return sorted(cases, key=lambda case: case.name)


def _case(row: Row, channels: list[str], root: Path, path: Path) -> Case:
    if row.count < len(row.cells):
        # A table that was cut off would turn a labelled case into an unlabelled one.
        raise InputError(
            path,
            f"row {row.number} has {row.count} cell(s) under {len(row.cells)} columns",
            "one cell per column; the one of an unlabelled case is empty",
            "complete the row",
        )
    needed = [CASE, *channels, *([PATIENT] if PATIENT in row.cells else [])]
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
        {channel: source(channel) for channel in channels},
        source(LABEL) if row.cells.get(LABEL) else None,
        patient=row.cells.get(PATIENT),
    )
