"""The header of a NIfTI file (.nii, .nii.gz), parsed by nibabel."""

from __future__ import annotations

import logging
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from voxelsoup.data.volumes.gzip import GZIP, GZIP_MAGIC
from voxelsoup.data.volumes.voxel_layout import Packing, VoxelLayout, check_affine, unreadable

LARGEST_HEADER = 540
# No tool begins a file with more members of a few bytes each.
MEMBERS = 16
SPATIAL_UNITS = 0b111
MILLIMETRES = {1: 1e3, 3: 1e-3}
# Voxel sizes in mm that a scan may have, from microscopes to the thickest slices.
PLAUSIBLE = (1e-4, 100)

# nibabel would print, without the file's name, which numbers it has corrected.
SILENT = logging.Logger("nibabel")
SILENT.addHandler(logging.NullHandler())

UNPARSABLE = (HeaderDataError, WrapStructError, ValueError, TypeError, LookupError, OverflowError)


def read_layout(file: Path, beginning: bytes) -> VoxelLayout:
    """Read the header, NIfTI-1 or NIfTI-2, of either byte order, packed or not.

    The affine is the sform's where it is set, else the qform's, else the voxel sizes alone
    around the volume's centre, as in nibabel.

    Raises InputError if there is no header, or it does not describe plain numbers on a grid.
    """
    packed = beginning.startswith(GZIP_MAGIC)
    if packed:
        beginning = _unpacked(file, beginning)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        size = kind.template_dtype.itemsize
        if len(beginning) >= size and kind.may_contain_header(beginning):
            try:
                # Numbers beyond a float's range are refused below.
                with np.errstate(all="ignore"):
                    header = kind(beginning[:size], check=False)
                    header.check_fix(logger=SILENT)
                    return _interpret(file, header, "gzip" if packed else "raw")
            except UNPARSABLE as error:
                raise unreadable(file, f"its header is damaged ({error})") from error
    raise unreadable(file, "it has no NIfTI header")


def _unpacked(file: Path, packed: bytes) -> bytes:
    """As much of a gzip stream as a header can have, of whichever members it lies in."""
    unpacked = b""
    for _ in range(MEMBERS):
        member = zlib.decompressobj(GZIP)
        try:
            unpacked += member.decompress(packed, LARGEST_HEADER - len(unpacked))
        except zlib.error as error:
            # What follows complete members is refused when all is unpacked.
            if unpacked:
                break
            raise unreadable(file, f"its gzip stream is damaged ({error})") from error
        packed = member.unused_data
        if not packed or len(unpacked) == LARGEST_HEADER:
            break
    if not member.eof and len(unpacked) < nib.Nifti1Header.template_dtype.itemsize:
        raise unreadable(file, "its gzip stream ends early")
    return unpacked


def _interpret(file: Path, header: Any, packing: Packing) -> VoxelLayout:
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or not header.is_single:
        raise unreadable(
            file, "it holds no plain numbers in one file", "convert it to a plain .nii.gz"
        )
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    check_affine(file, affine)
    # nibabel takes an infinite slope for none.
    stored = float(header["scl_slope"]) if "scl_slope" in header else 1.0
    slope, intercept = header.get_slope_inter()
    if math.isinf(stored):
        raise ValueError("its voxels are scaled by infinity")
    sides = tuple(int(side) for side in header.get_data_shape())
    if len(sides) > 4:
        # ITK leaves out time, the fourth, and counts components along the fifth.
        sides = (*sides[:3], *(side for side in sides[3:] if side != 1))
    return VoxelLayout(
        sides=sides,
        dtype=dtype,
        affine=_in_millimetres(affine, int(header["xyzt_units"]) & SPATIAL_UNITS),
        packing=packing,
        offset=max(int(header.get_data_offset()), header.template_dtype.itemsize),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _in_millimetres(affine: np.ndarray, unit: int) -> np.ndarray:
    """An affine stored in metres or microns, in mm.

    As ITK (and so nnU-Net) does; nibabel hands over what is stored. Some tools leave junk in
    this field: where voxels would come out larger or smaller than any scan's, mm were meant.
    """
    scaled = affine.copy()
    scaled[:3] *= MILLIMETRES.get(unit, 1.0)
    sizes = nib.affines.voxel_sizes(scaled)
    return scaled if (PLAUSIBLE[0] <= sizes).all() and (sizes <= PLAUSIBLE[1]).all() else affine
