"""A MONAI datalist: JSON with lists of entries that name their ``image`` and ``label``.

First the cases of a datalist, then the case that a single entry stands for, which splits into folds
and plain files use as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.case_names import unsafe_text
from voxelsoup.data.layouts.json_files import (
    channels_of_one_file,
    entries_of,
    inside,
    read_description,
    shown,
    unlabelled_entries,
)
from voxelsoup.data.volumes.volume import without_suffix
from voxelsoup.study.sections.data import Dataset

PATIENTS = ("patient", "patient_id", "subject")
TESTS = ("testing", "test")
NAMES = ("case", "name")
# What stands between the parts of a file name: case_flair, case-t1n, case.t2.
BETWEEN = re.compile(r"([_.\-]+)")


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The cases of a datalist, sorted by name, see ``case_name`` for their names.

    They are those of ``training`` and the labelled ones of ``validation``; where unlabelled cases
    are to be predicted, the others of ``validation`` and those of ``testing`` as well, whose labels
    are not used. Paths are relative to ``root``. An image is one file with all channels, or a list
    with one file for each in the study's order.

    Raises:
        InputError: if the file (by default dataset.json in ``root``) is missing, broken, or names
            other files or channels.
    """
    where = Path(dataset.file) if dataset.file is not None else root / "dataset.json"
    description = read_description(where)
    cases = []
    for key, entries in _lists(description, dataset, where).items():
        for position, entry in enumerate(entries):
            place = f"entry {position} of `{key}`"
            cases.append(_case(root, entry, dataset.channels, where, place))
    return sorted(cases, key=lambda case: case.name)


def _lists(
    description: dict[str, Any], dataset: Dataset, where: Path
) -> dict[str, list[dict[str, Any]]]:
    """Name of a list -> those of its entries that are cases of the study."""
    everything = dataset.unlabelled == "predict"
    lists = {"training": entries_of(description, "training", where)}
    checked = entries_of({"validation": [], **description}, "validation", where)
    lists["validation"] = [entry for entry in checked if everything or entry.get("label")]
    if everything:
        lists |= {key: unlabelled_entries(description, key, where) for key in TESTS}
    return lists


def _case(root: Path, entry: dict[str, Any], channels: list[str], where: Path, place: str) -> Case:
    sources = _channels(root, entry.get("image"), channels, where, place)
    label = entry.get("label")
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    name = case_name(entry)
    assert name is not None, "an entry with an image has a name"
    return Case(
        name,
        sources,
        Source(inside(root, label, where, place)) if label else None,
        patient=_patient(entry, where, place),
        components=None if isinstance(entry.get("image"), list) else len(channels),
    )


def _channels(
    root: Path, image: object, channels: list[str], where: Path, place: str
) -> dict[str, Source]:
    if not isinstance(image, list):
        return channels_of_one_file(inside(root, image, where, place), channels)
    if len(image) != len(channels):
        raise InputError(
            where,
            f"{place} names {len(image)} image file(s), and the study {len(channels)} "
            f"channel(s): {channels}",
            "one file per channel in a list, or one file with all channels as a text",
            "correct the entry, or `dataset.channels` in the study",
        )
    files = [inside(root, file, where, place) for file in image]
    return {channel: Source(file) for channel, file in zip(channels, files, strict=True)}


def _patient(entry: dict[str, Any], where: Path, place: str) -> str | None:
    value = next((entry[key] for key in PATIENTS if entry.get(key) is not None), None)
    if value is None:
        return None
    # Patients are often numbered; True and 1 would be one number.
    is_name = isinstance(value, str | int) and not isinstance(value, bool)
    patient = str(value).strip() if is_name else ""
    if not patient or unsafe_text(patient) is not None:
        raise InputError(
            where,
            f"{place} gives the patient as {shown(value)}",
            "a name or a number",
            "correct the entry",
        )
    return patient


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
    """The known case that an entry refers to; None if there is none.

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
