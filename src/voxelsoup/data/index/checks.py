"""The checks of one case, read, compared with itself and with the study; and of one scan that two
cases hold, which would stand in training and test cases at once.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import listed
from voxelsoup.data.case import Case, Source
from voxelsoup.data.volumes.alignment import align, disagreement, is_by_voxels
from voxelsoup.data.volumes.volume import Volume, joint_hash, read_label, read_volumes
from voxelsoup.study.sections.data import Accept

# Kept check results depend on it: to be raised whenever a check, or the reading of a file, changes.
VERSION = 3

UNLABELLED = "unlabelled: for prediction only"
EMPTY = "no voxel is labelled"

# A scan whose background was set to 0: of real ones in BraTS space 82 to 86 % of the voxels are 0
# in all channels, of the Decathlon's hippocampus scans, which show no background, below 0.1 %.
STRIPPED_SHARE = 0.1
# Of TCGA-DU-7294 none of 24,188 labelled voxels lies outside the brain. Shifted by 3 voxels towards
# the skull it is 2.6 to 5.7 %, by 10 voxels 15 to 32 %; flipped front to back 0, left to right
# 1.6 %, and upside down 53 %. Below a hundredth are the few voxels of a rim that annotators drew
# over the edge of the brain mask.
OUTSIDE_SHARE = 0.01
# More values than this are those of a scan.
MOST_LABELS = 32

MISSING = (
    "; if cases may lack a channel, accept it: `dataset.accept: {missing_channels: zeros}` in a "
    "study, `--missing zeros` at prediction"
)
SHARED = (
    "; if both are right, and of one patient (`dataset.patients`), accept it: `dataset.accept: "
    "{shared_scans: true}`"
)
Array = NDArray[Any]


@dataclass(frozen=True)
class Expected:
    """What every case of a study is checked against.

    Attributes:
        labels: label values that some region names.
        unlabelled: the study's ``dataset.unlabelled`` (``refuse`` or ``predict``).
        background: further label values that count as background -> why, in words.
        ignored: the value of voxels that nobody annotated.
        accept: findings that are accepted.
        stripped: whether labels where all channels are 0 are a mistake.
    """

    labels: frozenset[int]
    unlabelled: str
    background: Mapping[int, str] = field(default_factory=dict)
    ignored: int | None = None
    accept: Accept = field(default_factory=Accept)
    stripped: bool = True


@dataclass(frozen=True)
class Findings:
    """What the check of a usable case has found; depends on the contents of its files only.

    Attributes:
        shape, spacing: voxels and their size in mm (x, y, z), as stored.
        labels: label values that occur; none where the case is unlabelled.
        notes: what is allowed, and yet good to know, in words.
        voxels: channel name -> ``hash_voxels`` of its volume.
        accepted: finding of ``dataset.accept`` -> what it concerns: channels, or a count.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    labels: list[int]
    notes: tuple[str, ...]
    voxels: dict[str, str]
    accepted: dict[str, list[str]] = field(default_factory=dict)


def check_case(case: Case, expected: Expected) -> tuple[Findings, str]:
    """Read all files of a case and compare them.

    Returns:
        The findings, and the ``joint_hash`` of the files as they were read: of each one once,
        channels in their order, then the label map.

    Raises:
        InputError: naming the file that is missing, damaged, empty of contrast, on another grid,
            a copy of another channel, or that holds labels which cannot be.
    """
    _check_label_is_there(case, expected)
    first: tuple[Source, Volume] | None = None
    background: Array | None = None
    voxels: dict[str, str] = {}
    files: dict[Path, str] = {}
    # What was done -> to which files: where the first channel is the odd one, to all the others.
    handled: dict[str | None, list[str]] = defaultdict(list)
    accept, several = expected.accept, len(case.channels) + len(case.missing) > 1
    accepted: defaultdict[str, list[str]] = defaultdict(list)
    by_voxels = accept.placement is not None
    for name in case.missing:
        accepted["missing_channels"].append(name)
        handled["is missing: filled with zeros"].append(name)
    for (channel, source), stored in zip(
        case.channels.items(), _volumes_of(case, accept), strict=True
    ):
        flat = bool(stored.data.min() == stored.data.max())
        if flat and several and accept.missing_channels:
            accepted["missing_channels"].append(channel)
            handled["has one value everywhere: taken as missing"].append(channel)
            continue
        if stored.nan:
            accepted["nan"].append(channel)
            handled[f"NaN in {stored.nan:,} voxels, taken as background"].append(channel)
        first = first or (source, stored)
        files.setdefault(source.file, stored.sha256)
        _check_components(case, source, stored)
        volume, note = align(stored, first[1], source.file, first[0].file, by_voxels)
        if is_by_voxels(note):
            accepted["placement"].append(channel)
        handled[note].append(channel)
        handled[disagreement(stored)].append(channel)
        _check_contrast(source, volume.data, several)
        if case.assumed:
            _check_no_label_map(source, volume.data)
        voxels[channel] = hash_voxels(volume.data)
        _check_no_copy(case, channel, voxels)
        # One mask for all channels, so that none but the first is kept while others are read.
        empty = volume.data == 0
        background = empty if background is None else np.logical_and(background, empty, background)
        del stored, volume, empty
    if first is None or background is None:
        _raise_no_contrast(next(iter(case.channels.values())), 0, several=False)
    labels: list[int] = []
    on_labels = [UNLABELLED]
    if case.label is not None:
        stored = read_label(case.label)
        label, note = align(stored, first[1], case.label.file, first[0].file, by_voxels)
        if is_by_voxels(note):
            accepted["placement"].append("label")
        handled[note].append("label")
        handled[disagreement(stored)].append("label")
        del stored
        files.setdefault(case.label.file, label.sha256)
        labels = _label_values(label.data)
        _check_labels(case.label, labels, expected)
        nothing = list({0, expected.ignored or 0, *expected.background})
        labelled = np.isin(label.data, nothing, invert=True)
        on_labels, outside = _notes_on_place(
            case.label, labelled, background, accept.labels_outside, expected.stripped
        )
        if outside:
            accepted["labels_outside"] = on_labels
    x, y, z = background.shape
    left = [expected.background[value] for value in labels if value in expected.background]
    handlings = (f"{listed(names)}: {note}" for note, names in handled.items() if note)
    notes = (*handlings, *on_labels, *left)
    findings = Findings((x, y, z), first[1].spacing, labels, notes, voxels, dict(accepted))
    return findings, joint_hash(files.values())


