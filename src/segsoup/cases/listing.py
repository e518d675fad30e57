"""A cheap look at a data set folder: enough to see that something changed."""

from __future__ import annotations

import hashlib
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
    for path in sorted(root.rglob("*")):
        if path.is_file():
            status = path.stat()
            entry = f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(entry.encode())
    return digest.hexdigest()
