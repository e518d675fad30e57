"""The index: every case found, checked and written down before anything is computed."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segsoup.cases.brats import PATIENT_PATTERN
from segsoup.cases.case import Case, Source
from segsoup.cases.layouts import find_cases
from segsoup.cases.spreadsheet import read_rows
from segsoup.errors import BadCases, InputError
from segsoup.files import whole
from segsoup.study import Dataset
from segsoup.volumes import Volume, read_label, read_volume, same_grid, shape_text

CHANNEL_PREFIX = "channel_"


@dataclass(frozen=True)
class IndexedCase:
    """A case whose files have all been read and agree with each other.

    Attributes:
        name: its name.
        patient: whom it shows; cases of one patient stay together in folds.
        channels: channel name -> volume, relative to the data set's folder.
        label: label map, relative to the data set's folder; None where the case is unlabelled.
        shape: voxels (x, y, z) as stored.
        spacing: voxel size in mm (x, y, z) as stored.
        labels: label values that occur.
        sha256: hash over the contents of all of its files.
        notes: what is allowed, and yet good to know, in words (an empty label map, ...).
    """

    name: str
    patient: str
    channels: dict[str, Source]
    label: Source | None
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    labels: list[int]
    sha256: str
    notes: tuple[str, ...] = ()


def index_cases(
    dataset: Dataset, regions: dict[str, list[int]], root: Path, workers: int
) -> tuple[list[IndexedCase], dict[str, InputError]]:
    """Find and check all cases of a data set.

    Args:
        dataset: the study's section; `on_bad_case` says whether bad cases stop it.
        regions: region name -> label values.
        root: folder of the data set.
        workers: processes that check cases.

    Returns:
        The usable cases by name, and case name -> what is wrong for those left out.

    Raises:
        BadCases: naming all bad cases, if they are to stop the study.
        InputError: if no usable case is left.
    """
    cases = find_cases(dataset, root)
    _check_names(cases, root)
    patient_of = _patients(dataset)
    patients = {case.name: patient_of(case) for case in cases}
    check = partial(_check, patients=patients, regions=regions, root=root)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            results = list(pool.map(check, cases, chunksize=4))
    else:
        results = [check(case) for case in cases]
    usable = [result for result in results if isinstance(result, IndexedCase)]
    rejected = {
        case.name: result
        for case, result in zip(cases, results, strict=True)
        if isinstance(result, InputError)
    }
    if rejected and (dataset.on_bad_case == "stop" or not usable):
        raise BadCases(
            root, rejected, "or set `dataset.on_bad_case: skip` to go on without these cases"
        )
    return usable, rejected


def write_cases(path: Path, cases: Iterable[IndexedCase]) -> None:
    """Write ``cases.tsv``: one row per usable case."""
    cases = list(cases)
    channels = [CHANNEL_PREFIX + name for name in cases[0].channels]
    header = ["case", "patient", "label", *channels, "shape", "spacing", "labels"]
    header += ["sha256", "notes"]
    rows = [
        [
            case.name,
            case.patient,
            str(case.label or ""),
            *map(str, case.channels.values()),
            shape_text(case.shape),
            "x".join(f"{size:g}" for size in case.spacing),
            ",".join(map(str, case.labels)),
            case.sha256,
            "; ".join(case.notes),
        ]
        for case in cases
    ]
    _write_table(path, header, rows)


def read_cases(path: Path) -> list[IndexedCase]:
    """Read ``cases.tsv`` back."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [_from_row(row) for row in csv.DictReader(stream, delimiter="\t")]


def write_rejected(path: Path, rejected: dict[str, InputError]) -> None:
    """Write ``rejected.tsv``: the cases that are left out, and why."""
    rows = [
        [case, problem.where, problem.found, problem.expected, problem.mend]
        for case, problem in rejected.items()
    ]
    _write_table(path, ["case", "where", "found", "expected", "mend"], rows)


