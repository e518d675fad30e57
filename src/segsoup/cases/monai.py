"""A MONAI datalist: JSON with lists of entries that name their ``image`` and ``label``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segsoup.cases.case import Case, Source
from segsoup.cases.descriptions import (
    channels_of_one_file,
    entries_of,
    inside,
    read_description,
    shown,
    training_entries,
    unlabelled_entries,
)
from segsoup.cases.entries import case_name
from segsoup.cases.names import unsafe_text
from segsoup.errors import InputError
from segsoup.study import Dataset

PATIENTS = ("patient", "patient_id", "subject")
TESTS = ("testing", "test")


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The cases of a datalist, sorted by name, see ``case_name`` for their names.

    They are those of ``training`` and the labelled ones of ``validation``; where unlabelled cases
    are to be predicted, the others of ``validation`` and those of ``testing`` as well. A label
    that is given for the latter is not used.

    Args:
        dataset: its file (by default dataset.json in ``root``), and its channels: an image is
            one file with all of them, or a list with one file for each in this order.
        root: folder of the data set, which all paths are relative to.

    Raises:
        InputError: if the file is missing, broken, or names other files or channels.
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
    lists = {"training": training_entries(description, where)}
    lists["validation"] = []
    for position, entry in enumerate(entries_of(description, "validation", where)):
        if not isinstance(entry, dict):
            raise InputError(
                where,
                f"has {shown(entry)} as entry {position} of `validation`",
                "an object with `image` and `label`",
                "correct the entry",
            )
        if everything or entry.get("label"):
            lists["validation"].append(entry)
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
