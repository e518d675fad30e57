"""Volumes in NIfTI files: read whole, or refused with the reason.

The header is checked before any voxel is read, and a compressed file is unpacked to its end,
checksum included, so that a truncated or damaged one is noticed wherever the damage lies.
"""

from __future__ import annotations

import difflib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from segsoup.cases.case import Source
from segsoup.errors import InputError

# Rounding of affines in headers stays far below; real shifts are far above.
AFFINE_TOLERANCE = 1e-3
SUFFIXES = (".nii", ".nii.gz")

GZIP_MAGIC = b"\x1f\x8b"
GZIP = 31
LARGEST_HEADER = 540
# Deflate shrinks nothing by more than this factor: a header that promises more voxels than the
# file can hold is refused before any memory is spent on it.
LARGEST_DEFLATE_RATIO = 1032
SLACK = 2**20

UNPARSABLE = (
    HeaderDataError,
    WrapStructError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
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
    labels = np.clip(values, 0, 255).astype(np.uint8)
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


@dataclass(frozen=True)
class _Header:
    """Where the voxels lie in the unpacked file, and what they mean."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: np.ndarray

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def _read(source: Source) -> tuple[np.ndarray, np.ndarray]:
    content = _content(source.file)
    packed = content.startswith(GZIP_MAGIC)
    header = _header(source.file, _beginning(source.file, content) if packed else content)
    # In this order, so that a wrong shape is refused before its voxels are unpacked.
    select = _three_dimensional(header.shape, source)
    if header.end > len(content) * (LARGEST_DEFLATE_RATIO if packed else 1):
        raise _unreadable(
            source.file, f"its header promises {header.end} bytes, more than the file can hold"
        )
    if packed:
        content = _unpack(source.file, content, header.end)
    if len(content) < header.end:
        raise _unreadable(
            source.file, f"it ends after {len(content)} of the {header.end} bytes it promises"
        )
    count = math.prod(header.shape)
    voxels = np.frombuffer(content, header.dtype, count=count, offset=header.offset)
    return _scaled(voxels.reshape(header.shape, order="F")[select], header), header.affine


def _content(file: Path) -> bytes:
    if not file.is_file():
        raise InputError(
            file,
            f"no such file{_nearest(file)}",
            "a NIfTI file (.nii or .nii.gz)",
            "add the file or correct its name, or leave the case out",
        )
    if not file.name.endswith(SUFFIXES):
        raise _unreadable(file, "its name ends in neither .nii nor .nii.gz", "convert it to NIfTI")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, str(error.strerror or error), "check its permissions") from error
    if not content:
        raise _unreadable(file, "it is empty")
    return content


def _nearest(file: Path) -> str:
    """Which names come nearest to a missing file's, in words: it may be called otherwise."""
    if not file.parent.is_dir():
        return f"; there is no folder {file.parent} either"
    names = [p.name for p in file.parent.iterdir() if p.name.endswith(SUFFIXES)]
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.3)
    return f"; nearest in its folder: {', '.join(near)}" if near else ""


def _unreadable(file: Path, reason: str, mend: str | None = None) -> InputError:
    return InputError(
        file,
        f"cannot be read: {reason}",
        "a whole NIfTI file",
        mend or "copy or download the file again; it may have been cut off",
    )


def _beginning(file: Path, content: bytes) -> bytes:
    try:
        return zlib.decompressobj(GZIP).decompress(content, LARGEST_HEADER)
    except zlib.error as error:
        raise _unreadable(file, f"its gzip stream is damaged ({error})") from error


def _header(file: Path, beginning: bytes) -> _Header:
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        size = kind.template_dtype.itemsize
        if len(beginning) >= size and kind.may_contain_header(beginning):
            try:
                return _interpret(file, kind(beginning[:size]))
            except UNPARSABLE as error:
                raise _unreadable(file, f"its header is damaged ({error})") from error
    raise _unreadable(file, "it has no NIfTI header")


def _interpret(file: Path, header: Any) -> _Header:
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or not header.is_single:
        raise _unreadable(
            file, "it holds no plain numbers in one file", "convert it to a plain .nii.gz"
        )
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            file,
            "has an affine that does not say where its voxels lie (singular or not finite)",
            "an affine with three independent axes",
            "set the sform or qform in its header",
        )
    # nibabel takes an infinite slope for none.
    stored = float(header["scl_slope"]) if "scl_slope" in header else 1.0
    slope, intercept = header.get_slope_inter()
    if math.isinf(stored):
        raise ValueError("its voxels are scaled by infinity")
    return _Header(
        shape=tuple(int(side) for side in header.get_data_shape()),
        dtype=dtype,
        offset=max(int(header.get_data_offset()), header.template_dtype.itemsize),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        affine=affine,
    )


def _unpack(file: Path, content: bytes, promised: int) -> bytes:
    """Unpack to the end, but never far beyond what the header promises."""
    left = promised + SLACK
    parts = []
    while content:
        stream = zlib.decompressobj(GZIP)
        try:
            parts.append(stream.decompress(content, left))
        except zlib.error as error:
            raise _unreadable(file, f"its gzip stream is damaged ({error})") from error
        left -= len(parts[-1])
        if left <= 0:
            raise _unreadable(file, f"it unpacks to more than the {promised} bytes it promises")
        if not stream.eof:
            raise _unreadable(file, "its gzip stream ends early")
        # Some tools pad the end of a gzip file with zeros.
        content = stream.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _scaled(voxels: np.ndarray, header: _Header) -> np.ndarray:
    if (header.slope, header.intercept) != (1.0, 0.0):
        voxels = voxels.astype(np.float64) * header.slope + header.intercept
    if voxels.dtype.kind != "f":
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    # Too large for float32 becomes infinite, which is refused like any other infinity.
    with np.errstate(over="ignore"):
        return voxels.astype(np.float32, copy=False)


def _three_dimensional(shape: tuple[int, ...], source: Source) -> tuple[Any, ...]:
    """The index that takes the 3D volume out of a file of this shape."""
    if source.component is not None:
        if len(shape) != 4 or source.component >= shape[3] or min(shape) < 1:
            raise InputError(
                source.file,
                f"has shape {shape_text(shape)} and no channel {source.component}",
                "a 4D volume with one component per channel",
                "correct `dataset.channels`, or the file",
            )
        return (..., source.component)
    if len(shape) < 3 or min(shape) < 1 or math.prod(shape[3:]) != 1:
        raise InputError(
            source.file,
            f"has shape {shape_text(shape)}",
            "a volume of three dimensions",
            "split it into one file per channel",
        )
    return (..., *(0 for _ in shape[3:]))
