"""BraTS: one folder per case, one file per channel.

2023 and later: ``BraTS-GLI-00005-000/BraTS-GLI-00005-000-t1n.nii.gz`` and ``-seg``; 2018 to
2021: ``BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz`` and ``_seg``; meningiomas before
radiotherapy: ``BraTS-MEN-RT-0000-1/BraTS-MEN-RT-0000-1_t1c.nii.gz`` and ``_gtv``.
"""

from __future__ import annotations

import os
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.case_names import FORMER_RECORDS, RECORDS
from voxelsoup.data.layouts.channel_names import is_known, is_mask_name, match_channels, meaning
from voxelsoup.data.volumes.volume import without_suffix
from voxelsoup.study.sections.data import Dataset

# The visit at the end of a name from BraTS 2023 on, and of the phantom's names. Only behind a
# patient's number: sub-001 and sub-002 are two patients.
PATIENT_PATTERN = r"^(.+-\d+)-\d{3}$"

# Archives wrap the cases in folders of their own, and 2018 and 2019 group them by grade.
FOLDERS_ABOVE = 4
LABELS = ("seg", "gtv")
ENDINGS = (".nii", ".nii.gz")
# A file that fewer of the cases have is an extra of theirs, not a channel of the data set.
SHARE_OF_CASES = 0.75


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """Cases below ``root``, with up to four folders in between, sorted by name.

    A folder is a case if it holds volumes, or nothing at all beside folders that are cases. The
    study's channels are what stands in the file names (t1n, t1ce, ...), or synonyms of it. Files
    that are missing, or do not begin with the folder's name, are found missing when the case is
    checked; a file that is there both as .nii and as .nii.gz is a case's problem.

    Raises InputError if channels that no case has can only be others by name.
    """
    files = {stem: _by_suffix(stem) for stem in stems(root)}
    renamed, notes = _renamed(list(files.values()), dataset, root)
    cases = [_case(stem, found, dataset, renamed, notes) for stem, found in files.items()]
    return sorted(cases, key=lambda case: case.name)


def stems(root: Path) -> list[Path]:
    """For each case its folder, and what the names of its files begin with: the folder's name."""
    found = _cases_below(root, FOLDERS_ABOVE, set())
    usual = next((mark for mark in found.values() if mark), "-")
    return [folder / f"{folder.name}{mark or usual}" for folder, mark in found.items()]


def _by_suffix(stem: Path) -> dict[str, list[str]]:
    """What follows the beginning in the names of a case's volumes -> these names."""
    files: dict[str, list[str]] = {}
    for name in sorted(_volumes(stem.parent)):
        if name.startswith(stem.name):
            files.setdefault(without_suffix(name).removeprefix(stem.name), []).append(name)
    return files


