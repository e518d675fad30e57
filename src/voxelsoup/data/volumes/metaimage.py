"""The header of a MetaImage with its voxels in the same file (.mha).

Not read by SimpleITK (2.5.7 was fuzzed): `NDims = 65536` ends the process by SIGSEGV, and
`ElementDataFile = /etc/passwd` hands over that file as voxels; a stream longer than its header
promises is accepted, and refusals go to stderr besides.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from voxelsoup.data.volumes.voxel_layout import (
    LPS_TO_RAS,
    VoxelLayout,
    affine_of,
    check_affine,
    unreadable,
)

# MET_LONG has eight bytes in files that ITK writes on 64-bit systems, four elsewhere.
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LAST_KEY = "ElementDataFile"
CONVERT = "convert it to .nii.gz"


def read_layout(file: Path, beginning: bytes) -> VoxelLayout:
    """Read the header at the beginning of a file: lines up to ``ElementDataFile = LOCAL``.

    Raises:
        InputError: if there is no such header, its voxels are in another file (which is never
            read), or it does not describe plain numbers on a grid.
    """
    fields, start = _fields(file, beginning)
    try:
        return _interpret(file, fields, start)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise unreadable(file, f"its header is damaged ({error})") from error


def _fields(file: Path, beginning: bytes) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    position = 0
    while (end := beginning.find(b"\n", position)) >= 0:
        line = beginning[position:end].decode("latin-1")
        position = end + 1
        key, mark, value = line.partition("=")
        if not mark:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == LAST_KEY:
            return fields, position
    raise unreadable(file, f"it has no MetaImage header (lines that end with {LAST_KEY} = LOCAL)")


def _interpret(file: Path, fields: dict[str, str], start: int) -> VoxelLayout:
    if fields[LAST_KEY] != "LOCAL":
        raise unreadable(file, "its voxels are in another file", CONVERT)
    if not _is_true(fields.get("BinaryData", "True")) or int(fields.get("HeaderSize", "0")) > 0:
        raise unreadable(file, "its voxels do not follow its header as plain numbers", CONVERT)
    kind = fields["ElementType"].removesuffix("_ARRAY")
    if kind not in TYPES:
        raise unreadable(file, f"its voxels are of the type {kind}", CONVERT)
    dimensions = int(fields["NDims"])
    sides = tuple(int(side) for side in fields["DimSize"].split())
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    # Components are counted by a number of channels or by a fourth dimension, not by both.
    if len(sides) != dimensions or dimensions not in ((2, 3, 4) if channels == 1 else (3,)):
        raise ValueError(f"NDims {dimensions}, DimSize {fields['DimSize']}")
    big = _is_true(_first(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB") or "False")
    affine = _affine(fields, dimensions)
    check_affine(file, affine)
    return VoxelLayout(
        sides=sides if channels == 1 else (channels, *sides),
        dtype=np.dtype((">" if big else "<") + TYPES[kind]),
        affine=affine,
        packing="zlib" if _is_true(fields.get("CompressedData", "False")) else "raw",
        start=start,
        component_axis=None if channels == 1 else 0,
    )


def _affine(fields: dict[str, str], dimensions: int) -> np.ndarray:
    """The affine; what is not stated is the identity, as in ITK."""
    directions, sizes, origin = np.eye(max(dimensions, 3)), np.ones(4), np.zeros(4)
    # A row of the stored matrix is the direction of an axis.
    square, vector = directions[:dimensions, :dimensions].T, slice(dimensions)
    _fill(square, fields, "TransformMatrix", "Rotation", "Orientation")
    _fill(sizes[vector], fields, "ElementSpacing", "ElementSize")
    _fill(origin[vector], fields, "Offset", "Position", "Origin")
    with np.errstate(all="ignore"):
        return affine_of(directions[:3, :3] * sizes[:3], origin[:3], LPS_TO_RAS)


def _fill(numbers: np.ndarray, fields: dict[str, str], *keys: str) -> None:
    """Put the numbers of the first of these keys, if there is one, into an array."""
    text = _first(fields, *keys)
    if text is None:
        return
    found = [float(number) for number in text.split()]
    if len(found) != numbers.size:
        raise ValueError(f"{keys[0]} has {len(found)} numbers instead of {numbers.size}")
    numbers[...] = np.reshape(found, numbers.shape)


def _first(fields: dict[str, str], *keys: str) -> str | None:
    return next((fields[key] for key in keys if key in fields), None)


def _is_true(text: str) -> bool:
    # MetaIO looks at the first letter alone.
    return text[:1] in ("T", "t", "1")
