"""Volumes cropped to the part that is not 0, each as soon as it is read.

Three quarters of a skull-stripped brain scan are zeros. Copying the rest and releasing the volume
before the next one is read saves memory and time: the next volume is unpacked into the same pages,
where fresh ones would cost more than the unpacking.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxelsoup.common import files

# Channels of this size as stored (a BraTS case has 18 MB) do not wait for each other in memory.
PARKED_BYTES = 2**27
Array = NDArray[Any]
# First and last + 1 voxel along x, y and z.
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Crop:
    """The part of a volume within a box (None if the whole volume is 0); all outside of it is 0.

    ``voxels`` are a copy of that part (x, y, z).
    """

    voxels: Array
    box: Box | None

    def within(self, box: Box) -> Array:
        """The volume's voxels in another box (x, y, z)."""
        if self.box == box:
            return self.voxels
        voxels = np.zeros([stop - start for start, stop in box], self.voxels.dtype, order="F")
        if self.box is not None:
            pairs = list(zip(self.box, box, strict=True))
            shared = [(max(own[0], new[0]), min(own[1], new[1])) for own, new in pairs]
            to, of = (
                tuple(
                    slice(start - sides[0], max(start, stop) - sides[0])
                    for (start, stop), sides in zip(shared, where, strict=True)
                )
                for where in (box, self.box)
            )
            voxels[to] = self.voxels[of]
        return voxels

    def parked(self, folder: Path) -> Crop:
        """The same on the disk if it is large, nameless; raises InputError if there is no room."""
        if self.voxels.nbytes < PARKED_BYTES:
            return self
        # As files mostly have it, so that nothing is copied: the first axis is the fastest.
        order: Literal["C", "F"] = "C" if self.voxels.flags.c_contiguous else "F"
        folder.mkdir(parents=True, exist_ok=True)
        with files.writable(folder), tempfile.TemporaryFile(dir=folder) as stream:
            self.voxels.ravel(order=order).tofile(stream)
            mapped = np.memmap(stream, self.voxels.dtype, "r", shape=self.voxels.shape, order=order)
        return Crop(mapped, self.box)


def uncropped(volume: Array) -> Crop:
    """A volume (x, y, z) with all that is around what it shows."""
    return Crop(volume, everything(volume.shape))


def cropped(volume: Array) -> Crop:
    """A copy of the smallest box around the voxels of a volume (x, y, z) that are not 0."""
    box = box_of(volume)
    if box is None:
        return Crop(np.zeros((0, 0, 0), volume.dtype), None)
    return Crop(volume[tuple(slice(*side) for side in box)].copy(order="K"), box)


def everything(shape: Iterable[int]) -> Box:
    """The box of a whole volume."""
    x, y, z = shape
    return (0, int(x)), (0, int(y)), (0, int(z))


def common_box(found: Iterable[Box | None]) -> Box | None:
    """The smallest box around all boxes; None if there is none."""
    boxes = np.array([box for box in found if box is not None])
    if not len(boxes):
        return None
    first, last = boxes[..., 0].min(axis=0).tolist(), boxes[..., 1].max(axis=0).tolist()
    x, y, z = zip(first, last, strict=True)
    return x, y, z


def box_of(volume: Array) -> Box | None:
    """The smallest box around the voxels of a volume (x, y, z) that are not 0; None without any."""
    # Along z first: in files, and so in memory, its slices lie one behind the other.
    seen = np.asarray(volume.any(axis=2))
    if not seen.any():
        return None
    x, y = _ends(seen, 1), _ends(seen, 0)
    return x, y, _ends(volume[slice(*x), slice(*y)], (0, 1))


def _ends(volume: Array, others: int | tuple[int, ...]) -> tuple[int, int]:
    places = np.flatnonzero(volume.any(axis=others))
    return int(places[0]), int(places[-1]) + 1
