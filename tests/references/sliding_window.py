"""Sliding windows: Isensee et al., nnU-Net, Nature Methods 2021, section "Inference".

Neighbouring windows overlap, and logits are averaged with Gaussian weights (sigma an eighth of
the patch), so that voxels in the middle of a window count more than those at its edge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float64]


def starts(side: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis; the last window ends with the volume."""
    step = side if side == patch else max(1, int(patch * (1 - overlap)))
    count = math.ceil((side - patch) / step) + 1
    return [min(number * step, side - patch) for number in range(count)]


def gaussian(patch: Sequence[int]) -> Volume:
    """The weight of each voxel of a window, at most 1 and at least a thousandth of that."""
    weights = np.ones(tuple(patch))
    for place in np.ndindex(*patch):
        for voxel, side in zip(place, patch, strict=True):
            weights[place] *= math.exp(-0.5 * ((voxel - (side - 1) / 2) / (side / 8)) ** 2)
    return np.maximum(weights, 1e-3)


def blended(
    network: Callable[[Volume], Volume], image: Volume, patch: Sequence[int], overlap: float
) -> Volume:
    """Logits (region, x, y, z) of an image (channel, x, y, z), window by window.

    Where the image is smaller than the patch it is padded by zeros on both sides, the odd one
    behind.
    """
    missing = [max(0, side - have) for side, have in zip(patch, image.shape[1:], strict=True)]
    pads = [(side // 2, side - side // 2) for side in missing]
    padded = np.pad(image, [(0, 0), *pads])
    shape, importance = padded.shape[1:], gaussian(patch)
    sums, weights = 0.0, np.zeros(shape)
    along = [starts(side, window, overlap) for side, window in zip(shape, patch, strict=True)]
    for first in itertools.product(*along):
        place = tuple(slice(f, f + side) for f, side in zip(first, patch, strict=True))
        logits = network(padded[(slice(None), *place)])
        whole = np.zeros((len(logits), *shape))
        whole[(slice(None), *place)] = logits * importance
        sums = sums + whole
        weights[place] += importance
    inside = tuple(
        slice(before, before + side)
        for (before, _), side in zip(pads, image.shape[1:], strict=True)
    )
    return (sums / weights)[(slice(None), *inside)]
