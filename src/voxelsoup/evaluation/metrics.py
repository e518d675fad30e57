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
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]
Places = NDArray[np.int64]
Labels = NDArray[np.unsignedinteger]
Spacing = tuple[float, float, float]

# The diagonal of a BraTS volume in mm, to the millimetre.
EMPTY_DISTANCE = 374.0
PERCENTILE = 0.95

# Spacings come from affines in float32: one voxel of 0.6 mm is within a tolerance of 0.6 mm.
ROUNDING = 1e-5

# Most of a surface lies within this many voxels of the other one, and is found there by looking:
# a tenth of the time of a distance transform of the volume.
REACH = 3
# A tree takes some 10 us for a point in 70,000 corners and less than 1 us in 150: about the root.
# A distance transform takes some 0.1 us for a voxel.
TREE_COST = 0.4

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

    @cached_property
    def counts(self) -> _Counts:
        return _count(self.prediction, self.truth)

    @cached_property
    def pair(self) -> _SurfacePair:
        return _SurfacePair(self.prediction, self.truth, self.spacing)

    @cached_property
    def surfaces(self) -> SurfaceDistances:
        return self.pair.distances()

    @cached_property
    def lesions(self) -> _LesionScores:
        """Lesion-wise scores: see ``match_lesions``."""
        found = match_lesions(self.prediction, self.truth, self.scoring.lesion_dilation)
        smallest = self.scoring.lesion_smallest * (1 + ROUNDING)
        volumes = found.voxels * math.prod(self.spacing)
        scored = np.flatnonzero(volumes > smallest).tolist()
        number = len(scored) + found.false_positives
        if not number:
            return _LesionScores(1.0, 0.0)
        distances = found.false_positives * EMPTY_DISTANCE
        if "lesion_hd95" in self.scoring.metrics:
            distances += self._lesion_distances(found, scored)
        dices = sum(found.dice(lesion) for lesion in scored)
        return _LesionScores(dices / number, distances / number)

    def _lesion_distances(self, found: Lesions, scored: list[int]) -> float:
        """Sum of the distances of true lesions."""
        if scored == [0] and not found.false_positives:
            return hausdorff95(self.surfaces)
        true_lesion = _owners(self.pair.truth, found.truth)
        component = _owners(self.pair.prediction, found.prediction)
        total = 0.0
        for lesion in scored:
            belongs = np.zeros(found.component_voxels.size + 1, dtype=bool)
            belongs[list(found.matches[lesion])] = True
            part = self.pair.distances(true_lesion == lesion + 1, belongs[component])
            total += hausdorff95(part)
        return total


@dataclass(frozen=True)
class Lesions:
    """The lesions of a truth, and which of the prediction's components belong to each.

    Attributes:
        truth: (x, y, z), from 1, the number of the lesion that each voxel of the dilated truth
            belongs to; 0 outside.
        prediction: the same of the prediction's connected components, which are not dilated.
        voxels: of each true lesion.
        component_voxels: of each predicted component.
        matches: for each true lesion, the numbers of the components that belong to it, with the
            number of voxels they share.
        false_positives: number of components that belong to no true lesion.
    """

    truth: Labels
    prediction: Labels
    voxels: NDArray[np.int64]
    component_voxels: NDArray[np.int64]
    matches: list[dict[int, int]]
    false_positives: int

    def dice(self, lesion: int) -> float:
        """Dice of a true lesion (from 0) with all that was predicted for it."""
        predicted = sum(int(self.component_voxels[number - 1]) for number in self.matches[lesion])
        return 2 * sum(self.matches[lesion].values()) / (int(self.voxels[lesion]) + predicted)