def _renamed(
    files: list[dict[str, list[str]]], dataset: Dataset, root: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Channel -> what all files of it end in, where that is no synonym; and what was assumed."""
    stated = dataset.stated_channels
    seen = {suffix for found in files for suffix in found}
    known = {meaning(suffix) for suffix in seen}
    missing = [n for n in dataset.channels if n not in stated and meaning(n) not in known]
    if not missing and not stated:
        return {}, ()
    shared = [s for s in sorted(seen) if sum(s in f for f in files) >= SHARE_OF_CASES * len(files)]
    there = [suffix for suffix in shared if suffix not in LABELS and not is_mask_name(suffix)]
    if len(missing) < len(dataset.channels) and all(map(is_known, missing)):
        # A known channel that no case has is missing; another known one is no stand-in for it.
        wanted = {meaning(name) for name in dataset.channels}
        there = [
            s for s in there if s in stated.values() or not is_known(s) or meaning(s) in wanted
        ]
    if not there:
        return {}, ()
    match = match_channels(dataset.channels, there, root, stated)
    changed = {name: there[place] for name, place in match.places.items()}
    chosen = {name: suffix for name, suffix in changed.items() if name in (*missing, *stated)}
    return chosen, match.remarks if missing else ()


def _cases_below(group: Path, depth: int, visited: set[str]) -> dict[Path, str | None]:
    """Folders that are cases -> the mark in their file names; None where no file bears the name."""
    # A link to a folder above would give every case twice.
    place = os.path.realpath(group)
    if place in visited:
        return {}
    visited.add(place)
    folders = _folders(group)
    marks = {folder: _mark(folder) for folder in folders}
    found: dict[Path, str | None] = {folder: mark for folder, mark in marks.items() if mark}
    beside_cases = bool(found)
    for folder in folders:
        if marks[folder] is None:
            inner = _cases_below(folder, depth - 1, visited) if depth else {}
            # A folder of cases may hold a volume of its own, such as an atlas; another one without
            # volumes of its own name, or without anything, is a case to be reported as bad.
            broken = _volumes(folder) or (beside_cases and not any(folder.iterdir()))
            if any(inner.values()) or not broken:
                found |= inner
            else:
                found[folder] = None
    return found


def _folders(folder: Path) -> list[Path]:
    """Folders that may be cases or hold some; what ``voxelsoup predict`` wrote is neither."""
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    records = (RECORDS, FORMER_RECORDS)
    return sorted(f for f in folders if not any((f / name).is_dir() for name in records))


def _volumes(folder: Path) -> set[str]:
    """Names of the volumes in a folder; without what macOS leaves, and folders of such names."""
    with os.scandir(folder) as entries:
        return {
            entry.name
            for entry in entries
            if entry.name.lower().endswith(ENDINGS)
            and not entry.name.startswith(".")
            and entry.is_file()
        }


def _mark(folder: Path) -> str | None:
    """The sign between the folder's name and the channel in its file names: - or _."""
    ends = {n[len(folder.name) :][:1] for n in _volumes(folder) if n.startswith(folder.name)}
    return next((mark for mark in "-_" if mark in ends), None)


def _case(
    stem: Path,
    files: dict[str, list[str]],
    dataset: Dataset,
    renamed: dict[str, str],
    notes: tuple[str, ...],
) -> Case:
    folder, channels = stem.parent, dataset.channels
    labels = [suffix for suffix in LABELS if suffix in files]
    used = {name: _suffixes_of(name, files, channels, renamed) for name in channels}
    taken = {suffix for suffixes in used.values() for suffix in suffixes}
    # As they can be written down, whatever bytes they hold.
    extra = [os.fsencode(s).decode(errors="replace") for s in {*files} - {*taken, *LABELS}]

    def source(suffix: str) -> Source:
        return Source(folder / files.get(suffix, [f"{stem.name}{suffix}.nii.gz"])[0])

    alternatives = [[n for s in suffixes for n in files.get(s, [])] for suffixes in used.values()]
    return Case(
        folder.name,
        {channel: source(suffixes[0]) for channel, suffixes in used.items()},
        source(labels[0]) if labels else None,
        problem=_ambiguous(folder, alternatives)
        or _ambiguous(folder, [[name for suffix in labels for name in files[suffix]]]),
        extra=tuple(sorted(extra)),
        notes=notes,
    )


def _suffixes_of(
    name: str, files: dict[str, list[str]], channels: list[str], renamed: dict[str, str]
) -> list[str]:
    """What the files of a channel may end in: the stated or its own name, else its synonyms."""
    if name in renamed or name in files:
        return [renamed.get(name, name)]
    alike = [s for s in files if s not in channels and meaning(s) == meaning(name)]
    return alike or [name]


def _ambiguous(folder: Path, alternatives: list[list[str]]) -> InputError | None:
    """The problem where several files could be the same volume."""
    several = next((names for names in alternatives if len(names) > 1), None)
    if several is None:
        return None
    return InputError(
        folder,
        f"holds both {several[0]} and {several[1]}",
        "one file per channel, and one label map",
        "remove or rename one of the files",
    )
