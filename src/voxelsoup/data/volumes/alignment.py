"""Volumes of one case on one voxel grid, however each of them was stored."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.data.volumes.volume import Volume
from voxelsoup.data.volumes.voxel_layout import shape_text

# In voxel sides. SimpleITK's 1e-6 refuses what float32 headers and repeated conversion round
# away, which moves no voxel; half a voxel is a real shift, and so are the tenths that are left
# where one channel was resampled and not the others.
LARGEST_SHIFT = 0.05
# In mm: rounding that needs no message.
NOTED_SHIFT = 1e-3


def align(volume: Volume, reference: Volume, file: Path, first: Path) -> tuple[Volume, str | None]:
    """Turn a volume's voxels onto the grid of another.

    Axes are permuted and flipped, no voxel is interpolated or copied. Which axis is which is read
    from the volume's affine in the voxel indices of the reference, so that scans at 45 degrees,
    whose axes have no certain name, are left as they are stored where the grids agree.

    Args:
        volume: from ``file``.
        reference: from ``first``, the case's first file.

    Returns:
        The volume (x, y, z as in the reference, with the reference's affine), and in words what
        had to be handled, or None.

    Raises:
        InputError: if the shapes differ, or a corner is displaced by more than
            ``LARGEST_SHIFT`` of the smallest voxel side.
    """

    def refuse(difference: str) -> NoReturn:
        raise InputError(
            file,
            f"has {difference}, compared with {first.name}",
            "one grid for all files of a case",
            "register or resample the files of the case to one grid",
        )

    turn = nib.orientations.io_orientation(np.linalg.inv(reference.affine) @ volume.affine)
    if np.isnan(turn).any():
        refuse("axes that differ")
    shape = volume.data.shape
    data = nib.orientations.apply_orientation(volume.data, turn)
    if data.shape != reference.data.shape:
        refuse(f"shape {shape_text(shape)} instead of {shape_text(reference.data.shape)}")
    affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, shape)
    shift = _largest_shift(affine, reference.affine, data.shape)
    share = shift / min(reference.spacing)
    drift = f"affine that differs by up to {shift:.3g} mm ({share:.2g} voxels)"
    # Not "share > LARGEST_SHIFT": an overflow does not match either.
    if not share <= LARGEST_SHIFT:
        refuse(f"an {drift}")
    notes = []
    if not np.array_equal(turn, [[0, 1], [1, 1], [2, 1]]):
        notes.append(f"stored in the orientation {_name(volume)}, turned to {_name(reference)}")
    if shift > NOTED_SHIFT:
        notes.append(f"has an {drift}")
    return replace(volume, data=data, affine=reference.affine), "; ".join(notes) or None


def _largest_shift(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance in mm between the places that two affines give to a corner voxel."""
    corners = [(*corner, 1) for corner in product(*((0, side - 1) for side in shape))]
    return float(np.linalg.norm((one - other) @ np.array(corners).T, axis=0).max())


def _name(volume: Volume) -> str:
    return "".join(axis or "?" for axis in nib.orientations.aff2axcodes(volume.affine))
