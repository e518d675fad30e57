"""Scores of one prediction against the truth, region by region.

Distances are those of DeepMind's surface-distance, which the BraTS challenges score with
(Nikolov et al., 2021): a surface is the set of corners of voxels where the eight voxels around
are not all equal, each with the area that marching cubes gives it. Percentiles and shares are
those of area. MONAI's Hausdorff distance differs: it goes from voxel centre to voxel centre and
counts surface voxels alike, so that its percentile is another one. MONAI's surface Dice with
``use_subvoxels`` has the corners and areas of here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

if TYPE_CHECKING:
    import torch

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]
Spacing = tuple[float, float, float]

# The diagonal of a BraTS volume in mm, to the millimetre.
EMPTY_DISTANCE = 374.0
PERCENTILE = 0.95

# Spacings come from affines in float32: one voxel of 0.6 mm is within a tolerance of 0.6 mm.
ROUNDING = 1e-5

# Most of a surface lies within this many voxels of the other one, and is found there by looking:
# a tenth of the time of a distance transform of the volume.
REACH = 3
# A tree takes some 10 us for a point, a distance transform 0.1 us for a voxel.
VOXELS_PER_POINT = 100

TOUCHING: Final = 26
ALL_INSIDE = 255


@dataclass(frozen=True)
class Metric:
    """How a column of scores is to be read.

    Attributes:
        title: its name in tables and figures.
        unit: "mm" or "".
        higher_is_better: whether a better prediction scores more.
        decimals: that tables show.
    """

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
        lesion_dilation: times that the truth is dilated before its lesions are told apart
            (BraTS: 3 for glioma, 1 for meningioma and metastases).
        lesion_smallest: true lesions of this volume or less, in cubic mm, are not scored
            (BraTS: 50; 2 for metastases).
    """

    metrics: tuple[str, ...] = ()
    tolerance: float = 1.0
    lesion_dilation: int = 3
    lesion_smallest: float = 50.0

    def __post_init__(self) -> None:
        if unknown := set(self.metrics) - set(METRICS):
            raise ValueError(f"unknown metrics: {', '.join(sorted(unknown))}")


