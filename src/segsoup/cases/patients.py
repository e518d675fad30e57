"""Whom a case shows: cases of one patient stay together in folds."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from segsoup.cases.brats import PATIENT_PATTERN
from segsoup.errors import InputError
from segsoup.study import Dataset


def patient_finder(dataset: Dataset) -> Callable[[str], str]:
    """How to find the patient of a case by the case's name.

    Raises:
        InputError: if the study's table of patients is unusable; the finder raises it too, for a
            case whose patient neither the table nor the pattern tells.
    """
    if dataset.patients is not None:
        return _by_table(Path(dataset.patients))
    if dataset.patient_pattern is not None:
        return partial(_by_pattern, pattern=dataset.patient_pattern)
    if dataset.layout in ("brats", "phantom"):
        return lambda name: re.sub(PATIENT_PATTERN, r"\1", name)
    return lambda name: name


def _by_pattern(name: str, pattern: str) -> str:
    match = re.search(pattern, name)
    if match is None:
        raise InputError(
            "dataset.patient_pattern",
            f"`{pattern}` does not match the case {name}",
            "a pattern that finds the patient in every case name",
            "correct the pattern, or give `dataset.patients`",
        )
    return match[1]


def _by_table(path: Path) -> Callable[[str], str]:
    if not path.is_file():
        raise InputError(
            path,
            "no such file",
            "a table with the columns case and patient",
            "correct `dataset.patients`",
        )
    table = _read_table(path)

    def find(name: str) -> str:
        if name not in table:
            raise InputError(
                path, f"does not name the case {name}", "every case", "add a row for it"
            )
        return table[name]

    return find


def _read_table(path: Path) -> dict[str, str]:
    try:
        # Spreadsheets put a byte order mark in front, which utf-8-sig takes off.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            path, "is not UTF-8 text", "a CSV or TSV file in UTF-8", "save the table as UTF-8"
        ) from error
    rows = csv.DictReader(text.splitlines(), delimiter="," if path.suffix == ".csv" else "\t")
    if not {"case", "patient"} <= set(rows.fieldnames or []):
        raise InputError(
            path,
            f"has the columns {rows.fieldnames}",
            "the columns case and patient (.csv with commas, .tsv with tabs)",
            "correct the first line of the file",
        )
    table: dict[str, str] = {}
    for row in rows:
        case, patient = row["case"], row["patient"]
        # Either mistake would put cases into wrong folds without a word.
        if not patient:
            raise InputError(
                path, f"names no patient for the case {case}", "a patient in every row", "add it"
            )
        if table.setdefault(case, patient) != patient:
            raise InputError(
                path,
                f"gives the case {case} to two patients, {table[case]} and {patient}",
                "one patient per case",
                "remove one of the rows",
            )
    return table