def read_rejected(path: Path) -> list[str]:
    """Names of the cases that ``rejected.tsv`` lists."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [row["case"] for row in csv.DictReader(stream, delimiter="\t")]


def _write_table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _from_row(row: dict[str, str]) -> IndexedCase:
    shape = tuple(int(side) for side in row["shape"].split("x"))
    spacing = tuple(float(size) for size in row["spacing"].split("x"))
    return IndexedCase(
        name=row["case"],
        patient=row["patient"],
        channels={
            key.removeprefix(CHANNEL_PREFIX): Source.parse(value)
            for key, value in row.items()
            if key.startswith(CHANNEL_PREFIX)
        },
        label=Source.parse(row["label"]) if row["label"] else None,
        shape=(shape[0], shape[1], shape[2]),
        spacing=(spacing[0], spacing[1], spacing[2]),
        labels=[int(value) for value in row["labels"].split(",") if value],
        sha256=row["sha256"],
        notes=tuple(note for note in row["notes"].split("; ") if note),
    )


def _check_names(cases: list[Case], root: Path) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            raise InputError(
                root,
                f"holds two cases named {case.name}",
                "every case once",
                "rename or remove one of them",
            )
        seen.add(case.name)


def _patients(dataset: Dataset) -> Callable[[Case], str]:
    """How to find the patient of a case."""
    if dataset.patients is not None:
        return _patients_from_file(Path(dataset.patients))
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
            "correct the pattern, or give `dataset.patients`",
        )
    return match[1]


def _patients_from_file(path: Path) -> Callable[[Case], str]:
    table = _patient_table(path)

    def find(case: Case) -> str:
        if case.name not in table:
            raise InputError(
                path, f"does not name the case {case.name}", "every case", "add a row for it"
            )
        return table[case.name]

    return find


def _patient_table(path: Path) -> dict[str, str]:
    table: dict[str, str] = {}
    for row in read_rows(path, ["case", "patient"], "dataset.patients"):
        case, patient = row.cells["case"], row.cells["patient"]
        # Either mistake would put cases into wrong folds without a word.
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
                f"gives the case {case} to two patients, {table[case]} and {patient}",
                "one patient per case",
                "remove one of the rows",
            )
    return table


def _check(
    case: Case, patients: dict[str, str], regions: dict[str, list[int]], root: Path
) -> IndexedCase | InputError:
    """Check one case; a mistake is returned, so that all of them can be listed at once."""
    if case.problem is not None:
        return case.problem
    try:
        return _indexed(case, patients[case.name], regions, root)
    except InputError as problem:
        return problem


def _indexed(case: Case, patient: str, regions: dict[str, list[int]], root: Path) -> IndexedCase:
    image = next(iter(case.channels.values())).file
    # Without its images either, the case's files have other names, which the images tell.
    if case.label is None and image.is_file():
        raise InputError(
            image.parent if image.parent.name == case.name else image,
            "has no label file",
            "a label map for every case that is trained or scored on (the `brats` layout: "
            "a file that ends in -seg.nii.gz or _seg.nii.gz behind the case's name)",
            "add the label file, or leave the case out",
        )
    first: tuple[Source, Volume] | None = None
    for source in case.channels.values():
        volume = read_volume(source)
        first = first or (source, volume)
        _check_grid(source, volume, *first)
    assert first is not None and case.label is not None
    label = read_label(case.label)
    _check_grid(case.label, label, *first)
    labels = np.unique(label.data).tolist()
    _check_labels(case.label, labels, regions)
    files = dict.fromkeys(source.file for source in [*case.channels.values(), case.label])
    return IndexedCase(
        name=case.name,
        patient=patient,
        channels={name: _relative(source, root) for name, source in case.channels.items()},
        label=_relative(case.label, root),
        shape=label.data.shape,
        spacing=label.spacing,
        labels=labels,
        sha256=_hash(files),
    )


def _check_grid(source: Source, volume: Volume, first: Source, reference: Volume) -> None:
    difference = same_grid(volume, reference)
    if difference:
        raise InputError(
            source.file,
            f"has {difference}, compared with {first.file.name}",
            "one grid for all files of a case",
            "register or resample the files of the case to one grid",
        )


def _check_labels(source: Source, labels: list[int], regions: dict[str, list[int]]) -> None:
    known = {label for values in regions.values() for label in values}
    strange = sorted(set(labels) - known - {0})
    if strange:
        raise InputError(
            source.file,
            f"holds the label value {strange[0]}, which no region names",
            f"0 and {sorted(known)}",
            "add the value to a region in `regions` (BraTS up to 2021 has 4 where later ones "
            "have 3), or correct the label map",
        )


def _relative(source: Source, root: Path) -> Source:
    return Source(source.file.relative_to(root), source.component)


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
