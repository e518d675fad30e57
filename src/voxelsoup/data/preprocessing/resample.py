"""Bringing volumes from one voxel size to another.

Images by cubic splines, label maps by the largest linear share, probabilities linearly; the
outer faces of the first and last voxels stay where they are, as in nnU-Net and scikit-image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
SPACING_TOLERANCE = 1e-4


def resampled_shape(
    after: Sequence[float], before: Sequence[float], old: Sequence[int]
) -> list[int]:
    """Voxels (x, y, z) after resampling to another voxel size (mm); ``old`` if they agree."""
    if (np.abs(np.array(after) / np.array(before) - 1) <= SPACING_TOLERANCE).all():
        return list(old)
    return [max(1, round(n * b / a)) for n, b, a in zip(old, before, after, strict=True)]


def resample_image(channel: Array, shape: list[int], keep_zeros: bool) -> Array:
    """Resample one channel (float32: x, y, z) to another shape with cubic splines.

    With ``keep_zeros``, voxels that lie mostly in the background (exactly 0) become 0 again.
    """
    resampled = _zoom(channel, shape, 3)
    if keep_zeros and not channel.all():
        # Splines ring at the brain's edge; without this, the background would no longer be
        # 0 and would take part in the normalisation.
        resampled[_zoom((channel != 0).astype(np.float32), shape, 1) < 0.5] = 0
    return resampled


def resample_label(label: Array, shape: list[int]) -> Array:
    """Resample a label map (x, y, z): each voxel gets the value with the largest linear share."""
    best = np.full(shape, -1, np.float32)
    result = np.zeros(shape, np.uint8)
    for value in np.unique(label):
        weight = _zoom((label == value).astype(np.float32), shape, 1)
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


def _zoom(array: Array, shape: list[int], order: int) -> Array:
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return np.asarray(ndimage.zoom(array, factors, order=order, mode="nearest", grid_mode=True))
