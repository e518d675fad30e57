"""BraTS: one folder per case, one file per channel.

2023 and later: ``BraTS-GLI-00005-000/BraTS-GLI-00005-000-t1n.nii.gz`` and ``-seg``; 2020 and
2021: ``BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz`` and ``_seg``.
"""

from __future__ import annotations

from pathlib import Path

from segsoup.cases.case import Case, Source

# The visit at the end of a name from BraTS 2023 on, and of the phantom's names. Only behind a
# patient's number: sub-001 and sub-002 are two patients.
PATIENT_PATTERN = r"^(.+-\d+)-\d{3}$"


def find_cases(root: Path, channels: list[str]) -> list[Case]:
    """Cases below ``root``, up to two folders deep, sorted by name.

    A folder is a case if it holds volumes, or nothing at all beside folders that are cases.
    Files that are missing, or that do not begin with the folder's name, are found missing when
    the case is checked.

    Args:
        root: folder of the data set.
        channels: what stands in the file names (t1n, t1ce, ...).
    """
    found: dict[Path, str] = {}
    for group in [root, *_folders(root)]:
        if group not in found:
            found |= _cases_of(group)
    cases = [_case(folder, mark, channels) for folder, mark in found.items()]
    return sorted(cases, key=lambda case: case.name)


def _cases_of(group: Path) -> dict[Path, str]:
    """The folders of a group that are cases -> the mark in their file names, see ``_mark``."""
    folders = _folders(group)
    marks = {folder: mark for folder in folders if (mark := _mark(folder))}
    usual = next(iter(marks.values()), "-")
    others = [folder for folder in folders if folder not in marks]
    return marks | {f: usual for f in others if _is_broken_case(f, beside_cases=bool(marks))}


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _volumes(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.nii*") if not path.name.startswith(".")]


def _mark(folder: Path) -> str | None:
    """What stands between the folder's name and the channel in its file names: - or _."""
    ends = {n[len(folder.name) :][:1] for n in _volumes(folder) if n.startswith(folder.name)}
    return next((mark for mark in "-_" if mark in ends), None)


def _is_broken_case(folder: Path, beside_cases: bool) -> bool:
    """Whether a folder without a volume of its own name is a case, to be told of."""
    if not any(folder.iterdir()):
        return beside_cases
    # A folder of cases may hold a volume of its own, such as an atlas.
    return bool(_volumes(folder)) and not any(_mark(inner) for inner in _folders(folder))


def _case(folder: Path, mark: str, channels: list[str]) -> Case:
    def source(suffix: str) -> Source:
        stem = folder / f"{folder.name}{mark}{suffix}"
        plain = stem.with_name(stem.name + ".nii")
        return Source(plain if plain.is_file() else stem.with_name(stem.name + ".nii.gz"))

    label = source("seg")
    return Case(
        folder.name,
        {channel: source(channel) for channel in channels},
        label if label.file.is_file() else None,
    )