def hash_voxels(data: Array) -> str:
    """A hash (hex) over the shape and the values of a volume (x, y, z).

    The same for the same values in another file, however they are compressed, and whether they are
    stored as integers or as floating point numbers.
    """
    digest = hashlib.sha256(repr(data.shape).encode())
    digest.update(_in_common_type(data).ravel(order="F").data)
    return digest.hexdigest()


def _in_common_type(data: Array) -> Array:
    low, high = data.min(), data.max()
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            whole = data.astype(kind, copy=False)
            if data.dtype.kind != "f" or np.array_equal(whole, data):
                return whole
            break
    return data.astype(np.float32 if data.dtype.kind == "f" else np.int64, copy=False)


def _check_label_is_there(case: Case, expected: Expected) -> None:
    image = next(iter(case.channels.values())).file
    # Where images are missing as well, the files have other names, as their check reports.
    if case.label is None and expected.unlabelled == "refuse" and image.is_file():
        raise InputError(
            image.parent if image.parent.name == case.name else image,
            "has no label file",
            "a label map for every case that is trained or scored on (the `brats` layout: "
            "a file that ends in -seg.nii.gz or _seg.nii.gz behind the case's name)",
            "add the label file, or leave the case out (`dataset.unlabelled: predict` keeps it, "
            "for prediction only)",
        )


def _check_components(case: Case, source: Source, volume: Volume) -> None:
    """Refuse a file with more components than the data set describes; fewer could not be read."""
    if case.components is not None and volume.components != case.components:
        raise InputError(
            source.file,
            f"holds {volume.components} components, and the data set describes {case.components} "
            f"channels: {', '.join(case.channels)}",
            f"a file of {case.components} components",
            "correct the file, or describe all of its channels in the list of cases and in "
            "`dataset.channels`",
        )


def without_absent(case: Case) -> Case:
    """A case without the channels that have no file, if it has others: they are its ``missing``."""
    absent = [name for name, source in case.channels.items() if _is_absent(source)]
    return case.lacking(absent) if 0 < len(absent) < len(case.channels) else case


def _is_absent(source: Source) -> bool:
    return not source.file.exists() and not source.file.is_symlink()


def _volumes_of(case: Case, accept: Accept) -> Iterator[Volume]:
    """The volumes of a case; where a file is missing, the error names the key that accepts it."""
    try:
        yield from read_volumes(case.channels.values(), accept.nan == "background")
    except InputError as error:
        sources = case.channels.values()
        absent = [source for source in sources if _is_absent(source)]
        if len(absent) == len(sources) or error.where not in {str(s.file) for s in absent}:
            raise
        raise InputError(error.where, error.found, error.expected, error.fix + MISSING) from error


def _check_contrast(source: Source, data: Array, several: bool) -> None:
    if data.min() == data.max():
        _raise_no_contrast(source, float(data.flat[0]), several)


def _raise_no_contrast(source: Source, value: float, several: bool) -> NoReturn:
    part = "" if source.component is None else f" of its channel {source.component}"
    raise InputError(
        source.file,
        f"holds the value {value:g} in every voxel{part}",
        "a scan with contrast",
        "export or copy the scan again, or leave the case out" + (MISSING if several else ""),
    )


def _check_no_label_map(source: Source, data: Array) -> None:
    """Refuse a volume that seems to be a label map: a few whole numbers from 0 on, and no others.

    For a file that only its place in a folder calls a scan.
    """
    values: set[float] = set()
    for part in data:
        # A scan has more values in its first slices already.
        values.update(np.unique(part).tolist())
        if len(values) > MOST_LABELS or any(v < 0 or v != round(v) for v in values):
            return
    some = ", ".join(f"{value:g}" for value in sorted(values)[:5])
    raise InputError(
        source.file,
        f"looks like a label map: it holds {len(values)} whole numbers alone ({some}, ...)",
        "a scan",
        "move the label maps into another folder; if it is a scan, name the file itself as INPUT",
    )