def match_lesions(prediction: Mask, truth: Mask, dilation: int) -> Lesions:
    """Lesions as the BraTS challenges of 2023 and later tell them apart and match them.

    The truth is dilated ``dilation`` times by the 18 voxels that share a face or an edge. What
    touches then (26 voxels) is one lesion: the truth within it. The predicted components (26
    voxels, not dilated, of whatever size) that meet the dilated lesion belong to it, all of them
    together, and one may belong to several. Those that belong to none are false positives.

    The scores of a region are sums over its true lesions, each with all that belongs to it
    (nothing: Dice 0 and 374 mm), and over the false positives (0 and 374 mm each, however
    small), divided by the number of both. True lesions of at most the smallest volume count
    nowhere, and neither does what belongs to them alone. With nothing to count, Dice is 1 and the
    distance 0.

    Source: https://github.com/rachitsaluja/BraTS-2023-Metrics.

    Args:
        prediction: booleans (x, y, z).
        truth: booleans of the same shape.
        dilation: times; 0 for none.
    """
    dilated, number = _components(dilate(truth, dilation))
    components, predicted = _components(prediction)
    near = prediction & (dilated > 0)
    pairs = dilated[near].astype(np.int64) * (predicted + 1) + components[near]
    size = (number + 1) * (predicted + 1)
    shared = _tally(pairs[truth[near]], size)
    matches: list[dict[int, int]] = [{} for _ in range(number)]
    for pair in _tally(pairs, size):
        lesion, component = divmod(pair, predicted + 1)
        matches[lesion - 1][component] = shared.get(pair, 0)
    return Lesions(
        truth=dilated,
        prediction=components,
        voxels=np.bincount(dilated[truth], minlength=number + 1)[1:],
        component_voxels=np.bincount(components[prediction], minlength=predicted + 1)[1:],
        matches=matches,
        false_positives=predicted - len(set[int]().union(*matches)),
    )


def _components(mask: Mask) -> tuple[Labels, int]:
    """Connected components of a mask, numbered from 1, and how many there are."""
    if not mask.size:
        return np.zeros(mask.shape, dtype=np.uint16), 0
    # cc3d 4.1.1 fails on some masks of a few voxels that reach the border.
    labels, number = cc3d.connected_components(
        np.pad(mask, 1), connectivity=TOUCHING, return_N=True
    )
    return labels[1:-1, 1:-1, 1:-1], number


