"""The header of an NRRD file with its voxels attached (.nrrd), parsed by pynrrd.

Not read by SimpleITK (2.5.7 was fuzzed): of 7,389 damaged files 65 end the process by SIGSEGV (a
`labels` field of 50,000 characters does), and `data file: /etc/passwd` hands over that file as
voxels. pynrrd's own reader of voxels follows `data file` too and allocates what a header promises:
only its parser is used.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from voxelsoup.data.volumes.voxel_layout import (
    LPS_TO_RAS,
    Packing,
    VoxelLayout,
    affine_of,
    check_affine,
    unreadable,
)

TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
PACKINGS: dict[str, Packing] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
BYTE_ORDERS = {"little": "<", "big": ">"}
TO_RAS = {
    "left-posterior-superior": LPS_TO_RAS,
    "lps": LPS_TO_RAS,
    "right-anterior-superior": np.eye(3),
    "ras": np.eye(3),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0]),
}
CONVERT = "convert it to .nii.gz"


def read_layout(file: Path, beginning: bytes) -> VoxelLayout:
    """Read the header at the beginning of a file, up to its empty line.

    Units other than millimetres are taken for millimetres, as ITK does.

    Raises:
        InputError: if there is no such header, its voxels are in another file (which is never
            read), or it does not describe plain numbers on a grid.
    """
    lines = io.BytesIO(beginning)
    try:
        with np.errstate(all="ignore"):
            header = nrrd.read_header(lines)
            return _interpret(file, header, lines.tell())
    except (nrrd.NRRDError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise unreadable(file, f"its header is damaged ({error})") from error


def _interpret(file: Path, header: dict[str, Any], start: int) -> VoxelLayout:
    if "data file" in header or "datafile" in header:
        raise unreadable(file, "its voxels are in another file", CONVERT)
    encoding = header["encoding"].lower()
    if encoding not in PACKINGS:
        raise unreadable(file, f"its voxels are encoded as {encoding}, not raw or gzip", CONVERT)
    if any(header.get(key, 0) for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise unreadable(file, "its voxels do not follow its header", CONVERT)
    kind = next((kind for kind, names in TYPES.items() if header["type"] in names), None)
    if kind is None:
        raise unreadable(file, f"its voxels are of the type {header['type']}", CONVERT)
    order = "<" if kind.endswith("1") else BYTE_ORDERS[header["endian"].lower()]
    sides = tuple(int(side) for side in header["sizes"])
    if len(sides) != header["dimension"]:
        raise ValueError(f"dimension {header['dimension']} and sizes {sides}")
    vectors, to_ras = _vectors(file, header, len(sides))
    lists = [axis for axis in range(len(sides)) if np.isnan(vectors[axis]).all()]
    if len(sides) - len(lists) != 3 or len(lists) > 1:
        raise ValueError(f"{len(sides) - len(lists)} axes in space and {len(lists)} others")
    origin = np.asarray(header.get("space origin", np.zeros(3)), np.float64)
    affine = affine_of(np.delete(vectors, lists, axis=0).T, origin, to_ras)
    check_affine(file, affine)
    return VoxelLayout(
        sides=sides,
        dtype=np.dtype(order + kind),
        affine=affine,
        packing=PACKINGS[encoding],
        start=start,
        component_axis=lists[0] if lists else None,
    )


def _vectors(file: Path, header: dict[str, Any], axes: int) -> tuple[np.ndarray, np.ndarray]:
    """A row per axis: its direction in mm per voxel, or NaN if it counts components; and the matrix
    that turns their space to RAS.
    """
    if "space directions" in header:
        space = header.get("space", "").lower()
        if space not in TO_RAS:
            raise unreadable(
                file, f"its space is {space or 'not said'!r}", f"{CONVERT}; LPS, RAS or LAS is read"
            )
        vectors, to_ras = np.array(header["space directions"], np.float64), TO_RAS[space]
    else:
        spacings = np.array(header["spacings"], np.float64)
        vectors, to_ras = np.full((spacings.size, 3), np.nan), LPS_TO_RAS
        in_space = np.flatnonzero(~np.isnan(spacings))[:3]
        for direction, axis in enumerate(in_space):
            vectors[axis] = np.eye(3)[direction] * spacings[axis]
    if vectors.shape != (axes, 3):
        raise ValueError(f"directions for {vectors.shape[0]} of {axes} axes")
    return vectors, to_ras
