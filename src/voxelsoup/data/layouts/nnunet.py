"""nnU-Net raw: ``dataset.json``, ``imagesTr/{case}_0000.nii.gz``, ``labelsTr/{case}.nii.gz``.

Version 2 names the channels in ``channel_names``. Version 1 names them in ``modality`` as the
Decathlon does, and lists the cases in ``training`` without the numbers of their channels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.channel_names import ChannelMatch, names_in_order
from voxelsoup.data.layouts.json_files import (
    entries_of,
    inside,
    places_of_channels,
    read_description,
    shown,
)
from voxelsoup.data.layouts.listed_files import with_checked_endings
from voxelsoup.data.volumes.volume import SUFFIXES, without_suffix
from voxelsoup.study.sections.data import Dataset

CHANNEL_FILE = re.compile(r"(?P<case>.+)_(?P<channel>[0-9]{4})", re.DOTALL)


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The training cases, sorted by name: every name that has an image or a label.

    ``dataset.json`` may list them in an object ``dataset`` (case -> its ``images`` and its
    ``label``), which then stands for the folders, and so does the list of version 1. Where
    unlabelled cases are to be predicted, the cases of ``imagesTs`` are listed as well, without
    label: a ``labelsTs`` is not used. The study's channels are found among those of
    ``dataset.json`` by their names. Where there is only one, ``CASE_0001.nii.gz`` is a case of that
    name.

    Raises InputError if ``dataset.json`` is missing, broken, or describes other channels.
    """
    where = root / "dataset.json"
    description = read_description(where)
    named = description.get("channel_names", description.get("modality", {}))
    there = names_in_order(named, where)
    channels = _Channels(places_of_channels(dataset, there, where), len(there))
    ending = _ending(description, where)
    listed = description.get("dataset")
    if listed is None and lists_version_1(root, description):
        cases = _version_1_cases(description, root, ending, channels)
    elif listed is None:
        cases = _training_cases(dataset, root, ending, channels)
    else:
        cases = _listed_cases(listed, root, channels, dataset, where)
    if dataset.unlabelled == "predict":
        files = _channel_files(root / "imagesTs", ending, len(there))
        cases += [_case(name, root / "imagesTs", files, channels, ending, None) for name in files]
    return sorted(cases, key=lambda case: case.name)


@dataclass(frozen=True)
class _Channels:
    """The places of the study's channels, and how many the data set has."""

    match: ChannelMatch
    count: int

    def sources(self, files: Sequence[Path]) -> dict[str, Source]:
        return {name: Source(files[place]) for name, place in self.match.places.items()}


def _ending(description: dict[str, Any], where: Path) -> str:
    ending = description.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or ending.lower() not in SUFFIXES:
        raise InputError(
            where,
            f"says that its files end in {shown(ending)}",
            " or ".join(SUFFIXES),
            "convert the volumes to NIfTI and correct `file_ending`",
        )
    return ending


def _training_cases(dataset: Dataset, root: Path, ending: str, channels: _Channels) -> list[Case]:
    # A label without images is a case too, which the check reports as bad.
    there = {path.name[: -len(ending)]: Source(path) for path in _files(root / "labelsTr", ending)}
    files = _channel_files(root / "imagesTr", ending, channels.count, there)
    labels = {name: Source(root / "labelsTr" / f"{name}{ending}") for name in files}
    # So is a missing label, unless cases without one are wanted.
    known = there if dataset.unlabelled == "predict" else labels | there
    return [
        _case(name, root / "imagesTr", files, channels, ending, known.get(name))
        for name in {**labels, **there}
    ]


def lists_version_1(root: Path, description: dict[str, Any]) -> bool:
    """Whether a ``dataset.json`` is of nnU-Net v1: it lists c1.nii.gz, and c1_0000.nii.gz is there.

    In data sets of the Decathlon, most images that are listed are there under their names.
    """
    entries = description.get("training")
    if "channel_names" in description or not isinstance(entries, list):
        return False
    images = [entry.get("image") for entry in entries if isinstance(entry, dict)]
    stems = [without_suffix(PurePosixPath(i).name) for i in images if isinstance(i, str)]
    folder = root / "imagesTr"
    there = {without_suffix(path.name) for path in folder.iterdir()} if folder.is_dir() else set()
    numbered = sum(f"{stem}_0000" in there for stem in stems)
    return numbered > sum(stem in there for stem in stems)


