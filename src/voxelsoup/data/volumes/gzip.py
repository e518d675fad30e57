"""Unpacking what a header promises: to the end, checksum included, and never far beyond.

libdeflate is some three to five times as fast as zlib, but wants to know the size beforehand and
unpacks the first gzip member alone. It takes the usual file, one member of the promised size; all
others, and all that are damaged, go through zlib, which also says what is wrong.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import deflate

from voxelsoup.common.errors import InputError
from voxelsoup.data.volumes.voxel_layout import Packing, VoxelLayout, shape_text, unreadable

GZIP_MAGIC = b"\x1f\x8b"
GZIP = 31
ZLIB = 15
# Deflate shrinks nothing by more than this factor: a header that promises more voxels than the
# file can hold is refused before any memory is spent on it.
LARGEST_RATIO = 1032
# Some tools fill up blocks with zeros. More, or anything else, is a header that is wrong.
LARGEST_PADDING = 1024
TRAILER = 8
PIECE = 2**16
ZEROS = re.compile(rb"\0*")


def largest_content(size: int, packing: Packing) -> int:
    """How many bytes a stream of ``size`` bytes can hold at most."""
    return size if packing == "raw" else size * LARGEST_RATIO


def unpack(file: Path, stream: memoryview, layout: VoxelLayout) -> bytearray | memoryview:
    """Unpack the stream of a file to its end.

    Raises:
        InputError: if the stream is damaged or holds fewer or more bytes than ``layout`` promises.
    """
    unpacked: bytearray | memoryview | None = None
    if layout.packing == "raw":
        unpacked = stream
    elif layout.packing == "gzip":
        unpacked = _one_member(stream, layout.end)
    if unpacked is None:
        unpacked = _step_by_step(file, stream, layout)
    if len(unpacked) < layout.end:
        raise unreadable(
            file, f"it ends after {len(unpacked)} of the {layout.end} bytes it promises"
        )
    surplus = len(unpacked) - layout.end
    if surplus > LARGEST_PADDING or any(unpacked[layout.end :]):
        raise _wrong_header(file, f"{len(unpacked)} bytes", len(unpacked), layout)
    return unpacked


def _one_member(stream: memoryview, promised: int) -> bytearray | None:
    """Unpack a stream that is one sound gzip member of the promised size; None if it is not."""
    trailer = bytes(stream[-TRAILER:])
    size = int.from_bytes(trailer[4:], "little")
    # libdeflate would spend memory on the size that the member states.
    if not promised <= size <= promised + LARGEST_PADDING:
        return None
    try:
        unpacked = deflate.gzip_decompress(stream, size)
    except (deflate.DeflateError, ValueError):
        return None
    # libdeflate has checked the trailer of the first member. If the file ends with these bytes
    # and has them nowhere else, nothing follows that member.
    sound = len(unpacked).to_bytes(4, "little")
    sound = deflate.crc32(unpacked).to_bytes(4, "little") + sound
    packed = stream.obj if isinstance(stream.obj, bytes) else bytes(stream)
    alone = packed.find(trailer) == len(packed) - TRAILER
    return unpacked if sound == trailer and alone else None


def _step_by_step(file: Path, stream: memoryview, layout: VoxelLayout) -> bytearray:
    """Unpack all members, and keep no more than was promised."""
    limit = layout.end + LARGEST_PADDING
    # So far it is counted how much too long the stream is.
    farthest = 2 * layout.end + 2**20
    unpacked = bytearray()
    count = position = 0
    name = "gzip" if layout.packing == "gzip" else "zlib"
    while position < len(stream):
        member = zlib.decompressobj(GZIP if layout.packing == "gzip" else ZLIB)
        while not member.eof:
            piece = stream[position : position + PIECE]
            if not piece:
                raise unreadable(file, f"its {name} stream ends early")
            try:
                # Bounded, for a piece can unpack to a thousand times its size.
                part = member.decompress(piece, 2**22)
            except zlib.error as error:
                raise unreadable(file, f"its {name} stream is damaged ({error})") from error
            position += len(piece) - len(member.unused_data) - len(member.unconsumed_tail)
            count += len(part)
            if count > farthest:
                raise _wrong_header(file, f"more than {farthest} bytes", None, layout)
            unpacked += part[: limit - len(unpacked)]
        # Some tools pad the end of a gzip file with zeros.
        if zeros := ZEROS.match(stream, position):
            position = zeros.end()
    if count > limit:
        raise _wrong_header(file, f"{count} bytes", count, layout)
    return unpacked


def _wrong_header(file: Path, held: str, count: int | None, layout: VoxelLayout) -> InputError:
    sides = layout.sides
    slice_bytes = (layout.end - layout.offset) // sides[-1]
    explanation = ""
    if count is not None and (count - layout.end) % slice_bytes == 0:
        more = (count - layout.end) // slice_bytes
        explanation = f"; {more} more along the last axis ({sides[-1] + more}) would explain it"
    return InputError(
        file,
        f"holds {held} where its header promises {layout.end} (shape {shape_text(sides)})"
        f"{explanation}",
        "a header with the dimensions of the voxels behind it",
        "export the volume again: its header, and so the place of every voxel, is wrong",
    )
