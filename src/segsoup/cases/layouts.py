"""One reader per folder layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segsoup.cases import brats, decathlon, nnunet
from segsoup.cases.case import Case
from segsoup.errors import InputError
from segsoup.study import Layout

READERS: dict[Layout, Callable[[Path, list[str]], list[Case]]] = {
    "brats": brats.find_cases,
    "phantom": brats.find_cases,
    "decathlon": decathlon.find_cases,
    "nnunet": nnunet.find_cases,
}


def find_cases(layout: Layout, root: Path, channels: list[str]) -> list[Case]:
    """The cases of a data set, sorted by name; no voxel is read.

    Raises:
        InputError: if the folder is missing, is not in this layout, or holds no cases.
    """
    if not root.is_dir():
        raise InputError(
            root, "no such folder", "the folder of a data set", "correct `dataset.root`"
        )
    cases = READERS[layout](root, channels)
    if not cases:
        raise InputError(
            root,
            f"holds no cases in the `{layout}` layout",
            "at least one case",
            "correct `dataset.root` or `dataset.layout`",
        )
    return cases