def score_regions(
    prediction: Mask,
    truth: Mask,
    spacing: Sequence[float],
    scoring: Scoring,
    threads: int = 1,
) -> list[dict[str, float]]:
    """All scores of one case.

    ======================  ==========  =========================  ============
    region is empty in      both        the truth                  the prediction
    ======================  ==========  =========================  ============
    dice, nsd, precision,   1           0                          0
    sensitivity
    hd95                    0           374                        374
    lesion_dice             1           0                          0
    lesion_hd95             0           374                        374
    ======================  ==========  =========================  ============

    Lesion-wise scores take a truth whose lesions are all too small to be scored for an empty one,
    except that what is predicted there is no false positive.

    Args:
        prediction: booleans (region, x, y, z).
        truth: booleans of the same shape.
        spacing: mm between voxels along x, y and z.
        scoring: what to score.
        threads: regions scored at a time.

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

    def score(pair: tuple[Mask, Mask]) -> dict[str, float]:
        return _score_region(*pair, (x, y, z), scoring)

    pairs = list(zip(prediction, truth, strict=True))
    if min(threads, len(pairs)) < 2:
        return [score(pair) for pair in pairs]
    with ThreadPoolExecutor(min(threads, len(pairs))) as pool:
        return list(pool.map(score, pairs))


def dice_of(prediction: Mask, truth: Mask) -> float:
    """Dice of one region by the BraTS rule: 1 if both are empty, 0 if one is.

    Counted in integers and divided in float32: the value of MONAI's ``compute_dice``.

    Args:
        prediction: booleans (x, y, z).
        truth: booleans of the same shape.
    """
    return _dice(_count(prediction, truth))


def dice(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """``dice_of`` of each region.

    Args:
        prediction: booleans (region, x, y, z).
        truth: booleans of the same shape.

    Returns:
        float32 (region,).
    """
    pairs = zip(prediction.cpu().numpy(), truth.cpu().numpy(), strict=True)
    return prediction.new_empty(0).float().new_tensor([dice_of(*pair) for pair in pairs])


def _score_region(
    prediction: Mask, truth: Mask, spacing: Spacing, scoring: Scoring
) -> dict[str, float]:
    """Scores of one region by column."""
    box = _bounding_box(prediction | truth)
    region = _Region(
        np.ascontiguousarray(prediction[box]), np.ascontiguousarray(truth[box]), spacing, scoring
    )
    columns: dict[str, Callable[[], float]] = {
        "dice": lambda: _dice(region.counts),
        "hd95": lambda: hausdorff95(region.surfaces),
        "nsd": lambda: surface_dice(region.surfaces, scoring.tolerance),
        "sensitivity": lambda: _share(region.counts.both, region.counts.truth, region.counts),
        "precision": lambda: _share(region.counts.both, region.counts.prediction, region.counts),
        "lesion_dice": lambda: region.lesions.dice,
        "lesion_hd95": lambda: region.lesions.hd95,
    }
    return {name: columns[name]() for name in METRICS if name == "dice" or name in scoring.metrics}


@dataclass(frozen=True)
class _Counts:
    """Voxels of the prediction, of the truth, and of both."""

    prediction: int
    truth: int
    both: int


def _count(prediction: Mask, truth: Mask) -> _Counts:
    counts = (np.count_nonzero(mask) for mask in (prediction, truth, prediction & truth))
    return _Counts(*map(int, counts))


def _dice(counts: _Counts) -> float:
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

    @cached_property
    def counts(self) -> _Counts:
        return _count(self.prediction, self.truth)

    @cached_property
    def surfaces(self) -> SurfaceDistances:
        return surface_distances(self.prediction, self.truth, self.spacing)

    @cached_property
    def lesions(self) -> _LesionScores:
        """Lesion-wise scores: see ``match_lesions``."""
        found = match_lesions(self.prediction, self.truth, self.scoring.lesion_dilation)
        smallest = self.scoring.lesion_smallest * (1 + ROUNDING)
        volumes = found.voxels * math.prod(self.spacing)
        scored = [lesion for lesion in range(len(volumes)) if volumes[lesion] > smallest]
        number = len(scored) + found.false_positives
        if not number:
            return _LesionScores(1.0, 0.0)
        dices, distances = 0.0, found.false_positives * EMPTY_DISTANCE
        for lesion in scored:
            score = self._lesion(found, lesion)
            dices, distances = dices + score.dice, distances + score.hd95
        return _LesionScores(dices / number, distances / number)

    def _lesion(self, found: Lesions, lesion: int) -> _LesionScores:
        """Scores of one true lesion; the distances only if they are asked for."""
        if not found.matches[lesion]:
            return _LesionScores(0.0, EMPTY_DISTANCE)
        everything = len(found.voxels) == 1 and not found.false_positives
        prediction, truth = (self.prediction, self.truth) if everything else found.masks(lesion)
        counts = self.counts if everything else _count(prediction, truth)
        dice = 2 * counts.both / (counts.prediction + counts.truth)
        if "lesion_hd95" not in self.scoring.metrics:
            return _LesionScores(dice, math.nan)
        if everything:
            return _LesionScores(dice, hausdorff95(self.surfaces))
        return _LesionScores(dice, hausdorff95(surface_distances(prediction, truth, self.spacing)))


@dataclass(frozen=True)
class Lesions:
    """The lesions of a truth, and which of the prediction's belong to each.

    Attributes:
        truth: (x, y, z), the number of each voxel's lesion, from 1, and 0 outside.
        prediction: the same of the prediction's connected components.
        voxels: of each true lesion.
        matches: for each true lesion, the numbers of the predicted components that belong to it.
        false_positives: number of predicted components that belong to no true lesion.
    """

    truth: NDArray[np.unsignedinteger]
    prediction: NDArray[np.unsignedinteger]
    voxels: NDArray[np.int64]
    matches: list[list[int]]
    false_positives: int

    @cached_property
    def _boxes(self) -> tuple[list[tuple[slice, ...]], list[tuple[slice, ...]]]:
        """Where each true lesion and each predicted component is."""
        truth, prediction = (
            ndimage.find_objects(labels.astype(np.int32, copy=False))
            for labels in (self.truth, self.prediction)
        )
        return truth, prediction

    def masks(self, lesion: int) -> tuple[Mask, Mask]:
        """A true lesion (from 0) and what was predicted for it, cut out: (prediction, truth)."""
        truth_boxes, prediction_boxes = self._boxes
        boxes = [truth_boxes[lesion], *(prediction_boxes[n - 1] for n in self.matches[lesion])]
        box = tuple(
            slice(min(part.start for part in parts), max(part.stop for part in parts))
            for parts in zip(*boxes, strict=True)
        )
        belongs = np.zeros(len(prediction_boxes) + 1, dtype=bool)
        belongs[self.matches[lesion]] = True
        return belongs[self.prediction[box]], self.truth[box] == lesion + 1


def match_lesions(prediction: Mask, truth: Mask, dilation: int) -> Lesions:
    """Lesions as the BraTS challenges of 2023 and later tell them apart and match them.

    The truth is dilated ``dilation`` times by the 18 voxels that share a face or an edge. What
    touches then (26 voxels) is one lesion: the truth within it. The predicted components (26
    voxels, not dilated, of whatever size) that meet the dilated lesion belong to it, all of them
    together, and one may belong to several. Those that belong to none are false positives. The
    scores of a region are sums over its true lesions, each with all that belongs to it (nothing:
    Dice 0 and 374 mm), false positives adding 0 and 374 mm each, over the number of both. True
    lesions of at most the smallest volume count nowhere, and neither does what belongs to
    them; false positives count however small. With nothing to count, Dice is 1 and the
    distance 0.

    Source: https://github.com/rachitsaluja/BraTS-2023-Metrics.

    Args:
        prediction: booleans (x, y, z).
        truth: booleans of the same shape.
        dilation: times; 0 for none.
    """
    dilated, number = cc3d.connected_components(
        dilate(truth, dilation), connectivity=TOUCHING, return_N=True
    )
    components, predicted = cc3d.connected_components(
        prediction, connectivity=TOUCHING, return_N=True
    )
    near = prediction & (dilated > 0)
    pairs = np.unique(dilated[near].astype(np.int64) * (predicted + 1) + components[near])
    matches: list[list[int]] = [[] for _ in range(number)]
    for pair in pairs.tolist():
        lesion, component = divmod(pair, predicted + 1)
        matches[lesion - 1].append(component)
    return Lesions(
        truth=dilated * truth,
        prediction=components,
        voxels=np.bincount(dilated[truth], minlength=number + 1)[1:],
        matches=matches,
        false_positives=predicted - len({number for match in matches for number in match}),
    )


def dilate(mask: Mask, times: int) -> Mask:
    """A mask (x, y, z) with the voxels that share a face or an edge with it, ``times`` over.

    scipy's ``binary_dilation`` with ``generate_binary_structure(3, 2)``, in a fifth of its time.
    """
    for _ in range(times):
        along_x, along_y = _spread(mask, 0), _spread(mask, 1)
        mask = _spread(along_x, 1)
        mask |= _spread(along_x, 2)
        mask |= _spread(along_y, 2)
    return mask


def _spread(mask: Mask, axis: int) -> Mask:
    """A mask with the neighbours of its voxels along one axis."""
    spread = mask.copy()
    source, target = np.moveaxis(mask, axis, 0), np.moveaxis(spread, axis, 0)
    target[1:] |= source[:-1]
    target[:-1] |= source[1:]
    return spread


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, each point with its part of the surface.

    Attributes:
        from_truth: mm from each point of the truth's surface to the prediction's.
        from_prediction: mm from each point of the prediction's surface to the truth's.
        truth_areas: square mm of each point of the truth's surface.
        prediction_areas: square mm of each point of the prediction's surface.
    """

    from_truth: Distances
    from_prediction: Distances
    truth_areas: Distances
    prediction_areas: Distances


