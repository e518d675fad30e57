"""The entries of a MONAI datalist: which case each of them stands for."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

from segsoup.volumes import without_suffix

NAMES = ("case", "name")
# What stands between the parts of a file name: case_flair, case-t1n, case.t2.
BETWEEN = re.compile(r"([_.\-]+)")


def case_name(entry: dict[str, Any]) -> str | None:
    """The name of an entry's case; None if the entry has neither a name nor files.

    It is, in this order: the field ``case`` or ``name``; the folder's name, where the names of
    all image files begin with it (BraTS); what the names of several image files have in common;
    the folder's name of several image files; the name of the one image file. Without images the
    label stands for them.
    """
    named = _named(entry)
    files = _paths(entry.get("image")) or _paths(entry.get("label"))
    if named is not None or not files:
        return named
    stems = [without_suffix(file.name) for file in files]
    folders = {file.parent.name for file in files}
    folder = folders.pop() if len(folders) == 1 else ""
    if folder and all(_begins(stem, folder) for stem in stems):
        return folder
    return (_in_common(stems) or folder or stems[0]) if len(stems) > 1 else stems[0]


def known_case(entry: dict[str, Any], known: Collection[str]) -> str | None:
    """The one of some known cases that an entry stands for; None if it is none of them.

    By its name, and otherwise the longest one that its files or their folders bear.
    """
    name = case_name(entry)
    if name in known or _named(entry) is not None:
        return name if name in known else None
    texts = [text for file in _files(entry) for text in (file.name, file.parent.name)]
    matches = {case for text in texts for case in known if case in text and _bears(text, case)}
    return max(matches, key=lambda case: (len(case), case), default=None)


def describe(entry: dict[str, Any]) -> str:
    """An entry in words, for messages: its name or its first file."""
    files = _files(entry)
    return _named(entry) or (str(files[0]) if files else "an entry without `case` and `image`")


def _named(entry: dict[str, Any]) -> str | None:
    return next((entry[key] for key in NAMES if isinstance(entry.get(key), str)), None)


def _files(entry: dict[str, Any]) -> list[PurePosixPath]:
    return _paths(entry.get("image")) + _paths(entry.get("label"))


def _paths(value: object) -> list[PurePosixPath]:
    texts = value if isinstance(value, list) else [value]
    return [PurePosixPath(text.replace("\\", "/")) for text in texts if isinstance(text, str)]


def _begins(text: str, case: str) -> bool:
    # Bounded, so that `case_10_t1` does not begin with `case_1`.
    return text.startswith(case) and not text[len(case) :][:1].isalnum()


def _in_common(stems: list[str]) -> str:
    """The parts that several names begin with: `p_1` of `p_1_t1` and `p_1_t1ce`."""
    parts = [BETWEEN.split(stem) for stem in stems]
    shared = []
    for several in zip(*parts, strict=False):
        if len(set(several)) > 1:
            break
        shared.append(several[0])
    return "".join(shared).rstrip("_.-")


def _bears(text: str, case: str) -> bool:
    # Bounded, so that `case_1` is not found in `case_10.nii.gz`.
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(case)}(?![A-Za-z0-9])", text) is not None
