"""Intensities brought to one scale, channel by channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxelsoup.study.sections.data import Normalisation

Array = NDArray[Any]
PERCENTILES = (0.5, 99.5)
# Schemes by which what is exactly 0 is no part of the scan.
KEEPS_ZEROS = ("zscore-nonzero", "zscore-foreground")


def normalise(channel: Array, normalisation: Normalisation) -> Array:
    """Z-score one channel, as MONAI's ``NormalizeIntensity`` does; without contrast it becomes 0.

    ``zscore-nonzero`` takes mean and standard deviation over the voxels that are not 0, which stay
    0; ``zscore-foreground`` over the region that they enclose, outside of which all becomes 0 (as
    nnU-Net's ``use_mask_for_norm``); ``zscore`` over all. ``percentile`` clips at the channel's own
    percentiles and scales these to 0 and 1 (MONAI's ``ScaleIntensityRangePercentiles``). ``ct``,
    which is applied when a patch is read, and ``none`` change nothing. The channel (float32: x, y,
    z) is overwritten, to spare memory, and returned; sums run in double precision.
    """
    if normalisation in ("none", "ct"):
        return channel
    if normalisation == "percentile":
        return _between_percentiles(channel)
    foreground = _foreground(channel, normalisation)
    voxels = np.count_nonzero(np.broadcast_to(foreground, channel.shape)) or 1
    channel -= np.float32(channel.sum(dtype=np.float64) / voxels)
    channel *= foreground
    # The mean of equal voxels is their value to the last bit of a float32: without contrast, all
    # are exactly 0 by now.
    # Slice by slice, so that no second channel of squares is in memory.
    squares = sum(float(np.square(part).sum(dtype=np.float64)) for part in channel)
    deviation = np.sqrt(squares / voxels)
    if deviation > 0:
        channel /= np.float32(deviation)
    return channel


def _foreground(channel: Array, normalisation: Normalisation) -> Array:
    """The voxels that mean and deviation are taken of: booleans (x, y, z), or one for all."""
    if normalisation == "zscore":
        return np.ones((), bool)
    present = channel != 0
    if normalisation == "zscore-foreground":
        return np.asarray(ndimage.binary_fill_holes(present))
    return present


def _between_percentiles(channel: Array) -> Array:
    low, high = (np.float32(value) for value in np.percentile(channel, PERCENTILES))
    np.clip(channel, low, high, out=channel)
    channel -= low
    if high > low:
        channel /= high - low
    return channel
