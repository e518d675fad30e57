"""Volumes that no case reads: beside the files of a case (a label map called otherwise, a copy),
and in folders that cases share (a label map without its scan, a scan that a list leaves out).
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted, listed
from voxelsoup.data.case import Case
from voxelsoup.data.layouts import find_cases, list_of_cases, listed_files
from voxelsoup.data.volumes.volume import is_volume
from voxelsoup.study.sections.data import Dataset

# Where a longer name than the case's own goes on.
MARKS = ("_", "-", ".")
MOST_NAMED = 5
# Folders that cases share in the layouts of the Decathlon and of nnU-Net.
TRAINING, TESTS = ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")


def volumes_passed_over(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Case -> names of volumes that lie beside its files and that no case reads, sorted.

    In a folder of one case all of them are its own; in a folder of several, those that begin with
    its name. Hidden files and folders that cannot be read are left alone.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file, owner in _unread(cases).items():
        if owner is not None:
            found[owner].append(_written(file))
    return {name: sorted(others) for name, others in found.items()}


def notes_on_strays(dataset: Dataset, root: Path, cases: Sequence[Case] | None = None) -> list[str]:
    """A note for each folder of the data set that holds volumes of no case, with their names.

    Looked at are the folders of the cases' files, the training folders of the Decathlon's and
    nnU-Net's layouts, and the folders above those of BraTS cases. What a list names without making
    it a case of the study, such as a test image, is not passed over.

    Args:
        cases: as ``find_cases`` found them; looked for if they are left out. There are no notes on
            a data set that cannot be read, as the index reports it.
    """
    try:
        cases = find_cases(dataset, root) if cases is None else cases
        known = listed_files(dataset, root)
    except InputError:
        return []
    further = set()
    if dataset.layout in ("decathlon", "nnunet"):
        further = {root / name for name in TRAINING}
    elif dataset.layout == "brats":
        further = {file.parent.parent for case in cases for file in _files(case)}
    strays: defaultdict[Path, list[str]] = defaultdict(list)
    for file, owner in _unread(cases, further).items():
        if owner is None and file not in known:
            strays[file.parent].append(_written(file))
    where = list_of_cases(dataset, root)
    why = "" if where is None else f", nor in {where.name}"
    return [
        f"{folder}: {counted(len(names), 'volume')} of no case by name{why}, not read: "
        f"{_some(sorted(names))}"
        for folder, names in sorted(strays.items())
    ]


def notes_on_passed_over(
    cases: Sequence[Case], found: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Case -> a note on the volumes beside its files.

    What lies beside the files of every case, such as channels that a study leaves out, is noted
    for unlabelled cases alone, whose label map it may be. What a layout itself notes
    (``Case.extra``) is not noted twice.
    """
    counts = Counter(end for name, others in found.items() for end in _endings(name, others))
    notes: dict[str, tuple[str, ...]] = {}
    for case in cases:
        others = [
            other
            for other, end in zip(
                found.get(case.name, ()),
                _endings(case.name, found.get(case.name, ())),
                strict=True,
            )
            if case.label is None or (counts[end] < len(cases) and not _is_extra(end, case.extra))
        ]
        if others:
            notes[case.name] = (f"not read, beside its files: {_some(others)}",)
    return notes


def with_passed_over(problem: InputError, others: Sequence[str]) -> InputError:
    """The problem of a case that may be one of its files called otherwise, with their names."""
    if not others or type(problem) is not InputError:
        return problem
    found = f"{problem.found}; not read, beside its files: {_some(others)}"
    return InputError(problem.where, found, problem.expected, problem.fix)


def _unread(cases: Iterable[Case], further: Iterable[Path] = ()) -> dict[Path, str | None]:
    """Volumes that no case reads, in the folders of cases and in further ones -> whose they are."""
    used: set[Path] = set()
    owners: defaultdict[Path, set[str]] = defaultdict(set, {folder: set() for folder in further})
    for case in cases:
        for file in _files(case):
            used.add(file)
            owners[file.parent].add(case.name)
    return {
        file: _owner(file, names)
        for folder, names in owners.items()
        for file in _volumes(folder)
        if file not in used
    }


def _files(case: Case) -> set[Path]:
    sources = [*case.channels.values(), *([case.label] if case.label else [])]
    return {source.file for source in sources}


def _volumes(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [
                e.name for e in entries if is_volume(e.name) and e.name[0] != "." and not e.is_dir()
            ]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _written(file: Path) -> str:
    """A file's name as it can be written down, whatever bytes it holds."""
    return os.fsencode(file.name).decode(errors="replace")


def _owner(file: Path, cases: Iterable[str]) -> str | None:
    own = list(cases)
    if len(own) == 1 and file.parent.name not in (*TRAINING, *TESTS):
        return own[0]
    starts = [case for case in own if file.name.startswith(tuple(case + mark for mark in MARKS))]
    return max(starts, key=len, default=None)


def _endings(case: str, others: Sequence[str]) -> list[str]:
    return [other.removeprefix(case) for other in others]


def _is_extra(end: str, extra: Sequence[str]) -> bool:
    return end.lstrip("_-").split(".")[0] in extra


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return listed([*names[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])
