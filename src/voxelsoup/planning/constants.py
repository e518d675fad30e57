"""Constants that follow the data: smallest lesion, surface tolerance, penalty distance.

BraTS's are for tumours in human brains at 1 mm: 50 mm³, 1 mm and 374 mm. A mouse's ventricles are
smaller than such a lesion, and its head is smaller than such a distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.common.machine import in_processes, usable_cores
from voxelsoup.common.text import counted, listed
from voxelsoup.data.case import Case
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.volumes.volume import read_label
from voxelsoup.planning.fingerprint import Fingerprint, choose_cases, label_volumes
from voxelsoup.study.sections.evaluation import Metrics, PostprocessingSearch
from voxelsoup.study.study import BRATS_PENALTY, Study

BRATS_REGIONS = {"TC", "WT", "ET"}
BRATS_SMALLEST, BRATS_TOLERANCE = 50, 1.0
# BraTS's smallest lesion in its own voxels.
LESION_VOXELS = 50
# Of the smallest region, that a lesion or a component may be at most.
LESION_SHARE = 0.1
COMPONENT_SHARES = (0.01, 0.05, 0.1, 0.25)
LARGEST_COMPONENT = 500
# Of the largest scan, that a penalty may be without a note.
PENALTY_DIAGONALS = 1.5
# Label maps that `check` reads.
CASES_CHECKED = 20


@dataclass
class Constants:
    """The sections ``metrics`` and, where it is needed, ``postprocessing``, with their reasons."""

    metrics: dict[str, Any]
    reasons: dict[str, str]
    postprocessing: dict[str, Any] = field(default_factory=dict)


def propose_constants(
    layout: str, regions: Mapping[str, Sequence[int]], fingerprint: Fingerprint
) -> Constants:
    """The constants for a data set, by its voxel sizes and the volumes of its regions."""
    smallest = {
        region: min(found)
        for region, labels in regions.items()
        if (found := [v for c in fingerprint.contents if (v := c.volume_of(labels))])
    }
    volumes = [f"{region} {_number(volume)} mm³" for region, volume in smallest.items()]
    seen = "no region was seen in the cases that were read"
    if volumes:
        seen = f"the smallest regions seen in a case have {listed(volumes)}"
    if layout == "brats" or set(regions) >= BRATS_REGIONS:
        return _brats(seen)
    size = np.median([case.spacing for case in fingerprint.cases], axis=0).tolist()
    voxel, side = math.prod(size), median(size)
    least = min(smallest.values(), default=math.inf)
    lesion = min(LESION_VOXELS * voxel, LESION_SHARE * least)
    radius = _radius(least)
    largest = max(math.hypot(*_extent(c.shape, c.spacing)) for c in fingerprint.cases)
    constants = Constants(
        {
            "lesion_smallest": _two_digits(lesion) if lesion >= voxel else 0,
            "surface_tolerance": _two_digits(min(side, radius)),
            "penalty_distance": math.ceil(largest)
            if largest > 10
            else _two_digits(largest, math.ceil),
        },
        {
            "metrics.lesion_smallest": f"The smallest lesion that counts, in mm³: "
            f"{LESION_VOXELS} voxels of {_number(voxel)} mm³, or a tenth of the smallest region; "
            f"{seen}.",
            "metrics.surface_tolerance": "In mm: a voxel's side within its slice"
            + (" (or the radius of the smallest region, as a ball)." if radius < side else "."),
            "metrics.penalty_distance": "In mm, for a region that only prediction or ground truth "
            "has: the diagonal of the largest scan.",
        },
    )
    if least < 2 * LARGEST_COMPONENT:
        shares = (
            _two_digits(share * least) for share in COMPONENT_SHARES if share * least >= voxel
        )
        constants.postprocessing = {"smallest_components": [0, *dict.fromkeys(shares)]}
        constants.reasons["postprocessing.smallest_components"] = (
            f"In mm³: 1 to 25 % of the smallest region seen, {_number(least)} mm³."
        )
    return constants


def _brats(seen: str) -> Constants:
    return Constants(
        {
            "lesion_smallest": BRATS_SMALLEST,
            "surface_tolerance": BRATS_TOLERANCE,
            "penalty_distance": BRATS_PENALTY,
        },
        {
            "metrics.lesion_smallest": f"BraTS's smallest lesion, in mm³ (BraTS-MET: 2); {seen}.",
            "metrics.surface_tolerance": "In mm: a voxel of BraTS.",
            "metrics.penalty_distance": "BraTS's, in mm: the diagonal of its volumes.",
        },
    )


def notes_on_constants(study: Study) -> list[str]:
    """A note for each constant of a study that is larger than the regions of its data set.

    Up to 20 label maps are read; what cannot be read is left to the index.
    """
    if study.dataset.root is None or not Path(study.dataset.root).is_dir():
        return []
    try:
        cases = find_cases(study.dataset, Path(study.dataset.root))
    except InputError:
        return []
    labelled = [case for case in cases if case.label is not None]
    chosen = choose_cases(labelled, CASES_CHECKED) if labelled else []
    look = partial(_look, regions=study.regions)
    seen = [found for found in in_processes(look, usable_cores(), chosen) if found is not None]
    volumes = {
        region: [case.volumes[region] for case in seen if case.volumes[region]]
        for region in study.regions
    }
    volumes = {region: found for region, found in volumes.items() if found}
    notes = [
        _on_lesions(study.metrics, volumes),
        _on_tolerance(study.metrics, volumes),
        _on_penalty(study.metrics, [case.diagonal for case in seen]),
        _on_components(study.postprocessing, volumes),
    ]
    return [f"{note} ({counted(len(seen), 'case')} looked at)" for note in notes if note]


Volumes = Mapping[str, Sequence[float]]


def _on_lesions(metrics: Metrics, volumes: Volumes) -> str:
    smallest = metrics.lesion_smallest
    small = {region: min(found) for region, found in volumes.items() if smallest >= min(found)}
    if not small or not {"lesion_dice", "lesion_hd95"} & set(metrics.names):
        return ""
    return (
        f"`metrics.lesion_smallest` is {smallest:g} mm³, and some cases have no more of "
        f"{_by_region(small, 'mm³')}: set it below, such as "
        f"{_two_digits(LESION_SHARE * min(small.values())):g}"
    )


def _on_tolerance(metrics: Metrics, volumes: Volumes) -> str:
    tolerance = metrics.surface_tolerance
    radii = {region: _radius(min(found)) for region, found in volumes.items()}
    small = {region: radius for region, radius in radii.items() if tolerance > radius}
    if not small or "nsd" not in metrics.names:
        return ""
    return (
        f"`metrics.surface_tolerance` is {tolerance:g} mm, more than the radius (as a ball) in "
        f"some cases of {_by_region(small, 'mm')}: set it to a voxel's side"
    )


def _on_penalty(metrics: Metrics, diagonals: Sequence[float]) -> str:
    penalty = metrics.penalty_distance
    if penalty is None or not diagonals or penalty <= PENALTY_DIAGONALS * max(diagonals):
        return ""
    return (
        f"`metrics.penalty_distance` is {penalty:g} mm, and the largest scan's diagonal has "
        f"{max(diagonals):.3g} mm: leave it out, and each scan's own diagonal counts"
    )


def _on_components(search: PostprocessingSearch, volumes: Volumes) -> str:
    most = max(search.smallest_tried)
    small = {region: median(found) for region, found in volumes.items() if most > median(found)}
    if not small:
        return ""
    return (
        f"`postprocessing.smallest_components` tries {most:g} mm³, and a usual case has less of "
        f"{_by_region(small, 'mm³')}, which would be dropped altogether: take smaller ones"
    )


def _by_region(numbers: Mapping[str, float], unit: str) -> str:
    return listed(f"`{region}` ({_number(number)} {unit})" for region, number in numbers.items())


@dataclass(frozen=True)
class _Looked:
    """Volumes in mm³ by region, and the diagonal in mm, of one label map."""

    volumes: dict[str, float]
    diagonal: float


def _look(case: Case, regions: Mapping[str, Sequence[int]]) -> _Looked | None:
    assert case.label is not None
    try:
        label = read_label(case.label)
    except InputError:
        return None
    found = label_volumes(label)
    return _Looked(
        {name: sum(found.get(value, 0.0) for value in values) for name, values in regions.items()},
        math.hypot(*_extent(label.data.shape, label.spacing)),
    )


def _radius(volume: float) -> float:
    """Of a ball of a volume."""
    return (3 * volume / (4 * math.pi)) ** (1 / 3)


def _extent(shape: Sequence[int], spacing: Sequence[float]) -> list[float]:
    return [sides * size for sides, size in zip(shape, spacing, strict=True)]


def _two_digits(number: float, rounded: Callable[[float], int] = math.floor) -> float:
    """A number above 0, to two digits: down, or as ``rounded`` does it."""
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    # To nine digits first, which lets 0.15 stay what it is.
    return float(f"{step * rounded(round(number / step, 9)):.6g}")


def _number(volume: float) -> str:
    return f"{volume:,.0f}" if volume >= 100 else f"{volume:.2g}"
