"""Volumes in files: read to the last voxel, or refused with the reason."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.common.machine import available_memory
from voxelsoup.data.case import Source
from voxelsoup.data.volumes import metaimage, nifti, nrrd
from voxelsoup.data.volumes.gzip import largest_content, unpack
from voxelsoup.data.volumes.voxel_layout import Forms, VoxelLayout, unreadable
from voxelsoup.data.volumes.voxel_layout import shape_text as shape_text

# The longest first: names are cut at the first that fits.
FORMATS: dict[str, Callable[[Path, bytes], VoxelLayout]] = {
    ".nii.gz": nifti.read_layout,
    ".nii": nifti.read_layout,
    ".mha": metaimage.read_layout,
    ".nrrd": nrrd.read_layout,
}
SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd")

# The longest header (NRRD and MetaImage may carry any text) and the voxels right behind it.
BEGINNING = 2**20
# Bytes that a scaled voxel takes besides its stored number: scaled as float64, then float32.
SCALED_BYTES = 8 + 4
UNSCALED = (1.0, 0.0)
NEARLY_WHOLE = 1e-3


class TooLarge(InputError):
    """A volume does not fit into the memory that this machine has free at the moment."""


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the scanner.

    Attributes:
        data: voxels (x, y, z) in the file's own orientation; integers as stored, others as float32.
        affine: 4 x 4, from voxel indices to millimetres (RAS+).
        sha256: hash (hex) of the file's bytes as stored.
        components: how many volumes the file holds.
        forms: the affines that its header states, where it can state several.
        nan: number of voxels that were NaN, and are 0 now.
    """

    data: np.ndarray
    affine: np.ndarray
    sha256: str = ""
    components: int = 1
    forms: Forms | None = None
    nan: int = 0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm (x, y, z)."""
        x, y, z = nib.affines.voxel_sizes(self.affine)
        return float(x), float(y), float(z)


def read_volume(source: Source) -> Volume:
    """Read one volume.

    Raises:
        InputError: if the file is missing, damaged, not a 3D volume, not finite, or would not
            fit into memory.
    """
    return next(read_volumes([source]))


def read_volumes(sources: Iterable[Source], nan_as_background: bool = False) -> Iterator[Volume]:
    """Read volumes one after the other, as ``read_volume``; neighbours of one file at once.

    ``nan_as_background``: voxels that are NaN are read as 0.
    """
    for file, group in groupby(sources, key=lambda source: source.file):
        yield from _read(file, list(group), nan_as_background)


def read_label(source: Source) -> Volume:
    """Read a label map as uint8; values that scaling has left close to an integer are rounded.

    Raises InputError as ``read_volume``, and if values are not whole numbers from 0 to 255.
    """
    volume = read_volume(source)
    values = volume.data
    if values.dtype == np.uint8:
        return volume
    labels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    wrong = np.abs(values - labels) > NEARLY_WHOLE if values.dtype.kind == "f" else values != labels
    if wrong.any():
        raise InputError(
            source.file,
            f"holds the label value {values[wrong].flat[0]:g}",
            "integer label values from 0 to 255",
            "save the label map without interpolation or probabilities",
        )
    return replace(volume, data=labels)


def joint_hash(hashes: Iterable[str]) -> str:
    """One hash (hex) over those of several files, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def without_suffix(name: str) -> str:
    """A file's name without the ending of its format."""
    return name[: len(name) - len(_suffix_of(name) or "")]


def is_volume(name: str) -> bool:
    """Whether a file's name ends as that of a volume, in small letters or in capitals."""
    return _suffix_of(name) is not None


def _suffix_of(name: str) -> str | None:
    return next((suffix for suffix in FORMATS if name.lower().endswith(suffix)), None)


def write_volume(path: Path, data: np.ndarray, affine: np.ndarray | VoxelLayout) -> None:
    """Write a gzipped NIfTI file; the same voxels give the same bytes.

    With what the header of a scan says in the affine's place, the file lies where the scan does in
    every program (``nifti.label_header``).
    """
    import gzip

    if isinstance(affine, VoxelLayout):
        header = nifti.label_header(data.shape, data.dtype, affine)
        image = nifti.IMAGES[type(header)](data, None, header)
    else:
        image = nib.Nifti1Image(data, affine)
        image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream, gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
        packed.write(image.to_bytes())


def read_header(source: Source) -> VoxelLayout:
    """Read what a volume's file says of it, and none of its voxels.

    Raises InputError if the file is missing, its header damaged, or the volume not a 3D one.
    """
    with _opened(source.file) as (_, layout):
        _three_dimensional(layout.shape, source)
    return layout


