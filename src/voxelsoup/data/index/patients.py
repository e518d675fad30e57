"""The patient of a case: cases of one patient stay together in folds."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case
from voxelsoup.data.layouts.brats import PATIENT_PATTERN
from voxelsoup.data.layouts.table import read_rows
from voxelsoup.study.sections.data import Dataset


def patient_finder(dataset: Dataset) -> Callable[[Case], str]:
    """How to find the patient of a case: by the study first, then by what the data set says.

    Raises:
        InputError: if the study's table of patients is unusable; the finder raises it too, for a
            case whose patient is not in the table or not found by the pattern.
    """
    if dataset.patients is not None:
        path = Path(dataset.patients)
        return partial(_patient_from_table, table=_patient_table(path), path=path)
    if dataset.patient_pattern is not None:
        return partial(_patient_by_pattern, pattern=dataset.patient_pattern)
    if dataset.layout in ("brats", "phantom"):
        return lambda case: case.patient or re.sub(PATIENT_PATTERN, r"\1", case.name)
    return lambda case: case.patient or case.name


def _patient_by_pattern(case: Case, pattern: str) -> str:
    match = re.search(pattern, case.name)
    if match is None:
        raise InputError(
            "dataset.patient_pattern",
            f"`{pattern}` does not match the case {case.name}",
            "a pattern that finds the patient in every case name",
            "correct the pattern, or set `dataset.patients`",
        )
    return match[1]


def _patient_from_table(case: Case, table: dict[str, str], path: Path) -> str:
    if case.name not in table:
        raise InputError(
            path, f"does not name the case {case.name}", "every case", "add a row for it"
        )
    return table[case.name]


def _patient_table(path: Path) -> dict[str, str]:
    table: dict[str, str] = {}
    for row in read_rows(path, ["case", "patient"], "dataset.patients"):
        case, patient = row.cells["case"], row.cells["patient"]
        # Either mistake would silently put cases into wrong folds.
        if not patient:
            raise InputError(
                path,
                f"names no patient for the case {case} (row {row.number})",
                "a patient in every row",
                "add it",
            )
        if table.setdefault(case, patient) != patient:
            raise InputError(
                path,
                f"assigns the case {case} to two patients, {table[case]} and {patient}",
                "one patient per case",
                "remove one of the rows",
            )
    return table
