"""Augmentation: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 4.

One volume (x, y, z) at a time, in float64, as batchgenerators does it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float64]


def rotation(angles: Sequence[float]) -> NDArray[np.float64]:
    """The matrix of rotations about x, y and z, in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    return (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    )


def rotated(volume: Volume, angles: Sequence[float], zoom: float) -> Volume:
    """Rotated and zoomed about the centre, voxel by voxel; zeros come in from outside."""
    centre = (np.array(volume.shape) - 1) / 2
    matrix = rotation(angles) / zoom
    result = np.zeros(volume.shape)
    for place in np.ndindex(volume.shape):
        source = matrix @ (place - centre) + centre
        low = np.floor(source).astype(int)
        # Trilinear: each of the eight voxels around by its share.
        for corner in itertools.product((0, 1), repeat=3):
            voxel = low + corner
            if (voxel >= 0).all() and (voxel < volume.shape).all():
                share = np.where(corner, source - low, 1 - (source - low)).prod()
                result[place] += share * volume[tuple(voxel)]
    return result


def contrast(volume: Volume, factor: float) -> Volume:
    """Spread about the mean by a factor, within the range that was there."""
    mean = volume.mean()
    return np.clip((volume - mean) * factor + mean, volume.min(), volume.max())


def gamma(volume: Volume, exponent: float) -> Volume:
    """Raised to a power within its range; mean and deviation stay."""
    low, high = volume.min(), volume.max()
    power = ((volume - low) / (high - low)) ** exponent * (high - low) + low
    return (power - power.mean()) / power.std() * volume.std() + volume.mean()


def blurred(volume: Volume, sigma: float) -> Volume:
    """Smoothed by a Gaussian that ends at three sigma, as if the outermost voxels continued."""
    radius = int(np.ceil(3 * sigma))
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    for axis in range(3):
        side = volume.shape[axis]
        volume = sum(
            weight * volume.take(np.clip(np.arange(side) + offset, 0, side - 1), axis)
            for offset, weight in zip(offsets, weights, strict=True)
        )
    return volume


def low_resolution(volume: Volume, share: float) -> Volume:
    """Taken with larger voxels, each the nearest old one, and interpolated linearly back."""
    coarse = volume
    for axis, side in enumerate(volume.shape):
        few = max(1, round(side * share))
        nearest = [int((voxel + 0.5) * side / few) for voxel in range(few)]
        coarse = coarse.take(nearest, axis)
    return interpolated(coarse, volume.shape)


def interpolated(volume: Volume, shape: Sequence[int]) -> Volume:
    """Stretched to a shape, linearly between voxel centres."""
    for axis, side in enumerate(shape):
        few = volume.shape[axis]
        places = np.clip((np.arange(side) + 0.5) * few / side - 0.5, 0, few - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, few - 1)
        part = (places - low).reshape([-1 if a == axis else 1 for a in range(3)])
        volume = volume.take(low, axis) * (1 - part) + volume.take(high, axis) * part
    return volume