def _read(file: Path, sources: list[Source], nan_as_background: bool) -> Iterator[Volume]:
    with _opened(file) as (stream, layout):
        # In this order, so that a wrong shape is refused before its voxels are unpacked.
        selections = [_three_dimensional(layout.shape, source) for source in sources]
        _check_size(file, layout)
        stream.seek(0)
        content = stream.read()
    digest = hashlib.sha256(content).hexdigest()
    voxels = layout.voxels(unpack(file, memoryview(content)[layout.start :], layout))
    del content
    for select in selections:
        data = _scaled(voxels[select], layout)
        nan = 0
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            nan = int(np.count_nonzero(np.isnan(data)))
            data = _without_nan(file, data, nan, nan_as_background)
        yield Volume(data, layout.affine, digest, math.prod(layout.shape[3:]), layout.forms, nan)


def _without_nan(file: Path, data: np.ndarray, nan: int, accepted: bool) -> np.ndarray:
    """Voxels with 0 for NaN where that is accepted; else, and if one is infinite, an InputError."""
    infinite = int(np.count_nonzero(np.isinf(data)))
    if infinite or not accepted:
        found = f"NaN in {nan:,}" if nan else f"infinite values in {infinite:,}"
        key = (
            "; if NaN is background, accept it: `dataset.accept: {nan: background}` in a study, "
            "`--nan background` at prediction"
            if not infinite
            else ""
        )
        raise InputError(
            file,
            f"holds voxels that are not finite: {found} of {data.size:,} voxels",
            "finite voxels",
            f"export the scan again, or leave the case out{key}",
        )
    return np.where(np.isnan(data), np.float32(0), data)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[BinaryIO, VoxelLayout]]:
    """A file and what its header says; errors within the block become messages."""
    _check_file(file)
    read_layout = FORMATS[_suffix_of(file.name) or ""]
    try:
        with file.open("rb") as stream:
            yield stream, read_layout(file, stream.read(BEGINNING))
    except OSError as error:
        raise unreadable(file, str(error.strerror or error), "check its permissions") from error


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise unreadable(file, "it is a folder", "put the file itself there, or leave the case out")
    if not file.is_file():
        raise InputError(
            file,
            f"no such file{_nearest(file)}",
            f"a volume ({', '.join(SUFFIXES)})",
            "add the file or correct its name, or leave the case out",
        )
    if not is_volume(file.name):
        raise unreadable(
            file, f"its name ends in none of {', '.join(SUFFIXES)}", "convert it to NIfTI"
        )
    if file.stat().st_size == 0:
        raise unreadable(file, "it is empty")


def _nearest(file: Path) -> str:
    """Where a missing file may be: behind a link, or under one of the names nearest to its own."""
    if file.is_symlink():
        return f": it is a link to {file.readlink()}, which is not there"
    if not file.parent.is_dir():
        return f"; there is no folder {file.parent} either"
    names = [p.name for p in file.parent.iterdir() if is_volume(p.name)]
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.3)
    return f"; nearest in its folder: {', '.join(near)}" if near else ""


def _check_size(file: Path, layout: VoxelLayout) -> None:
    """Compare what the header promises with the file and the free memory, before either is used."""
    size = file.stat().st_size
    if layout.end > largest_content(max(0, size - layout.start), layout.packing):
        raise unreadable(
            file, f"its header promises {layout.end} bytes, more than the file can hold"
        )
    needed = size + _memory(layout)
    available = available_memory()
    if needed > available:
        raise TooLarge(
            file,
            f"has {shape_text(layout.shape)} voxels, for which {needed / 1e9:.2f} GB of memory "
            f"are needed where {available / 1e9:.2f} GB are free",
            "a volume that fits into memory",
            "use a machine (or a job) with more memory, fewer workers at once, or smaller volumes; "
            "if the size is a surprise, the header is wrong",
        )


def _memory(layout: VoxelLayout) -> int:
    """Bytes that a volume takes besides its file while it is read and used.

    All of a packed file is unpacked, and of one volume there is a copy: the scaled one, or the one
    that is made when it is used.
    """
    unpacked = 0 if layout.packing == "raw" else layout.end
    scaled = (layout.slope, layout.intercept) != UNSCALED
    each = SCALED_BYTES if scaled else layout.dtype.itemsize
    return unpacked + each * math.prod(layout.shape[:3])


def _scaled(voxels: np.ndarray, layout: VoxelLayout) -> np.ndarray:
    # Too large for floating point becomes infinite, which is refused like any other infinity.
    with np.errstate(over="ignore", invalid="ignore"):
        if (layout.slope, layout.intercept) != UNSCALED:
            voxels = voxels.astype(np.float64)
            voxels *= layout.slope
            voxels += layout.intercept
        if voxels.dtype.kind != "f":
            return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
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