def _version_1_cases(
    description: dict[str, Any], root: Path, ending: str, channels: _Channels
) -> list[Case]:
    where, cases = root / "dataset.json", []
    files: dict[Path, dict[str, dict[int, Path]]] = {}
    for entry in entries_of(description, "training", where):
        image = inside(root, entry.get("image"), where)
        label = inside(root, entry["label"], where) if entry.get("label") else None
        folder, name = image.parent, without_suffix(image.name)
        if folder not in files:
            files[folder] = _channel_files(folder, ending, channels.count)
        source = Source(label) if label else None
        cases.append(_case(name, folder, files[folder], channels, ending, source))
    return cases


def _files(folder: Path, ending: str) -> list[Path]:
    # Files that begin with a dot are what macOS leaves in archives.
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.name.lower().endswith(ending.lower()) and not path.name.startswith("."):
            other = found.setdefault(path.name[: -len(ending)], path)
            if other != path:
                raise InputError(
                    folder,
                    f"holds both {other.name} and {path.name}",
                    "one file of a name",
                    "remove or rename one of the files",
                )
    return list(found.values())


def _channel_files(
    folder: Path, ending: str, count: int, labelled: Collection[str] = ()
) -> dict[str, dict[int, Path]]:
    """Case -> number of a channel -> its file; ``labelled``: cases that have a label map."""
    stems = {path.name[: -len(ending)]: path for path in sorted(_files(folder, ending))}
    if count > 1:
        return cases_by_number(stems)[0]
    own = {stem: {0: path} for stem, path in stems.items() if stem in labelled}
    return own | cases_of_one_channel({s: path for s, path in stems.items() if s not in own})


def cases_by_number(
    stems: Mapping[str, Path],
) -> tuple[dict[str, dict[int, Path]], dict[str, Path]]:
    """Case -> number of a channel -> file, by names that end in it; and the files that do not."""
    found: dict[str, dict[int, Path]] = {}
    others = {}
    for stem, path in stems.items():
        match = CHANNEL_FILE.fullmatch(stem)
        if match:
            found.setdefault(match["case"], {})[int(match["channel"])] = path
        else:
            others[stem] = path
    return found, others


def cases_of_one_channel(stems: Mapping[str, Path]) -> dict[str, dict[int, Path]]:
    """The same where there is one channel: `amos_0001` is a case, unless there is `amos_0000` too.

    A name that comes both with 0000 and with other numbers keeps all of them: it seems to have
    several channels.
    """
    by_number, others = cases_by_number(stems)
    found = {stem: {0: path} for stem, path in others.items()}
    for case, files in by_number.items():
        if 0 in files:
            found[case] = files
        else:
            found |= {f"{case}_{number:04d}": {0: path} for number, path in files.items()}
    return found


def _case(
    name: str,
    folder: Path,
    files: Mapping[str, Mapping[int, Path]],
    channels: _Channels,
    ending: str,
    label: Source | None,
) -> Case:
    own, count, problem = files.get(name, {}), channels.count, None
    last = max(own, default=0)
    if last >= count:
        problem = InputError(
            own[last],
            f"is a channel beyond the {count} that dataset.json describes"
            + (f", beside {own[0].name}" if count == 1 else ""),
            f"channels 0000 to {count - 1:04d}",
            "remove the file, or describe its channel in `channel_names` and `dataset.channels`",
        )
    places = [own.get(n, folder / f"{name}_{n:04d}{ending}") for n in range(count)]
    notes = channels.match.remarks
    return Case(name, channels.sources(places), label, problem=problem, notes=notes)


def _listed_cases(
    listed: object, root: Path, channels: _Channels, dataset: Dataset, where: Path
) -> list[Case]:
    if not isinstance(listed, dict) or not all(isinstance(e, dict) for e in listed.values()):
        raise InputError(
            where,
            f"has {shown(listed)} as `dataset`",
            "case -> an object with `images` and `label`",
            "fix the file",
        )
    cases = (_listed_case(name, entry, root, channels, where) for name, entry in listed.items())
    return [with_checked_endings(case, dataset, f"{where}, `dataset`") for case in cases]


def _listed_case(
    name: str, entry: dict[str, Any], root: Path, channels: _Channels, where: Path
) -> Case:
    images = entry.get("images")
    if not isinstance(images, list) or len(images) != channels.count:
        raise InputError(
            where,
            f"has {shown(images)} as the `images` of {shown(name)}",
            f"a list of {channels.count} files, one per channel",
            "correct the entry",
        )
    place = f"`dataset` of {shown(name)}"
    files = [inside(root, image, where, place) for image in images]
    label = entry.get("label")
    return Case(
        name,
        channels.sources(files),
        None if label is None else Source(inside(root, label, where, place)),
        notes=channels.match.remarks,
    )
