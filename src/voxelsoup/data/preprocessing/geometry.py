"""From the preprocessed grid back to the scan's own voxels and to the scanner's file.

A case's geometry is what ``{case}.json`` holds: original shape and affine, orientation, crop,
resampling and padding; each step of the preprocessing is undone by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from voxelsoup.data.preprocessing.resample import resample_probabilities, resample_rows

RAS = np.array([[0, 1], [1, 1], [2, 1]])

Geometry = dict[str, Any]
Array = NDArray[Any]


def inside(geometry: Geometry) -> tuple[slice, ...]:
    """The padded array's part that is not padding."""
    return tuple(
        slice(before, before + side)
        for (before, _), side in zip(geometry["padding"], geometry["resampled_shape"], strict=True)
    )


def restore(probabilities: Array, geometry: Geometry) -> Array:
    """Bring probabilities (region, x, y, z) on the preprocessed, padded grid to the scan's voxels.

    Returns:
        (region, x, y, z) at native spacing in the RAS crop; resampled linearly, and only where
        preprocessing had resampled.
    """
    inner = probabilities[(slice(None), *inside(geometry))]
    shape = geometry["native_shape"]
    if geometry["resampled_shape"] == shape:
        return inner
    return resample_probabilities(inner, shape)


def restore_rows(pieces: Iterable[Array], geometry: Geometry) -> Iterator[Array]:
    """As ``restore``, rows (region, x, y, z) that follow one another along x at a time."""
    inner = _without_padding(pieces, geometry)
    before, after = geometry["resampled_shape"], geometry["native_shape"]
    return inner if before == after else resample_rows(inner, before, after)


def _without_padding(pieces: Iterable[Array], geometry: Geometry) -> Iterator[Array]:
    rows, y, z = inside(geometry)
    row = 0
    for piece in pieces:
        kept = piece[:, max(0, rows.start - row) : max(0, rows.stop - row), y, z]
        row += piece.shape[1]
        if kept.shape[1]:
            yield kept


def to_scanner(volume: Array, geometry: Geometry) -> Array:
    """Put a volume (x, y, z) at native spacing in the RAS crop into the scanner's own grid.

    Returns:
        (x, y, z) in the original file's shape and axis order, 0 outside the crop; its affine is
        ``geometry["original_affine"]``.
    """
    full = np.zeros(geometry["ras_shape"], volume.dtype)
    full[tuple(slice(start, stop) for start, stop in geometry["crop"])] = volume
    back = nib.orientations.ornt_transform(RAS, np.array(geometry["orientation"]))
    return np.asarray(nib.orientations.apply_orientation(full, back))
