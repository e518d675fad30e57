"""Bringing volumes from one voxel size to another.

Images by cubic splines, label maps by the largest linear share, probabilities linearly; the
outer faces of the first and last voxels stay where they are, as in nnU-Net and scikit-image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]


def resample_image(channel: Array, shape: list[int], keep_zeros: bool) -> Array:
    """Resample one channel (x, y, z) to another shape with cubic splines.

    Args:
        channel: float32 voxels.
        shape: wanted voxels (x, y, z).
        keep_zeros: whether voxels that lie mostly in the background (exactly 0) become 0 again.
    """
    resampled = _zoom(channel, shape, 3)
    if keep_zeros and not channel.all():
        # Splines ring beside the brain's edge; without this, the background would no longer be
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
    return np.stack([_zoom(region, shape, 1) for region in probabilities])


def _zoom(array: Array, shape: list[int], order: int) -> Array:
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return np.asarray(ndimage.zoom(array, factors, order=order, mode="nearest", grid_mode=True))
