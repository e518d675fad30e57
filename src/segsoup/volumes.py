"""Volumes in NIfTI files: read whole, or refused with the reason."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from segsoup.cases.case import Source
from segsoup.errors import InputError

# Rounding of affines in headers stays far below; real shifts are far above.
AFFINE_TOLERANCE = 1e-3

READ_ERRORS = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    EOFError,
    zlib.error,
    OSError,
    ValueError,
)


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the scanner.

    Attributes:
        data: voxels (x, y, z) in the file's own orientation.
        affine: 4 x 4, from voxel indices to millimetres (RAS+).
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm (x, y, z)."""
        x, y, z = nib.affines.voxel_sizes(self.affine)
        return float(x), float(y), float(z)


def read_volume(source: Source) -> Volume:
    """Read one volume.

    Raises:
        InputError: if the file is missing, damaged, not a 3D volume or not finite.
    """
    data, affine = _read(source)
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(
            source.file,
            "holds voxels that are not finite (NaN or infinite)",
            "finite voxels",
            "export the scan again, or leave the case out",
        )
    return Volume(data, affine)


def read_label(source: Source) -> Volume:
    """Read a label map as uint8.

    Raises:
        InputError: as ``read_volume``, and if values are not whole numbers from 0 to 255.
    """
    volume = read_volume(source)
    values = volume.data
    labels = values.astype(np.uint8)
    if not np.array_equal(labels, values):
        wrong = values[labels != values].flat[0]
        raise InputError(
            source.file,
            f"holds the label value {wrong:g}",
            "whole label values from 0 to 255",
            "save the label map without interpolation or probabilities",
        )
    return Volume(labels, volume.affine)


def same_grid(one: Volume, other: Volume) -> str | None:
    """What differs between the grids of two volumes, in words; None if nothing does."""
    if one.data.shape != other.data.shape:
        return f"shape {shape_text(one.data.shape)} instead of {shape_text(other.data.shape)}"
    difference = float(np.abs(one.affine - other.affine).max())
    if difference > AFFINE_TOLERANCE:
        return f"an affine that differs by up to {difference:g} mm"
    return None


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for people: 240x240x155."""
    return "x".join(str(side) for side in shape)


def write_volume(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a gzipped NIfTI file; the same voxels give the same bytes."""
    import gzip

    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream, gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
        packed.write(image.to_bytes())


def _read(source: Source) -> tuple[np.ndarray, np.ndarray]:
    if not source.file.is_file():
        raise InputError(
            source.file,
            "no such file",
            "a NIfTI file (.nii or .nii.gz)",
            "add the file, or leave the case out with `dataset.on_bad_case: skip`",
        )
    try:
        image: Any = nib.load(source.file)
        data = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except READ_ERRORS as error:
        raise InputError(
            source.file,
            f"cannot be read: {error}",
            "a whole NIfTI file",
            "copy or download the file again; it may have been cut off",
        ) from error
    return _three_dimensional(data, source), affine


def _three_dimensional(data: np.ndarray, source: Source) -> np.ndarray:
    if source.component is not None:
        if data.ndim != 4 or source.component >= data.shape[3]:
            raise InputError(
                source.file,
                f"has shape {shape_text(data.shape)} and no channel {source.component}",
                "a 4D volume with one component per channel",
                "correct `dataset.channels`, or the file",
            )
        return data[..., source.component]
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or 0 in data.shape:
        raise InputError(
            source.file,
            f"has shape {shape_text(data.shape)}",
            "a volume of three dimensions",
            "split it into one file per channel",
        )
    return data