def surface_distances(prediction: Mask, truth: Mask, spacing: Spacing) -> SurfaceDistances:
    """Distances between the surfaces of two masks, infinite where the other one has none.

    Those of surface-distance's ``compute_surface_distances``, unsorted.

    Args:
        prediction: booleans (x, y, z).
        truth: booleans of the same shape.
        spacing: mm along x, y and z.
    """
    predicted, true = _surface(prediction, spacing), _surface(truth, spacing)
    return SurfaceDistances(
        from_truth=_distances(true, predicted, spacing),
        from_prediction=_distances(predicted, true, spacing),
        truth_areas=true.areas,
        prediction_areas=predicted.areas,
    )


def hausdorff95(surfaces: SurfaceDistances) -> float:
    """95th percentile Hausdorff distance: the greater of both directions, in mm.

    That of surface-distance's ``compute_robust_hausdorff``; with no surface 0, with one 374 mm.
    """
    if not surfaces.from_truth.size and not surfaces.from_prediction.size:
        return 0.0
    if not surfaces.from_truth.size or not surfaces.from_prediction.size:
        return EMPTY_DISTANCE
    return max(
        _percentile(surfaces.from_truth, surfaces.truth_areas),
        _percentile(surfaces.from_prediction, surfaces.prediction_areas),
    )


