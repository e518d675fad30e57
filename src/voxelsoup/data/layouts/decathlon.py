"""Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr`` and ``labelsTr``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.channel_names import ChannelMatch, names_in_order
from voxelsoup.data.layouts.json_files import (
    channels_of_one_file,
    entries_of,
    inside,
    places_of_channels,
    read_description,
    unlabelled_entries,
)
from voxelsoup.data.layouts.nnunet import lists_version_1
from voxelsoup.data.volumes.volume import without_suffix
from voxelsoup.study.sections.data import Dataset


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The training cases of ``dataset.json``, sorted by name, and its ``test`` images if wanted.

    The study's channels are found among the modalities by their names; several lie in one 4D file.

    Raises InputError if ``dataset.json`` is missing, broken, or describes other channels.
    """
    where = root / "dataset.json"
    description = read_description(where)
    modalities = description.get("modality", description.get("channel_names", {}))
    there = names_in_order(modalities, where)
    match = places_of_channels(dataset, there, where)
    if lists_version_1(root, description):
        raise InputError(
            where,
            "is of nnU-Net v1 raw data: for each image that it lists there are files of channels, "
            "such as CASE_0000.nii.gz",
            "one file per image, in the `decathlon` layout",
            "set `dataset.layout: nnunet`",
        )
    entries = entries_of(description, "training", where)
    if dataset.unlabelled == "predict":
        entries = entries + unlabelled_entries(description, "test", where)
    cases = [_case(root, entry, match, len(there), where) for entry in entries]
    return sorted(cases, key=lambda case: case.name)


def _case(
    root: Path, entry: dict[str, Any], match: ChannelMatch, components: int, where: Path
) -> Case:
    image = inside(root, entry.get("image"), where)
    label = inside(root, entry["label"], where) if entry.get("label") else None
    return Case(
        without_suffix(image.name),
        channels_of_one_file(image, match.places, components),
        Source(label) if label else None,
        components=components,
        notes=match.remarks,
    )
