"""The header of a NIfTI file (.nii, .nii.gz), parsed by nibabel, and the header of a label map.

A header places its voxels twice, by its qform and its sform, each with a code that says whether it
counts. Programs choose differently where the two disagree: nibabel and FSL take the sform, and ITK
(ITK-SNAP, 3D Slicer, SimpleITK, ANTs) mostly the qform.
"""

from __future__ import annotations

import logging
import math
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from voxelsoup.data.volumes.gzip import GZIP, GZIP_MAGIC
from voxelsoup.data.volumes.voxel_layout import (
    Forms,
    Packing,
    VoxelLayout,
    check_affine,
    is_usable,
    unreadable,
)

LARGEST_HEADER = 540
# No tool begins a file with more members of a few bytes each.
MEMBERS = 16
SPATIAL_UNITS = 0b111
MILLIMETRES = {1: 1e3, 3: 1e-3}
# The fields that place the voxels of a volume: what a label map has from its scan.
PLACE = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)
SFORM, QFORM, NEITHER = "sform", "qform", "voxel sizes alone"
ITK_SFORM, ITK_NEITHER = "sform with pixdim's voxel sizes", "voxel sizes alone, as ITK reads them"
SCANNER = 1
# Voxels, or cosines between axes: what ITK 5.4 takes for orthogonal (3e-4 is not).
LARGEST_SHEAR = 1e-4
# The longest side that the 16-bit integers of NIfTI-1 can state.
LONGEST_SIDE = 2**15 - 1
IMAGES = {nib.Nifti1Header: nib.Nifti1Image, nib.Nifti2Header: nib.Nifti2Image}
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
    unit = int(header["xyzt_units"]) & SPATIAL_UNITS
    return VoxelLayout(
        sides=sides,
        dtype=dtype,
        affine=_in_millimetres(affine, unit),
        forms=_forms(header, unit),
        place={name: np.array(header[name]) for name in PLACE},
        packing=packing,
        offset=max(int(header.get_data_offset()), header.template_dtype.itemsize),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _forms(header: Any, unit: int) -> Forms:
    """The affines that a header states, and which of them ITK 5.4 takes.

    ITK takes the sform if it is alone, or marked as the scanner's and not sheared; else the qform.
    Its voxel sizes are always those of pixdim. (Tests compare this with SimpleITK.)
    """
    found = {}
    for name, read in ((SFORM, header.get_sform), (QFORM, header.get_qform)):
        # Where the other form is used, what is wrong with this one does not matter.
        with suppress(*UNPARSABLE):
            form = np.asarray(read(), np.float64)
            if header[f"{name}_code"] > 0 and is_usable(form):
                found[name] = form
    sizes = np.asarray(header["pixdim"][1:4], np.float64)
    if not found:
        # ITK counts from the first voxel in LPS, nibabel in LAS from the middle.
        from_first = np.diag([-sizes[0], -sizes[1], sizes[2], 1.0])
        found = {NEITHER: np.asarray(header.get_base_affine()), ITK_NEITHER: from_first}
        itk = ITK_NEITHER
    else:
        itk = QFORM if QFORM in found else SFORM
        if SFORM in found and header["sform_code"] == SCANNER:
            itk = SFORM if shear(found[SFORM]) <= LARGEST_SHEAR else itk
        if itk == SFORM:
            resized = found[SFORM] @ np.diag([*(sizes / nib.affines.voxel_sizes(found[SFORM])), 1])
            if is_usable(resized) and not np.allclose(resized, found[SFORM], rtol=1e-3):
                itk = ITK_SFORM
                found[itk] = resized
    return Forms({name: _in_millimetres(form, unit) for name, form in found.items()}, itk)


def shear(affine: np.ndarray) -> float:
    """The largest cosine between two axes of an affine: 0 where all angles are right."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(abs(axes.T @ axes - np.eye(3)).max())


def label_header(
    shape: tuple[int, ...], dtype: np.dtype[Any], layout: VoxelLayout
) -> nib.Nifti1Header:
    """The header of what is predicted in the grid of a scan.

    Of a NIfTI file it has both forms with their codes, the voxel sizes and the units, so that every
    program places it where it places the scan. Of other formats the affine stands in both forms as
    the scanner's; a sheared one in the sform alone, for a qform cannot state it.

    Args:
        shape: of the array to write: x, y, z as in the scan, and components.
        dtype: of the array to write.
        layout: what the scan's header says.
    """
    kind = nib.Nifti1Header if max(shape) <= LONGEST_SIDE else nib.Nifti2Header
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    if layout.place:
        for field, value in layout.place.items():
            header[field] = value
        # The sizes of further dimensions, such as time, belong to the scan alone.
        header["pixdim"][4:] = 1
        return header
    header.set_xyzt_units("mm")
    header.set_sform(layout.affine, SCANNER)
    if shear(layout.affine) <= LARGEST_SHEAR:
        header.set_qform(layout.affine, SCANNER)
    else:
        header["pixdim"][1:4] = nib.affines.voxel_sizes(layout.affine)
    return header


def _in_millimetres(affine: np.ndarray, unit: int) -> np.ndarray:
    """An affine stored in metres or microns, in mm.

    As ITK (and so nnU-Net) does; nibabel hands over what is stored. Some tools leave junk in
    this field: where voxels would come out larger or smaller than any scan's, mm were meant.
    """
    scaled = affine.copy()
    scaled[:3] *= MILLIMETRES.get(unit, 1.0)
    sizes = nib.affines.voxel_sizes(scaled)
    return scaled if (PLAUSIBLE[0] <= sizes).all() and (sizes <= PLAUSIBLE[1]).all() else affine
