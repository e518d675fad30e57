"""The patient of a case: cases of one patient stay together in folds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted
from voxelsoup.data.case import Case, IndexedCase
from voxelsoup.data.layouts.brats import PATIENT_PATTERN
from voxelsoup.data.layouts.table import read_rows
from voxelsoup.study.sections.data import NO_PATTERN, Dataset

# Names that state a patient and a visit. BraTS: BraTS-GLI-00005-101 since 2023, and
# BraTS-MEN-RT-0000-1; names up to 2021 have one visit each. BIDS: sub-01_ses-2, with whatever
# further parts (https://bids-specification.readthedocs.io/en/stable/common-principles.html).
VISITS = (
    re.compile(r"(BraTS-.+-\d+)-\d+", re.IGNORECASE),
    re.compile(r"(sub-[A-Za-z0-9]+)(?:_.*)?"),
)

# Names that are perhaps a patient's number and one of several scans: patient001_frame01, S12_2.
PERHAPS = (r"^(.*\d)[_-][A-Za-z][^_-]*$", r"^([A-Za-z].*\d)[_-]\d{1,2}$")
# More cases per beginning are rather those of a site or a batch.
MOST_SCANS = 10


def patient_finder(dataset: Dataset) -> Callable[[Case], str]:
    """How to find the patient of a case: by the study, then the data set, then names of visits.

    Raises:
        InputError: if the study's table of patients is unusable; the finder raises it too, for a
            case whose patient is not in the table or not found by the pattern.
    """
    if dataset.patients is not None:
        path = Path(dataset.patients)
        return partial(_patient_from_table, table=_patient_table(path), path=path)
    if dataset.patient_pattern == NO_PATTERN:
        return lambda case: case.patient or case.name
    if dataset.patient_pattern is not None:
        return partial(_patient_by_pattern, pattern=dataset.patient_pattern)
    patterns = [*VISITS]
    if dataset.layout in ("brats", "phantom"):
        patterns.append(re.compile(PATIENT_PATTERN))
    return partial(_patient_by_visits, patterns=patterns)


def patients_of(cases: Iterable[Case]) -> dict[str, str]:
    """Case -> patient where no study says it: by the data set, or by visits in the names."""
    return {case.name: _patient_by_visits(case, VISITS) for case in cases}


def guess_pattern(names: Sequence[str]) -> str | None:
    """A pattern by which names that state no known visit look like several scans of patients.

    None where a name does not fit, fewer than half of the beginnings have several cases, or they
    have more than patients are likely to have.
    """
    for pattern in PERHAPS:
        matches = [re.search(pattern, name) for name in names]
        beginnings = Counter(match[1] for match in matches if match)
        if beginnings.total() < len(names) or len(beginnings) < 2:
            continue
        several = sum(count > 1 for count in beginnings.values())
        if 2 * several >= len(beginnings) and len(names) <= MOST_SCANS * len(beginnings):
            return pattern
    return None


def describe_patients(dataset: Dataset, cases: Iterable[IndexedCase]) -> str | None:
    """Which cases are taken for one patient's, why, and how to change it.

    Where none are, names that look like several scans of a patient are pointed out. None if there
    is nothing to say.
    """
    cases = list(cases)
    visits: defaultdict[str, list[IndexedCase]] = defaultdict(list)
    for case in cases:
        visits[case.patient].append(case)
    several = {patient: found for patient, found in visits.items() if len(found) > 1}
    if not several:
        return _possible_patients(dataset, cases)
    patient, found = next(iter(several.items()))
    names = [case.name for case in found]
    example = f"{patient}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    together = counted(sum(map(len, several.values())), "case")
    text = f"{together} of {counted(len(several), 'patient')} with several, such as {example}"
    if dataset.patients is not None:
        return f"{text}; by the table {dataset.patients}"
    if dataset.patient_pattern not in (None, NO_PATTERN):
        return f"{text}; by `dataset.patient_pattern`"
    if all(patient_finder(dataset)(Case(name, {}, None)) == patient for name in names):
        return (
            f"{text}; by the visits in the case names "
            "(`dataset.patient_pattern: none` makes every case a patient of its own)"
        )
    return f"{text}; as the data set says"


def _possible_patients(dataset: Dataset, cases: Sequence[IndexedCase]) -> str | None:
    said = dataset.patients is not None or dataset.patient_pattern is not None
    names = sorted(case.name for case in cases)
    pattern = guess_pattern(names)
    if said or pattern is None or any(case.patient != case.name for case in cases):
        return None
    first, other = _two_of_one(names, pattern)
    return (
        f"every case is taken for a patient of its own; if {first} and {other} are of one, set "
        f"`dataset.patient_pattern: {pattern}`, and `none` if not"
    )


def _two_of_one(names: Sequence[str], pattern: str) -> tuple[str, str]:
    """The first two names with the same beginning."""
    seen: dict[str, str] = {}
    for name in names:
        match = re.search(pattern, name)
        if match and seen.setdefault(match[1], name) != name:
            return seen[match[1]], name
    raise ValueError(f"no two names share what {pattern} finds")


def _patient_by_visits(case: Case, patterns: Iterable[re.Pattern[str]]) -> str:
    if case.patient is not None:
        return case.patient
    matches = (pattern.fullmatch(case.name) for pattern in patterns)
    return next((match[1] for match in matches if match), case.name)


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
