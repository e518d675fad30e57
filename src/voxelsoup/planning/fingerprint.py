"""The fingerprint of a data set: shapes, spacings and label volumes of its cases.

Of all cases the headers are read, of some the voxels too. Shapes and spacings are those after
turning to RAS, as preprocessing does first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from voxelsoup.common.errors import InputError
from voxelsoup.common.machine import in_processes
from voxelsoup.data.case import Case, Source
from voxelsoup.data.index.checks import OUTSIDE_SHARE, STRIPPED_SHARE, without_absent
from voxelsoup.data.preprocessing.crop import box_of, everything
from voxelsoup.data.volumes import volume
from voxelsoup.data.volumes.alignment import align, is_by_voxels
from voxelsoup.data.volumes.volume import Volume, read_label, read_volumes

Sides = tuple[int, int, int]
Spacing = tuple[float, float, float]

# Fifty cases say what a data set is like; more of them cost time and move no median.
CASES_WITH_VOXELS = 50


@dataclass(frozen=True)
class Contents:
    """What a case's voxels show.

    Attributes:
        cropped: sides (x, y, z) in RAS of the box around voxels that are not 0 or are labelled.
        zeros: share of voxels, before cropping, that are 0 in all channels.
        volumes: label value above 0 -> mm³.
        ranges: lowest and highest intensity of each channel.
        findings: keys of ``dataset.accept`` without which the case is refused.
    """

    cropped: Sides
    zeros: float
    volumes: dict[int, float]
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def volume_of(self, labels: Iterable[int]) -> float:
        """Volume in mm³ of a region."""
        return sum(self.volumes.get(label, 0) for label in labels)


@dataclass(frozen=True)
class CaseFingerprint:
    """One case.

    Attributes:
        shape, spacing: voxels and mm (x, y, z) in RAS.
        voxel_type: numpy's name of what the first channel stores, such as int16.
        orientation: of the first channel as stored, such as LPS.
        contents: None where only the header was read.
        patient: whom it shows, where the data set itself says so.
        lacks_channel: whether a channel has no file, without which the case is refused.
    """

    name: str
    labelled: bool
    shape: Sides
    spacing: Spacing
    voxel_type: str
    orientation: str
    contents: Contents | None = None
    patient: str | None = None
    lacks_channel: bool = False

    @property
    def findings(self) -> set[str]:
        """Keys of ``dataset.accept`` without which the case is refused, of what was looked at."""
        found = set(self.contents.findings) if self.contents else set()
        return found | ({"missing_channels"} if self.lacks_channel else set())


@dataclass(frozen=True)
class Fingerprint:
    """A data set: the cases that could be read, and what is wrong with each of the others."""

    cases: list[CaseFingerprint]
    unreadable: dict[str, InputError]

    @property
    def labelled(self) -> list[CaseFingerprint]:
        """The cases that have a label map."""
        return [case for case in self.cases if case.labelled]

    @property
    def contents(self) -> list[Contents]:
        """What was read of the cases' voxels."""
        return [case.contents for case in self.cases if case.contents is not None]

    @property
    def holders(self) -> dict[int, list[str]]:
        """Label value above 0 -> the cases that were seen to hold it."""
        return {
            value: [c.name for c in self.cases if c.contents and value in c.contents.volumes]
            for value in sorted(self.values)
        }

    @property
    def values(self) -> set[int]:
        """Label values above 0 that were seen."""
        return {value for contents in self.contents for value in contents.volumes}


def take_fingerprint(cases: Sequence[Case], workers: int) -> Fingerprint:
    """Read the headers of all cases, and the voxels of up to 50, in ``workers`` processes."""
    chosen = {case.name for case in choose_cases(cases)}
    found = list(in_processes(partial(_look, chosen=chosen), workers, cases))
    pairs = zip(cases, found, strict=True)
    return Fingerprint(
        [result for result in found if isinstance(result, CaseFingerprint)],
        {case.name: result for case, result in pairs if isinstance(result, InputError)},
    )


