"""Intensities brought to one scale, channel by channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelsoup.study.sections.data import Normalisation

Array = NDArray[Any]


def normalise(channel: Array, normalisation: Normalisation) -> Array:
    """Z-score one channel, as MONAI's ``NormalizeIntensity`` does; without contrast it becomes 0.

    ``zscore-nonzero`` takes mean and standard deviation over the voxels that are not 0, which stay
    0; ``zscore`` over all; ``none`` changes nothing. The channel (float32) is overwritten, to spare
    memory, and returned; sums run in double precision.
    """
    if normalisation == "none":
        return channel
    foreground = channel != 0 if normalisation == "zscore-nonzero" else np.ones((), bool)
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
