"""Scores of one prediction against the ground truth, region by region."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from voxelsoup.common.plug_ins import uses_plug_in
from voxelsoup.evaluation.lesions import Lesions, match_lesions
from voxelsoup.evaluation.surfaces import (
    ROUNDING,
    Mask,
    Spacing,
    SurfaceDistances,
    SurfacePair,
    bounding_box,
    hausdorff95,
    owners_of,
    surface_dice,
)
from voxelsoup.study.sections.evaluation import Metrics
from voxelsoup.study.study import BRATS_PENALTY


@dataclass(frozen=True)
class Metric:
    """How a column of scores is to be read; its unit is "mm" or empty."""

    title: str
    unit: str
    higher_is_better: bool
    decimals: int


METRICS: dict[str, Metric] = {
    "dice": Metric("Dice", "", True, 4),
    "hd95": Metric("HD95", "mm", False, 2),
    "nsd": Metric("Surface Dice", "", True, 4),
    "sensitivity": Metric("Sensitivity", "", True, 4),
    "precision": Metric("Precision", "", True, 4),
    "lesion_dice": Metric("Lesion-wise Dice", "", True, 4),
    "lesion_hd95": Metric("Lesion-wise HD95", "mm", False, 2),
}


@dataclass(frozen=True)
class Scoring:
    """What is scored beside Dice, and how.

    Attributes:
        metrics: columns of ``METRICS``; Dice is always there.
        tolerance: of the surface Dice, in mm.
        lesion_dilation: times that the ground truth is dilated before its lesions are separated
            (BraTS: 3 for glioma, 1 for meningioma and metastases).
        lesion_smallest: true lesions of this volume or less, in cubic mm, are not scored
            (BraTS: 50; 2 for metastases), unless all of a region are that small.
        penalty: mm for what is in only one of prediction and ground truth (BraTS: 374); None is
            the diagonal of the volume that is scored.
    """

    metrics: tuple[str, ...] = ()
    tolerance: float = 1.0
    lesion_dilation: int = 3
    lesion_smallest: float = 50.0
    penalty: float | None = BRATS_PENALTY

    def __post_init__(self) -> None:
        if uses_plug_in("metrics", *self.metrics):
            from voxelsoup.evaluation.own_metrics import register

            register(self.metrics)
        if unknown := set(self.metrics) - set(METRICS):
            raise ValueError(f"unknown metrics: {', '.join(sorted(unknown))}")


def scoring_of(asked: Metrics) -> Scoring:
    """What a study measures on test cases; its metrics are those of ``Study.scored_metrics``."""
    return Scoring(
        metrics=tuple(asked.names),
        tolerance=asked.surface_tolerance,
        lesion_dilation=asked.lesion_dilation,
        lesion_smallest=asked.lesion_smallest,
        penalty=asked.penalty_distance,
    )


def score_regions(
    prediction: Mask, truth: Mask, spacing: Sequence[float], scoring: Scoring, threads: int = 1
) -> list[dict[str, float]]:
    """All scores of one case.

    ======================  ==========  =========================  ============
    region is empty in      both        ground truth               the prediction
    ======================  ==========  =========================  ============
    dice, nsd, precision,   1           0                          0
    sensitivity
    hd95                    0           penalty                    penalty
    lesion_dice             1           0                          0
    lesion_hd95             0           penalty                    penalty
    ======================  ==========  =========================  ============

    Where all lesions of a ground truth are too small to be scored, all of them are: BraTS's own
    code takes it for an empty one, and an empty prediction for perfect.

    Args:
        prediction: booleans (region, x, y, z).
        truth: booleans of the same shape.
        spacing: mm between voxels along x, y and z.

    Returns:
        For each region its scores by column, in the order of ``METRICS``; Dice first.

    Raises:
        ValueError: shapes differ, or a spacing is not a positive number.
    """
    if prediction.shape != truth.shape or prediction.ndim != 4:
        raise ValueError(f"shapes {prediction.shape} and {truth.shape}, not one (region, x, y, z)")
    x, y, z = map(float, spacing)
    if not (min(x, y, z) > 0 and math.isfinite(x + y + z)):
        raise ValueError(f"spacing {x} x {y} x {z} mm")

    if scoring.penalty is None:
        scoring = replace(scoring, penalty=diagonal(prediction.shape[1:], (x, y, z)))
    score = partial(_score_region, spacing=(x, y, z), scoring=scoring)
    with ThreadPoolExecutor(max(1, min(threads, len(truth)))) as pool:
        return list(pool.map(score, prediction, truth))


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Diagonal in mm of a volume of so many voxels and mm between them."""
    return math.hypot(*(n * side for n, side in zip(shape, spacing, strict=True)))