def choose_cases(cases: Sequence[Case], count: int = CASES_WITH_VOXELS) -> list[Case]:
    """Evenly among the labelled cases, or among all where none is labelled."""
    candidates = [case for case in cases if case.label is not None] or list(cases)
    if len(candidates) <= count:
        return candidates
    places = np.linspace(0, len(candidates) - 1, count).round().astype(int)
    return [candidates[place] for place in places]


def read_header(case: Case) -> CaseFingerprint:
    """What the header of a case's first channel says; raises InputError if it cannot be read."""
    layout = volume.read_header(next(iter(case.channels.values())))
    orientation = nib.orientations.io_orientation(layout.affine)
    return CaseFingerprint(
        case.name,
        case.label is not None,
        _sides(_to_ras(layout.shape[:3], orientation)),
        _spacing(_to_ras(nib.affines.voxel_sizes(layout.affine).tolist(), orientation)),
        layout.dtype.newbyteorder("=").name,
        "".join(nib.orientations.ornt2axcodes(orientation)),
        patient=case.patient,
    )


def _look(case: Case, chosen: set[str]) -> CaseFingerprint | InputError:
    if case.problem is not None:
        return case.problem
    try:
        case = without_absent(case)
        header = replace(read_header(case), lacks_channel=bool(case.missing))
        if case.name not in chosen:
            return header
        return replace(header, contents=read_contents(case))
    except InputError as problem:
        return problem


def read_contents(case: Case) -> Contents:
    """Read all voxels of a case, one channel at a time; what a study could accept is described
    as if it did.

    Raises InputError if a file cannot be read, or the files lie on different grids.
    """
    first: tuple[Source, Volume] | None = None
    present: NDArray[np.bool_] | None = None
    ranges: dict[str, tuple[float, float]] = {}
    findings: set[str] = set()
    stream = read_volumes(case.channels.values(), nan_as_background=True)
    for (name, source), stored in zip(case.channels.items(), stream, strict=True):
        first = first or (source, stored)
        volume, note = align(stored, first[1], source.file, first[0].file, by_voxels=True)
        voxels = volume.data
        ranges[name] = float(voxels.min()), float(voxels.max())
        several = len(case.channels) + len(case.missing) > 1
        findings |= {"nan"} if stored.nan else set()
        findings |= {"placement"} if is_by_voxels(note) else set()
        findings |= {"missing_channels"} if several and voxels.min() == voxels.max() else set()
        present = voxels != 0 if present is None else present | (voxels != 0)
    assert first is not None and present is not None
    zeros = 1 - float(present.mean())
    sizes: dict[int, float] = {}
    if case.label is not None:
        label, note = align(
            read_label(case.label), first[1], case.label.file, first[0].file, by_voxels=True
        )
        findings |= {"placement"} if is_by_voxels(note) else set()
        labelled = label.data != 0
        outside = np.count_nonzero(labelled & ~present)
        if zeros >= STRIPPED_SHARE and outside > OUTSIDE_SHARE * np.count_nonzero(labelled):
            findings.add("labels_outside")
        present = present | labelled
        sizes = label_volumes(label)
    box = box_of(present) or everything(present.shape)
    cropped = _to_ras(
        [stop - start for start, stop in box], nib.orientations.io_orientation(first[1].affine)
    )
    return Contents(_sides(cropped), zeros, sizes, ranges, tuple(sorted(findings)))


def label_volumes(label: Volume) -> dict[int, float]:
    """Label value above 0 -> its volume in mm³ in a label map."""
    counts = np.bincount(label.data.ravel(), minlength=2)
    voxel = math.prod(label.spacing)
    return {value: int(n) * voxel for value, n in enumerate(counts) if value and n}


def _to_ras(values: Iterable[float], orientation: NDArray[np.float64]) -> list[float]:
    """Values per stored axis -> per axis of RAS."""
    turned = [0.0, 0.0, 0.0]
    for value, (axis, _) in zip(values, orientation, strict=True):
        turned[int(axis)] = value
    return turned


def _sides(values: Sequence[float]) -> Sides:
    return int(values[0]), int(values[1]), int(values[2])


def _spacing(values: Sequence[float]) -> Spacing:
    return float(values[0]), float(values[1]), float(values[2])
