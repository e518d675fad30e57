"""A cheap look at a data set folder: enough to see that something changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from segsoup.errors import InputError
from segsoup.study import Dataset


def check_root(dataset: Dataset) -> None:
    """Make sure that the data set's folder is there.

    Raises:
        InputError: if it is not.
    """
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

    The phantom has no files before the workflow writes them; its settings stand for it. A
    folder that is not there gives the hash of nothing, so that a study can be planned anywhere.
    """
    if dataset.layout == "phantom":
        return dataset.phantom.model_dump_json()
    root = Path(dataset.root or "")
    digest = hashlib.sha256()
    for path in sorted(_files(root)):
        if path.is_file():
            status = path.stat()
            entry = f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(entry.encode())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    """All files below a folder, also behind links to folders (which ``rglob`` does not follow)."""
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in visited:
            # A link back to where we come from would never end.
            folders.clear()
            continue
        visited.add(place)
        folders.sort()
        yield from (Path(folder, name) for name in names)