def _score_region(
    prediction: Mask, truth: Mask, spacing: Spacing, scoring: Scoring
) -> dict[str, float]:
    box = bounding_box(prediction | truth)
    region = _Region(
        np.ascontiguousarray(prediction[box]), np.ascontiguousarray(truth[box]), spacing, scoring
    )
    columns: dict[str, Callable[[], float]] = {
        "dice": lambda: _dice(region.counts),
        "hd95": lambda: hausdorff95(region.surfaces, region.penalty),
        "nsd": lambda: surface_dice(region.surfaces, scoring.tolerance),
        "sensitivity": lambda: _share(region.counts.both, region.counts.truth, region.counts),
        "precision": lambda: _share(region.counts.both, region.counts.prediction, region.counts),
        "lesion_dice": lambda: region.lesions.dice,
        "lesion_hd95": lambda: region.lesions.hd95,
    }
    if uses_plug_in("metrics", *scoring.metrics):
        from voxelsoup.evaluation.own_metrics import columns_of

        columns |= columns_of(scoring.metrics, prediction, truth, spacing, scoring.penalty)
    return {name: columns[name]() for name in METRICS if name == "dice" or name in scoring.metrics}


@dataclass(frozen=True)
class _Counts:
    """Voxels of the prediction, of the ground truth, and of both."""

    prediction: int
    truth: int
    both: int


def _dice(counts: _Counts) -> float:
    """By the BraTS rule, counted in integers and divided in float32 as MONAI's ``compute_dice``."""
    voxels = counts.prediction + counts.truth
    return float(np.float32(2 * counts.both) / np.float32(voxels)) if voxels else 1.0


def _share(part: int, whole: int, counts: _Counts) -> float:
    """Sensitivity or precision: as the BraTS code has the former, 1 if nothing is anywhere."""
    if whole:
        return part / whole
    return 0.0 if counts.prediction or counts.truth else 1.0


@dataclass(frozen=True)
class _LesionScores:
    dice: float
    hd95: float


@dataclass(frozen=True)
class _Region:
    """One region, cut to what is not empty; what several columns need is computed once.

    Cutting changes no lesion: moving two touching voxels of dilated lesions to the nearest places
    inside the bounding box keeps both within reach of their lesions, and in touch.
    """

    prediction: Mask
    truth: Mask
    spacing: Spacing
    scoring: Scoring

    @property
    def penalty(self) -> float:
        assert self.scoring.penalty is not None
        return self.scoring.penalty

    @cached_property
    def counts(self) -> _Counts:
        both = self.prediction & self.truth
        masks = (self.prediction, self.truth, both)
        return _Counts(*(int(np.count_nonzero(mask)) for mask in masks))

    @cached_property
    def pair(self) -> SurfacePair:
        return SurfacePair(self.prediction, self.truth, self.spacing)

    @cached_property
    def surfaces(self) -> SurfaceDistances:
        return self.pair.distances()

    @cached_property
    def lesions(self) -> _LesionScores:
        """Lesion-wise scores: see ``match_lesions``."""
        found = match_lesions(self.prediction, self.truth, self.scoring.lesion_dilation)
        smallest = self.scoring.lesion_smallest * (1 + ROUNDING)
        volumes = found.voxels * math.prod(self.spacing)
        scored = np.flatnonzero(volumes > smallest).tolist() or list(range(volumes.size))
        number = len(scored) + found.false_positives
        if not number:
            return _LesionScores(1.0, 0.0)
        distances = found.false_positives * self.penalty
        if "lesion_hd95" in self.scoring.metrics:
            distances += self._lesion_distances(found, scored)
        total = sum(found.dice(lesion) for lesion in scored)
        return _LesionScores(total / number, distances / number)

    def _lesion_distances(self, found: Lesions, scored: list[int]) -> float:
        if scored == [0] and not found.false_positives:
            return hausdorff95(self.surfaces, self.penalty)
        true_lesion = owners_of(self.pair.truth, found.truth)
        component = owners_of(self.pair.prediction, found.prediction)
        total = 0.0
        for lesion in scored:
            belongs = np.zeros(found.component_voxels.size + 1, dtype=bool)
            belongs[list(found.matches[lesion])] = True
            part = self.pair.distances(true_lesion == lesion + 1, belongs[component])
            total += hausdorff95(part, self.penalty)
        return total