def _percentile(distances: Distances, areas: Distances) -> float:
    """The least distance that 95 % of the area is within."""
    order = np.lexsort((areas, distances))
    covered = np.cumsum(areas[order]) / np.sum(areas[order])
    place = int(np.searchsorted(covered, PERCENTILE))
    return float(distances[order[min(place, len(order) - 1)]])


def surface_dice(surfaces: SurfaceDistances, tolerance: float) -> float:
    """Normalised surface Dice: the share of both surfaces within a tolerance of the other.

    That of surface-distance's ``compute_surface_dice_at_tolerance``, except that a distance
    above the tolerance by no more than rounding is within it; with no surface 1.

    Args:
        surfaces: the distances.
        tolerance: in mm.
    """
    limit = tolerance * (1 + ROUNDING)
    total = surfaces.truth_areas.sum() + surfaces.prediction_areas.sum()
    if not total:
        return 1.0
    within = surfaces.truth_areas[surfaces.from_truth <= limit].sum()
    within += surfaces.prediction_areas[surfaces.from_prediction <= limit].sum()
    return float(within / total)


@dataclass(frozen=True)
class _Surface:
    """Corners of voxels on the surface of a mask.

    Attributes:
        corners: booleans on the grid of corners, with an edge of ``REACH`` that none lies in.
        places: where they are in the flat array of corners.
        areas: square mm of each.
    """

    corners: Mask
    places: NDArray[np.int64]
    areas: Distances


def _surface(mask: Mask, spacing: Spacing) -> _Surface:
    code: NDArray[np.integer] = np.pad(mask.view(np.uint8), REACH + 1)
    # Each corner has one bit for each voxel around it, in the order of surface-distance's table.
    code = (code[:-1] << 4) | code[1:]
    code = (code[:, :-1] << 2) | code[:, 1:]
    code = (code[:, :, :-1] << 1) | code[:, :, 1:]
    corners = (code != 0) & (code != ALL_INSIDE)
    places = np.flatnonzero(corners)
    return _Surface(corners, places, _areas(spacing)[code.ravel()[places]])


@lru_cache(maxsize=16)
def _areas(spacing: Spacing) -> Distances:
    """Square mm of surface at a corner, by the voxels around it."""
    areas: Distances = create_table_neighbour_code_to_surface_area(spacing)
    return areas


def _distances(surface: _Surface, other: _Surface, spacing: Spacing) -> Distances:
    """From each corner of a surface to the nearest of the other, in mm."""
    distances = np.full(surface.places.size, np.inf)
    if not other.places.size:
        return distances
    left = _near(surface, other, spacing, distances)
    if not left.size:
        return distances
    places = surface.places[left]
    if left.size * VOXELS_PER_POINT > other.corners.size:
        away = ndimage.distance_transform_edt(~other.corners, sampling=spacing)
        distances[left] = away.ravel()[places]
        return distances
    points, corners = (
        np.column_stack(np.unravel_index(flat, other.corners.shape))
        for flat in (places, other.places)
    )
    tree = cKDTree(corners * spacing, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(points * spacing)[1]
    distances[left] = np.sqrt((((points - corners[nearest]) * spacing) ** 2).sum(axis=1))
    return distances


def _near(
    surface: _Surface, other: _Surface, spacing: Spacing, distances: Distances
) -> NDArray[np.int64]:
    """Fill in the distances of corners with the other surface near; returns which are left."""
    flat = other.corners.ravel()
    strides = np.array(other.corners.strides) // other.corners.itemsize
    left, places = np.arange(surface.places.size), surface.places
    for step, length in zip(*_steps(spacing), strict=True):
        found = flat[places + step @ strides]
        distances[left[found]] = length
        missed = ~found
        left, places = left[missed], places[missed]
        if not left.size:
            break
    return left


@lru_cache(maxsize=16)
def _steps(spacing: Spacing) -> tuple[NDArray[np.int64], Distances]:
    """Steps of up to ``REACH`` voxels and their lengths in mm, the shortest first.

    All that are shorter than any step beyond the reach: whoever meets a surface by the first of
    them that does has the distance to it.
    """
    along = np.arange(-REACH, REACH + 1)
    steps = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = np.sqrt(((steps * spacing) ** 2).sum(axis=1))
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] < (REACH + 1) * min(spacing)]
    return steps[order], lengths[order]


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The least box (x, y, z) with all of a mask; nothing of an empty one."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (filled,) = np.nonzero(mask.any(axis=others))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0))
    return tuple(box)
