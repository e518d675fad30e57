"""A hash that changes with the files of a data set, taken without reading them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.study.sections.data import Dataset


def check_root(dataset: Dataset) -> None:
    """Raise an InputError if the data set's folder is not there."""
    root = Path(dataset.root or "")
    if dataset.layout != "phantom" and not root.is_dir():
        raise InputError(
            "dataset.root",
            f"there is no folder {root} (looked for at {root.absolute()})",
            f"the folder of a data set in the `{dataset.layout}` layout",
            "correct `dataset.root` in the study; relative paths count from the working directory",
        )


def list_files(dataset: Dataset) -> str:
    """A hash over names, sizes and dates of a data set's files; reads none of them.

    A file that was changed in place and given its old date back differs in the date of its last
    change of any kind, which no program can set; one put in its place is another inode. The
    phantom's settings stand for its files. A folder that is not there gives the hash of nothing,
    so that a study can be planned anywhere.
    """
    if dataset.layout == "phantom":
        return dataset.phantom.model_dump_json()
    digest = _listed(Path(dataset.root or ""))
    if dataset.file is not None:
        # It may be outside of the folder.
        _add(digest, Path(dataset.file), Path(dataset.file))
    return digest.hexdigest()


def list_scans(given: str) -> str:
    """A hash over names, sizes and dates of what is to be predicted: a folder or a file."""
    path = Path(given)
    digest = _listed(path)
    _add(digest, path, path)
    return digest.hexdigest()


def _listed(root: Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    for path in sorted(_files(root)):
        _add(digest, path, path.relative_to(root))
    return digest


def _add(digest: hashlib._Hash, path: Path, name: Path) -> None:
    if path.is_file():
        status = path.stat()
        numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        # Names are bytes, not always UTF-8. None of them holds a zero byte, so no two lists of
        # files give the same text.
        digest.update(os.fsencode(name) + b"\0" + " ".join(map(str, numbers)).encode() + b"\0")


def _files(root: Path) -> Iterator[Path]:
    """All files below a folder, also behind links to folders (which ``rglob`` does not follow)."""
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in visited:
            # A link to a folder above would never end.
            folders.clear()
            continue
        visited.add(place)
        folders.sort()
        yield from (Path(folder, name) for name in names)
