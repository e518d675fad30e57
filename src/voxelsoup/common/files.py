"""Atomic writing of files, reading of text, and hashes."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError

REFUSALS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "make the file system writable",
    errno.EACCES: "correct the permissions of the folder",
    errno.EPERM: "correct the permissions of the folder",
    errno.ENOENT: "put the folder back",
    errno.ENOTDIR: "move away the file that is in the folder's place",
    errno.EISDIR: "move away the folder that is in the file's place",
    errno.EIO: "check the disk or the file server",
    errno.ESTALE: "check the file server",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; once the block ends well, it becomes ``path``.

    The content is flushed to the disk before the rename, so that after a crash ``path`` is
    either the old file or the new one.

    Raises:
        InputError: if there is no room, or the folder is gone or cannot be written to; what
            was at ``path`` before stays.
    """
    with atomic_write_files([path]) as (temporary,):
        yield temporary


@contextmanager
def atomic_write_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As ``atomic_write``, for files of one folder that belong together.

    All are flushed before the first is renamed, and they are renamed in their order: the last one
    can vouch for the others.
    """
    folder = paths[0].parent
    temporaries: list[Path] = []
    with writable(paths[0]):
        try:
            make_folder(folder)
            for path in paths:
                handle, name = tempfile.mkstemp(
                    dir=folder, prefix=f".{path.name}.", suffix=path.suffix
                )
                os.close(handle)
                temporaries.append(Path(name))
            yield temporaries
            for temporary in temporaries:
                _flush(temporary)
                # mkstemp makes files private; results are to be read by the user's group as well.
                temporary.chmod(0o666 & ~_umask())
            for temporary, path in zip(temporaries, paths, strict=True):
                temporary.replace(path)
            _flush(folder)
        finally:
            for temporary in temporaries:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As ``atomic_write``, for a folder that is filled within the block; replaces an older one."""
    with writable(path):
        make_folder(path.parent)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing.

    Raises:
        NotADirectoryError: if a file is in its place; `mkdir` calls that an existing file, which
            callers would take for another process that was faster.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn what the file system refuses within the block into an ``InputError`` about ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise InputError(
            path,
            f"cannot be written: {error.strerror or error}",
            "an existing folder that can be written to and has space",
            f"{REFUSALS[error.errno]}, then start again: what is done is kept, and runs "
            "resume from their last saved state",
        ) from error


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """``content`` as indented JSON, as all of voxelsoup's JSON files have it."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def decoded(path: Path) -> str:
    """The text of a file, however it came here: UTF-8, with a byte order mark or without one.

    Raises OSError if it cannot be read, and ValueError if it is not UTF-8.
    """
    # Notepad, PowerShell and spreadsheets put the mark in front; lines may end as on Windows.
    return path.read_text(encoding="utf-8-sig")


def read_text(path: Path, expected: str, fix: str) -> str:
    """The text of a file that a user or another program wrote.

    Raises:
        InputError: if it is missing (``fix`` is the fix, ``expected`` what should be there),
            cannot be read, or is not UTF-8.
    """
    try:
        return decoded(path)
    except FileNotFoundError as error:
        raise InputError(path, "no such file", expected, fix) from error
    except OSError as error:
        found = f"cannot be read: {error.strerror or error}"
        raise InputError(path, found, expected, "correct the file") from error
    except UnicodeDecodeError as error:
        raise InputError(
            path, "is not UTF-8 text", f"{expected}, in UTF-8", "save the file as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file that voxelsoup wrote."""
    return json.loads(decoded(path))


def write_tsv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows (column -> cell) as a table with tabs between its cells, atomically."""
    stream = io.StringIO()
    lines = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    write_text(path, stream.getvalue())


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows (column -> cell) of a table that ``write_tsv`` wrote."""
    return list(csv.DictReader(io.StringIO(decoded(path)), delimiter="\t"))


def json_sha256(content: Mapping[str, object]) -> str:
    """SHA-256 (hex) of what JSON can hold: of keys and values, whatever their order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