def _check_no_copy(case: Case, channel: str, voxels: dict[str, str]) -> None:
    """Refuse a channel whose voxels are those of an earlier one of the case."""
    for other, digest in voxels.items():
        if other != channel and digest == voxels[channel]:
            raise InputError(
                case.channels[channel].file,
                f"holds the same voxels for {channel} as {case.channels[other].file.name} "
                f"for {other}",
                "another scan for every channel of a case",
                f"put the right scan in the place of {channel} or of {other}",
            )


def _label_values(label: Array) -> list[int]:
    # Most voxels have no label: only the others are sorted, which takes a fifth of the time.
    labelled = label[label != 0]
    none = [0] if labelled.size < label.size else []
    return none + [int(value) for value in np.unique(labelled)]


def _check_labels(source: Source, labels: list[int], expected: Expected) -> None:
    known = expected.labels | set(expected.background) | {0, expected.ignored}
    strange = sorted(set(labels) - known)
    if strange:
        raise InputError(
            source.file,
            f"holds the label value {strange[0]}, which no region names",
            f"0 and {sorted(expected.labels)}",
            "add the value to a region in `regions` (BraTS up to 2021 has 4 where later ones "
            f"have 3), declare it background (`dataset.background: [{strange[0]}]`), or correct "
            "the label map",
        )


def _notes_on_place(
    source: Source, labelled: Array, background: Array, accepted: bool, stripped: bool
) -> tuple[list[str], bool]:
    """What is to be noted of labelled voxels (x, y, z); ``background`` marks those without scan.

    Where the scans are not skull-stripped, what is 0 may be tissue. Returns also whether it is
    allowed only because a study has ``accepted`` it.
    """
    count = int(np.count_nonzero(labelled))
    if not count:
        return [EMPTY], False
    if np.count_nonzero(background) < STRIPPED_SHARE * background.size:
        return [], False
    outside = int(np.count_nonzero(labelled & background))
    if not outside:
        return [], False
    found = (
        f"{outside:,} of {count:,} labelled voxels ({outside / count:.2%}) where every channel is 0"
    )
    refused = stripped and outside > OUTSIDE_SHARE * count
    if refused and not accepted:
        raise InputError(
            source.file,
            f"has {found}",
            f"labels inside the scan: at most {OUTSIDE_SHARE:.0%} may be outside",
            "look at it on top of the scan: it may be shifted, flipped, or of another case; "
            "if it is right, accept it: `dataset.accept: {labels_outside: true}`; where 0 is "
            "tissue too, set `dataset.skull_stripped: false`",
        )
    return [found], refused


def find_duplicates(
    cases: Iterable[Case],
    voxels: Mapping[str, Mapping[str, str]],
    patients: Mapping[str, str] | None = None,
) -> dict[str, InputError]:
    """Usable cases that hold a scan of another one, all but the first by name -> what is wrong.

    A labelled case comes before an unlabelled one, so that a copy without labels never replaces
    the case to train on. ``voxels``: case name -> channel name -> hash of its voxels; ``patients``:
    case name -> patient, where cases of one patient may share scans.
    """
    first: dict[str, tuple[str, str]] = {}
    problems: dict[str, InputError] = {}
    for case in sorted(cases, key=lambda case: (case.label is None, case.name)):
        own = voxels[case.name]
        known = {
            channel: first[digest]
            for channel, digest in own.items()
            if digest in first
            and (patients is None or patients[first[digest][0]] != patients[case.name])
        }
        if known:
            problems[case.name] = _problem(case, known)
        else:
            first = {digest: (case.name, channel) for channel, digest in own.items()} | first
    return dict(sorted(problems.items()))


def shared_scans(
    cases: Sequence[str], voxels: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """Case -> the scans that it shares with others, in words: of cases in which they may."""
    owners: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        for digest in voxels[case].values():
            owners[digest].append(case)
    found = {
        case: [
            f"{channel} of {listed(others)}"
            for channel, digest in voxels[case].items()
            if (others := [other for other in owners[digest] if other != case])
        ]
        for case in cases
    }
    return {case: shared for case, shared in found.items() if shared}


def _problem(case: Case, known: Mapping[str, tuple[str, str]]) -> InputError:
    """What is wrong with a case whose ``known`` channels are (case, channel) of earlier ones."""
    channel, (other, theirs) = next(iter(known.items()))
    more = len(known) - 1
    also = f" (and {more} more channel{'s' if more > 1 else ''} like it)" if more else ""
    found = (
        f"holds the same {channel} as {other}"
        if channel == theirs
        else f"holds as {channel} the voxels that {other} holds as {theirs}"
    )
    return InputError(
        case.channels[channel].file,
        found + also,
        "every scan once: under two names it could be a training and a test case at once",
        f"remove {case.name} or {other}, or put the right scan in its place{SHARED}",
    )