def _tally(numbers: NDArray[np.int64], size: int) -> dict[int, int]:
    """How often each number below ``size`` occurs, of those that do."""
    if size <= numbers.size:
        counts = np.bincount(numbers)
        occurring = np.flatnonzero(counts)
        return dict(zip(occurring.tolist(), counts[occurring].tolist(), strict=True))
    occurring, counts = np.unique(numbers, return_counts=True)
    return dict(zip(occurring.tolist(), counts.tolist(), strict=True))


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
    return _SurfacePair(prediction, truth, spacing).distances()


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
        places: where they are in the flat array of corners, ascending.
        areas: square mm of each.
    """

    corners: Mask
    places: Places
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


def _owners(surface: _Surface, labels: Labels) -> Labels:
    """The label of each corner of a surface: components that do not touch share no corner."""
    padded = np.pad(labels, 1)
    corners = np.unravel_index(surface.places, surface.corners.shape)
    first = np.ravel_multi_index([along - REACH for along in corners], padded.shape)
    owners = np.zeros(first.size, dtype=labels.dtype)
    flat = padded.ravel()
    for around in np.ndindex(2, 2, 2):
        np.maximum(owners, flat[first + np.ravel_multi_index(around, padded.shape)], out=owners)
    return owners


@dataclass(frozen=True)
class _SurfacePair:
    """The surfaces of two masks, and the way from each to the other."""

    prediction_mask: Mask
    truth_mask: Mask
    spacing: Spacing

    @cached_property
    def prediction(self) -> _Surface:
        return _surface(self.prediction_mask, self.spacing)

    @cached_property
    def truth(self) -> _Surface:
        return _surface(self.truth_mask, self.spacing)

    @cached_property
    def from_prediction(self) -> _Nearest:
        return _to_surface(self.prediction, self.truth, self.spacing)

    @cached_property
    def from_truth(self) -> _Nearest:
        return _to_surface(self.truth, self.prediction, self.spacing)

    def distances(
        self, truth_part: Mask | None = None, prediction_part: Mask | None = None
    ) -> SurfaceDistances:
        """Distances between both surfaces, or between some corners of one and of the other."""
        if truth_part is None or prediction_part is None:
            truth_areas, prediction_areas = self.truth.areas, self.prediction.areas
            forth, back = self.from_truth.lengths, self.from_prediction.lengths
        else:
            truth_areas = self.truth.areas[truth_part]
            prediction_areas = self.prediction.areas[prediction_part]
            forth = self._between(self.from_truth, truth_part, prediction_part)
            back = self._between(self.from_prediction, prediction_part, truth_part)
        return SurfaceDistances(forth, back, truth_areas, prediction_areas)

    def _between(self, nearest: _Nearest, part: Mask, other_part: Mask) -> Distances:
        """Distances of some corners to some of the other surface, from those of all to all.

        A corner whose nearest is among those of the other part need not be looked at again.
        """
        lengths = nearest.lengths[part]
        if not other_part.any():
            return np.full(lengths.size, np.inf)
        others = nearest.other.places
        met = other_part[np.searchsorted(others, nearest.places[part])]
        left = np.flatnonzero(~met)
        if left.size:
            places = nearest.surface.places[part][left]
            shape = nearest.other.corners.shape
            lengths[left] = _search(places, others[other_part], shape, self.spacing)[0]
        return lengths


@dataclass(frozen=True)
class _Nearest:
    """For each corner of a surface the nearest of another one.

    Attributes:
        surface: the surface with the corners.
        other: the other one.
        lengths: mm; infinite if the other surface has no corner.
        places: of the nearest corner, in the flat array of corners.
    """

    surface: _Surface
    other: _Surface
    lengths: Distances
    places: Places


def _to_surface(surface: _Surface, other: _Surface, spacing: Spacing) -> _Nearest:
    """From each corner of a surface to the nearest of another."""
    lengths = np.full(surface.places.size, np.inf)
    nearest = np.zeros(surface.places.size, dtype=np.int64)
    if other.places.size:
        flat, shape = other.corners.ravel(), other.corners.shape
        left, places = np.arange(surface.places.size), surface.places
        for step, length in zip(*_steps(spacing), strict=True):
            reached = places + (step[0] * shape[1] + step[1]) * shape[2] + step[2]
            found = flat[reached]
            lengths[left[found]] = length
            nearest[left[found]] = reached[found]
            missed = ~found
            left, places = left[missed], places[missed]
        if left.size:
            lengths[left], nearest[left] = _search(places, other.places, shape, spacing)
    return _Nearest(surface, other, lengths, nearest)


def _search(
    places: Places, corners: Places, shape: tuple[int, ...], spacing: Spacing
) -> tuple[Distances, Places]:
    """The nearest of some corners to each place, however far: mm, and where it is."""
    if TREE_COST * places.size * math.sqrt(corners.size) > math.prod(shape):
        outside = np.ones(math.prod(shape), dtype=bool)
        outside[corners] = False
        feature: NDArray[np.int32] = ndimage.distance_transform_edt(
            outside.reshape(shape),
            sampling=spacing,
            return_distances=False,
            return_indices=True,
        )
        x, y, z = feature.reshape(3, -1)[:, places]
        nearest: Places = np.ravel_multi_index((x, y, z), shape).astype(np.int64)
    else:
        tree = cKDTree(
            _coordinates(corners, shape) * spacing, balanced_tree=False, compact_nodes=False
        )
        nearest = corners[tree.query(_coordinates(places, shape) * spacing)[1]]
    steps = _coordinates(places, shape) - _coordinates(nearest, shape)
    return _lengths(steps, spacing), nearest


def _coordinates(places: Places, shape: tuple[int, ...]) -> Places:
    """Indices (place, 3) of places in a flat array."""
    return np.column_stack(np.unravel_index(places, shape))


def _lengths(steps: NDArray[np.int64], spacing: Spacing) -> Distances:
    """Lengths in mm of steps (step, 3) in voxels, the same for the same step."""
    lengths: Distances = np.sqrt(((steps * spacing) ** 2).sum(axis=1))
    return lengths


@lru_cache(maxsize=16)
def _steps(spacing: Spacing) -> tuple[NDArray[np.int64], Distances]:
    """Steps of up to ``REACH`` voxels and their lengths in mm, the shortest first.

    All that are shorter than any step beyond the reach: whoever meets a surface by the first of
    them that does has the distance to it.
    """
    along = np.arange(-REACH, REACH + 1)
    steps = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = _lengths(steps, spacing)
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
