"""Volumes beside the files of a case that no case reads: a label map called otherwise, a copy."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import listed
from voxelsoup.data.case import Case
from voxelsoup.data.volumes.volume import is_volume

# Where a longer name than the case's own goes on.
MARKS = ("_", "-", ".")
MOST_NAMED = 5


def volumes_passed_over(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Case -> names of volumes that lie beside its files and that no case reads, sorted.

    In a folder of one case all of them are its own; in a folder of several, those that begin with
    its name. Hidden files and folders that cannot be read are left alone.
    """
    files = {case.name: _files(case) for case in cases}
    used = {file for own in files.values() for file in own}
    owners: defaultdict[Path, set[str]] = defaultdict(set)
    for name, own in files.items():
        for file in own:
            owners[file.parent].add(name)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for folder, names in owners.items():
        for file in _volumes(folder):
            owner = None if file in used else _owner(file.name, names)
            if owner is not None:
                # As it can be written down, whatever bytes it holds.
                found[owner].append(os.fsencode(file.name).decode(errors="replace"))
    return {name: sorted(others) for name, others in found.items()}


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


def _files(case: Case) -> set[Path]:
    sources = [*case.channels.values(), *([case.label] if case.label else [])]
    return {source.file for source in sources}


def _volumes(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if is_volume(e.name) and e.name[0] != "."]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _owner(name: str, cases: Iterable[str]) -> str | None:
    own = list(cases)
    if len(own) == 1:
        return own[0]
    starts = [case for case in own if name.startswith(tuple(case + mark for mark in MARKS))]
    return max(starts, key=len, default=None)


def _endings(case: str, others: Sequence[str]) -> list[str]:
    return [other.removeprefix(case) for other in others]


def _is_extra(end: str, extra: Sequence[str]) -> bool:
    return end.lstrip("_-").split(".")[0] in extra


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return listed([*names[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])
