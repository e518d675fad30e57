"""What a header says: where the voxels lie in their file, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxelsoup.common.errors import InputError

# The unit vectors along the axes of a usable grid span at least this volume: real scans are
# orthogonal (1) or tilted by a gantry's few degrees.
FLATTEST = 1e-6
# Both MetaImage and NRRD mostly count in LPS, as DICOM does.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

Packing = Literal["raw", "gzip", "zlib"]


@dataclass(frozen=True)
class Forms:
    """The affines (voxel indices to mm, RAS+) that one header states.

    Attributes:
        affines: name -> affine; the first is the one that is used, as in nibabel and FSL.
        itk: the name of the one that ITK takes.
    """

    affines: Mapping[str, np.ndarray]
    itk: str


@dataclass(frozen=True)
class VoxelLayout:
    """Where the voxels lie in a file, and what they mean.

    Attributes:
        sides: the stored array's sides, the fastest first.
        dtype: type and byte order of a stored number.
        affine: 4 x 4, from voxel indices (x, y, z) to millimetres (RAS+).
        forms: the affines that the header states, where it can state several.
        place: header field -> value, what places the voxels of a NIfTI file.
        start: the byte of the file where the (packed) stream begins.
        offset: the byte of the unpacked stream where the voxels begin.
        slope, intercept: voxel = stored number * slope + intercept.
        component_axis: which of ``sides`` counts components, where that is not the fourth.
    """

    sides: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: np.ndarray
    packing: Packing = "raw"
    start: int = 0
    offset: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    component_axis: int | None = None
    forms: Forms | None = None
    place: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels (x, y, z), and components where there are any."""
        if self.component_axis is None:
            return self.sides
        axis = self.component_axis
        return (*self.sides[:axis], *self.sides[axis + 1 :], self.sides[axis])

    @property
    def end(self) -> int:
        """Bytes that the unpacked stream has to have."""
        return self.offset + math.prod(self.sides) * self.dtype.itemsize

    def voxels(self, stream: bytes | bytearray | memoryview) -> np.ndarray:
        """The stored numbers (x, y, z[, component]): a view on the unpacked stream."""
        count = math.prod(self.sides)
        numbers = np.frombuffer(stream, self.dtype, count=count, offset=self.offset)
        stored = numbers.reshape(self.sides, order="F")
        if self.component_axis is None:
            return stored
        return np.moveaxis(stored, self.component_axis, -1)


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as text: 240x240x155."""
    return "x".join(str(side) for side in shape)


def unreadable(file: Path, reason: str, fix: str | None = None) -> InputError:
    """The refusal of a file that is incomplete, or not what its name says."""
    return InputError(
        file,
        f"cannot be read: {reason}",
        "a complete NIfTI, MetaImage or NRRD file",
        fix or "copy or download the file again; it may have been cut off",
    )


def check_affine(file: Path, affine: np.ndarray) -> None:
    """Raise an InputError if an affine is not finite or its axes lie in one plane."""
    if not is_usable(affine):
        raise InputError(
            file,
            "has an affine that does not locate its voxels (singular or not finite)",
            "an affine with three independent axes",
            "set the sform or qform (NIfTI), the directions and spacing (MetaImage, NRRD) in its "
            "header",
        )


def is_usable(affine: np.ndarray) -> bool:
    """Whether an affine is finite and has three independent axes."""
    with np.errstate(all="ignore"):
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        volume = np.linalg.det(affine[:3, :3] / sides)
        finite = np.isfinite(affine).all() and np.isfinite(sides).all() and (sides > 0).all()
    return bool(finite and abs(volume) > FLATTEST)


def affine_of(directions: np.ndarray, origin: np.ndarray, to_ras: np.ndarray) -> np.ndarray:
    """The affine (RAS+) of axes (columns, in mm per voxel) and an origin in another space."""
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, :3] = to_ras @ directions
        affine[:3, 3] = to_ras @ origin
    return affine
