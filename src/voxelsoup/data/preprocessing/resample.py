"""Bringing volumes from one voxel size to another.

Images by cubic splines, label maps by the largest linear share, probabilities linearly; the
outer faces of the first and last voxels stay where they are, as in nnU-Net and scikit-image.

Splines across thick slices ring over centimetres. There each slice may be resampled by itself, and
the axis across them afterwards, as in nnU-Net (``get_lowres_axis`` and ``resample_data_or_seg`` in
``nnunetv2/preprocessing/resampling/default_resampling.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxelsoup.study.sections.data import ThickSlices

Array = NDArray[Any]
SPACING_TOLERANCE = 1e-4
# nnU-Net's: voxels so many times as long along an axis as along the shortest are thick slices.
ANISOTROPY = 3
ORDERS = {"nearest": 0, "linear": 1}


@dataclass(frozen=True)
class Across:
    """The axis across thick slices, and the order of the splines along it."""

    axis: int
    order: int


def across_slices(
    how: ThickSlices, before: Sequence[float], after: Sequence[float] | None
) -> Across | None:
    """How thick slices are resampled; None where all axes are treated alike.

    Thick are those of the voxel size before, or else of the one after (mm, x, y, z); two axes as
    coarse as each other are not slices.
    """
    if how == "cubic" or after is None:
        return None
    for size in (np.array(before), np.array(after)):
        if size.max() > ANISOTROPY * size.min():
            coarse = np.flatnonzero(size >= size.max() * (1 - SPACING_TOLERANCE))
            return Across(int(coarse[0]), ORDERS[how]) if len(coarse) == 1 else None
    return None


def resampled_shape(
    after: Sequence[float], before: Sequence[float], old: Sequence[int]
) -> list[int]:
    """Voxels (x, y, z) after resampling to another voxel size (mm); ``old`` if they agree."""
    if (np.abs(np.array(after) / np.array(before) - 1) <= SPACING_TOLERANCE).all():
        return list(old)
    return [max(1, round(n * b / a)) for n, b, a in zip(old, before, after, strict=True)]


def resample_image(
    channel: Array, shape: list[int], keep_zeros: bool, across: Across | None = None
) -> Array:
    """Resample one channel (float32: x, y, z) to another shape with cubic splines.

    With ``keep_zeros``, voxels that lie mostly in the background (exactly 0) become 0 again.
    ``across`` is from ``across_slices``.
    """
    resampled = _zoom(channel, shape, 3, across)
    if keep_zeros and not channel.all():
        # Splines ring at the brain's edge; without this, the background would no longer be
        # 0 and would take part in the normalisation.
        resampled[_zoom((channel != 0).astype(np.float32), shape, 1, across) < 0.5] = 0
    return resampled


def resample_label(label: Array, shape: list[int], across: Across | None = None) -> Array:
    """Resample a label map (x, y, z): each voxel gets the value with the largest linear share.

    ``across`` is from ``across_slices``.
    """
    best = np.full(shape, -1, np.float32)
    result = np.zeros(shape, np.uint8)
    for value in np.unique(label):
        weight = _zoom((label == value).astype(np.float32), shape, 1, across)
        better = weight > best
        result[better] = value
        best[better] = weight[better]
    return result


def resample_probabilities(probabilities: Array, shape: list[int]) -> Array:
    """Resample probabilities (region, x, y, z) linearly."""
    sides = [int(side) for side in probabilities.shape[1:]]
    pieces = resample_rows([probabilities], sides, shape)
    return np.concatenate(list(pieces), axis=1)


def resample_rows(pieces: Iterable[Array], before: list[int], after: list[int]) -> Iterator[Array]:
    """Resample probabilities linearly from ``before`` to ``after`` voxels (x, y, z), row by row.

    ``pieces`` are float32 rows (region, x, y, z) that follow one another along x. Yields such rows
    of the result, as soon as their neighbours are there.
    """
    # Centres of the new rows, in old ones; beyond the outermost centres, the outermost row holds.
    places = (np.arange(after[0]) + 0.5) * before[0] / after[0] - 0.5
    places = np.clip(places, 0, before[0] - 1)
    lower = np.minimum(places.astype(int), max(0, before[0] - 2))
    shares = (places - lower).astype(np.float32)
    known: Array | None = None
    first = done = seen = 0  # rows: the first that is known, new ones done, old ones seen
    for piece in pieces:
        seen += piece.shape[1]
        flat = np.stack([_zoom(region, [len(region), *after[1:]], 1) for region in piece])
        known = flat if known is None else np.concatenate([known, flat], axis=1)
        ready = int(np.searchsorted(np.minimum(lower + 1, before[0] - 1), seen, side="left"))
        if ready == done:
            continue
        low = lower[done:ready] - first
        share = shares[done:ready, None, None]
        high = np.minimum(low + 1, known.shape[1] - 1)
        yield known[:, low] * (1 - share) + known[:, high] * share
        done = ready
        needed = min(int(lower[done]), seen) if done < after[0] else seen
        known, first = known[:, needed - first :], needed


def _zoom(array: Array, shape: list[int], order: int, across: Across | None = None) -> Array:
    if across is not None:
        slices = np.moveaxis(array, across.axis, 0)
        plane = [side for axis, side in enumerate(shape) if axis != across.axis]
        slices = np.stack([_zoom(each, plane, order) for each in slices])
        slices = _zoom(slices, [shape[across.axis], *plane], across.order)
        return np.ascontiguousarray(np.moveaxis(slices, 0, across.axis))
    if list(array.shape) == shape:
        return array
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return np.asarray(ndimage.zoom(array, factors, order=order, mode="nearest", grid_mode=True))
