"""nnU-Net v2 raw: ``dataset.json``, ``imagesTr/{case}_0000.nii.gz``, ``labelsTr/{case}.nii.gz``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.json_files import check_channel_count, inside, read_description, shown
from voxelsoup.data.volumes.volume import SUFFIXES
from voxelsoup.study.sections.data import Dataset

CHANNEL_FILE = re.compile(r"(?P<case>.+)_(?P<channel>[0-9]{4})", re.DOTALL)


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The training cases, sorted by name: every name that has an image or a label.

    ``dataset.json`` may list them in an object ``dataset`` (case -> its ``images`` and its
    ``label``), which then stands for the folders. Where unlabelled cases are to be predicted,
    the cases of ``imagesTs`` are listed as well, without label: a ``labelsTs`` is not used. The
    study names the channels 0000, 0001, ... in order.

    Raises InputError if ``dataset.json`` is missing, broken, or describes other channels.
    """
    where = root / "dataset.json"
    description = read_description(where)
    check_channel_count(where, description.get("channel_names", {}), dataset.channels)
    ending = _ending(description, where)
    listed = description.get("dataset")
    if listed is None:
        cases = _training_cases(dataset, root, ending)
    else:
        cases = _listed_cases(listed, root, dataset.channels, where)
    if dataset.unlabelled == "predict":
        files = _channel_files(root / "imagesTs", ending)
        cases += [_case(name, root, "imagesTs", files, dataset, ending, None) for name in files]
    return sorted(cases, key=lambda case: case.name)


def _ending(description: dict[str, Any], where: Path) -> str:
    ending = description.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or ending not in SUFFIXES:
        raise InputError(
            where,
            f"says that its files end in {shown(ending)}",
            " or ".join(SUFFIXES),
            "convert the volumes to NIfTI and correct `file_ending`",
        )
    return ending


def _training_cases(dataset: Dataset, root: Path, ending: str) -> list[Case]:
    files = _channel_files(root / "imagesTr", ending)
    labels = {name: Source(root / "labelsTr" / f"{name}{ending}") for name in files}
    # A label without images is a case too, which the check reports as bad.
    there = {path.name[: -len(ending)]: Source(path) for path in _files(root / "labelsTr", ending)}
    # So is a missing label, unless cases without one are wanted.
    known = there if dataset.unlabelled == "predict" else labels | there
    return [
        _case(name, root, "imagesTr", files, dataset, ending, known.get(name))
        for name in {**labels, **there}
    ]


def _files(folder: Path, ending: str) -> list[Path]:
    # Files that begin with a dot are what macOS leaves in archives.
    return [path for path in folder.glob(f"*{ending}") if not path.name.startswith(".")]


def _channel_files(folder: Path, ending: str) -> dict[str, list[int]]:
    """Case -> the numbers of its channels that have a file."""
    found: dict[str, list[int]] = {}
    for path in _files(folder, ending):
        match = CHANNEL_FILE.fullmatch(path.name[: -len(ending)])
        if match:
            found.setdefault(match["case"], []).append(int(match["channel"]))
    return found


def _case(
    name: str,
    root: Path,
    folder: str,
    files: dict[str, list[int]],
    dataset: Dataset,
    ending: str,
    label: Source | None,
) -> Case:
    def file(number: int) -> Path:
        return root / folder / f"{name}_{number:04d}{ending}"

    last, count, problem = max(files.get(name, [0])), len(dataset.channels), None
    if last >= count:
        problem = InputError(
            file(last),
            f"is a channel beyond the {count} that dataset.json describes",
            f"channels 0000 to {count - 1:04d}",
            "remove the file, or describe its channel in `channel_names` and `dataset.channels`",
        )
    channels = {channel: Source(file(number)) for number, channel in enumerate(dataset.channels)}
    return Case(name, channels, label, problem=problem)


def _listed_cases(listed: object, root: Path, channels: list[str], where: Path) -> list[Case]:
    if not isinstance(listed, dict) or not all(isinstance(e, dict) for e in listed.values()):
        raise InputError(
            where,
            f"has {shown(listed)} as `dataset`",
            "case -> an object with `images` and `label`",
            "fix the file",
        )
    return [_listed_case(name, entry, root, channels, where) for name, entry in listed.items()]


def _listed_case(
    name: str, entry: dict[str, Any], root: Path, channels: list[str], where: Path
) -> Case:
    images = entry.get("images")
    if not isinstance(images, list) or len(images) != len(channels):
        raise InputError(
            where,
            f"has {shown(images)} as the `images` of {shown(name)}",
            f"a list of {len(channels)} files, one per channel",
            "correct the entry",
        )
    place = f"`dataset` of {shown(name)}"
    files = [inside(root, image, where, place) for image in images]
    label = entry.get("label")
    return Case(
        name,
        {channel: Source(file) for channel, file in zip(channels, files, strict=True)},
        None if label is None else Source(inside(root, label, where, place)),
    )
