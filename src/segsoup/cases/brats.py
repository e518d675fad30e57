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

    A folder is a case if it holds a file that begins with its own name. Files that are missing
    are found missing when the case is checked.

    Args:
        root: folder of the data set.
        channels: what stands in the file names (t1n, t1ce, ...).
    """
    folders = sorted({path for pattern in ("*", "*/*") for path in root.glob(pattern)})
    cases = [_case(folder, channels) for folder in folders if folder.is_dir() and _marks(folder)]
    return sorted(cases, key=lambda case: case.name)


def _marks(folder: Path) -> set[str]:
    """Which of - and _ stand between the case's name and the channel in its file names."""
    names = (path.name for path in folder.glob("*.nii*"))
    ends = (name[len(folder.name) :] for name in names if name.startswith(folder.name))
    return {end[0] for end in ends if end[:1] in ("-", "_")}


def _case(folder: Path, channels: list[str]) -> Case:
    mark = "-" if "-" in _marks(folder) else "_"

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
