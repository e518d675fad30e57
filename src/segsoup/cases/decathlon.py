"""Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr`` and ``labelsTr``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segsoup.cases.case import Case, Source
from segsoup.cases.descriptions import check_channel_count, inside, read_description
from segsoup.errors import InputError
from segsoup.volumes import without_suffix


def find_cases(root: Path, channels: list[str]) -> list[Case]:
    """The training cases of ``dataset.json``, sorted by name.

    Args:
        root: folder of the data set.
        channels: names for its modalities, in order; several lie in one 4D file.

    Raises:
        InputError: if ``dataset.json`` is missing, broken, or describes other channels.
    """
    where = root / "dataset.json"
    description = read_description(root)
    modalities = description.get("modality", description.get("channel_names", {}))
    check_channel_count(where, modalities, channels)
    entries = description.get("training")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(where, "has no list `training`", "a list of cases", "mend the file")
    cases = [_case(root, entry, channels, where) for entry in entries]
    return sorted(cases, key=lambda case: case.name)


def _case(root: Path, entry: dict[str, Any], channels: list[str], where: Path) -> Case:
    image = inside(root, entry.get("image"), where)
    label = inside(root, entry["label"], where) if entry.get("label") else None
    several = len(channels) > 1
    sources = {
        channel: Source(image, number if several else None)
        for number, channel in enumerate(channels)
    }
    name = without_suffix(image.name)
    return Case(name, sources, Source(label) if label else None)
