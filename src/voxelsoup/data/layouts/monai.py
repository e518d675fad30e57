"""A MONAI datalist: JSON with lists of entries that name their ``image`` and ``label``.

First the cases of a datalist, then the case that a single entry stands for, which splits into folds
and plain files use as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.case_names import unsafe_text
from voxelsoup.data.layouts.channel_names import (
    ChannelMatch,
    match_channels,
    match_endings,
    names_in_order,
    says_nothing,
)
from voxelsoup.data.layouts.json_files import (
    channels_of_one_file,
    entries_of,
    inside,
    places_of_channels,
    read_description,
    shown,
    unlabelled_entries,
)
from voxelsoup.data.layouts.listed_files import with_checked_endings
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
    lists = _lists(description, dataset, where)
    described = description.get("modality", description.get("channel_names"))
    images = [entry.get("image") for entries in lists.values() for entry in entries]
    channels = _DatalistChannels(
        dataset,
        where,
        names_in_order(described, where) if isinstance(described, dict | list) else None,
        shared_endings([image for image in images if isinstance(image, list)]),
    )
    for key, entries in lists.items():
        for position, entry in enumerate(entries):
            place = f"entry {position} of `{key}`"
            cases.append(_case(root, entry, channels, place))
    return sorted(cases, key=lambda case: case.name)


@dataclass(frozen=True)
class _DatalistChannels:
    """What a datalist says of its channels.

    Attributes:
        described: their names, in the order of each image; None where it names none.
        shared: what the files of most entries end in (``shared_endings``).
    """

    dataset: Dataset
    where: Path
    described: list[str] | None
    shared: list[str] | None

    def match(self, count: int, names: list[str] | None) -> ChannelMatch:
        """Where the study's channels are, of ``count`` files or components."""
        known = names if names and len(names) == count else [str(n) for n in range(count)]
        return places_of_channels(self.dataset, known, self.where)


def shared_endings(images: Sequence[Sequence[Any]]) -> list[str] | None:
    """What the names of most entries' files end in, in their order: `t1n` of `a/p_1-t1n.nii.gz`.

    None where they share no endings, or endings that are numbers.
    """
    ends = Counter(tuple(_ending(str(file)) for file in files) for files in images)
    common, count = ends.most_common(1)[0] if ends else ((), 0)
    known = len(set(common)) == len(common) > 1 and not any(map(says_nothing, common))
    same = all(set(one) == set(common) for one in ends)
    return list(common) if known and (same or count > sum(ends.values()) / 2) else None


def _ending(file: str) -> str:
    return re.split(r"[-_]", PurePosixPath(file).name.split(".")[0])[-1]


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


def _case(root: Path, entry: dict[str, Any], channels: _DatalistChannels, place: str) -> Case:
    image, where = entry.get("image"), channels.where
    label = entry.get("label")
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if isinstance(image, list):
        sources, notes = _channels_of_files(root, image, channels, place)
        components = None
    else:
        file = inside(root, image, where, place)
        components = len(channels.described or channels.dataset.channels)
        match = channels.match(components, channels.described)
        sources, notes = channels_of_one_file(file, match.places, components), match.remarks
    name = case_name(entry)
    assert name is not None, "an entry with an image has a name"
    case = Case(
        name,
        sources,
        Source(inside(root, label, where, place)) if label else None,
        patient=_patient(entry, where, place),
        components=components,
        notes=notes,
    )
    return with_checked_endings(case, channels.dataset, f"{place} of {where}")


def _channels_of_files(
    root: Path, image: list[Any], channels: _DatalistChannels, place: str
) -> tuple[dict[str, Source], tuple[str, ...]]:
    """The channels of an entry with a file for each, and what was assumed.

    Where the datalist names no channels, the endings of the entry's own files decide.
    """
    wanted, where = channels.dataset.channels, channels.where
    count = len(channels.described or wanted)
    if len(image) != count:
        raise InputError(
            where,
            f"{place} names {len(image)} image file(s), and the study {len(wanted)} "
            f"channel(s): {wanted}",
            "one file per channel in a list, or one file with all channels as a text",
            "correct the entry, or `dataset.channels` in the study",
        )
    files = [inside(root, file, where, place) for file in image]
    stems = [without_suffix(file.name) for file in files]
    ends = match_endings(stems, wanted)
    own = {ends[stem][1]: n for n, stem in enumerate(stems) if stem in ends}
    if channels.described is None and not channels.dataset.channel_names and len(own) == len(files):
        match = ChannelMatch({name: own[name] for name in wanted})
        usual = match_channels(wanted, channels.shared, where) if channels.shared else match
        if usual.places != match.places:
            note = f"{place} lists its channels in another order than most: its file names decide"
            match = replace(match, remarks=(note,))
    else:
        match = channels.match(len(files), channels.described or channels.shared)
    return {name: Source(files[n]) for name, n in match.places.items()}, match.remarks


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
