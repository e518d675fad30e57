"""Layouts of data sets: how each says which cases there are. The registry is below.

In: the study's `dataset` section and a folder. Out: `Case`s with the place of each volume; none
is opened. A reader is one function `find_cases(dataset, root)`; docs/new-layout.md adds one.

`json_files`, `case_names` and the rows of `table` are shared by several layouts; `detect` finds
out which layout a folder has, for `voxelsoup init` and `voxelsoup predict`; `phantom` makes up a
data set.

Decision: **lists may come from anyone**, so paths that leave the data set's folder, names that no
file can have and keys that stand twice are refused, whatever the layout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts import brats, decathlon, monai, nnunet, table
from voxelsoup.data.layouts.case_names import check_case_names
from voxelsoup.data.layouts.json_files import files_named, read_json
from voxelsoup.study.sections.data import Dataset, Layout

READERS: dict[Layout, Callable[[Dataset, Path], list[Case]]] = {
    "brats": brats.find_cases,
    "phantom": brats.find_cases,
    "decathlon": decathlon.find_cases,
    "nnunet": nnunet.find_cases,
    "monai": monai.find_cases,
    "table": table.find_cases,
}


def find_cases(dataset: Dataset, root: Path) -> list[Case]:
    """The cases of a data set in the folder ``root``, sorted by name; no voxel is read.

    Raises:
        InputError: if the folder is missing, cannot be read, is not in this layout, or holds no
            cases, two of one name, or one with a name that files cannot have.
    """
    if not root.is_dir():
        raise InputError(
            root, "no such folder", "the folder of a data set", "correct `dataset.root`"
        )
    try:
        cases = READERS[dataset.layout](dataset, root)
    except OSError as error:
        raise InputError(
            error.filename or root,
            f"cannot be read: {error.strerror or error}",
            "a folder whose files can be read",
            "correct the permissions of the folder",
        ) from error
    if not cases:
        raise InputError(
            root,
            f"holds no cases in the `{dataset.layout}` layout",
            "at least one case",
            "correct `dataset.root` or `dataset.layout`",
        )
    check_case_names(cases, root)
    return cases


def list_of_cases(dataset: Dataset, root: Path) -> Path | None:
    """The file that lists the cases of a data set; None where their files' names alone do."""
    if dataset.layout in ("brats", "phantom"):
        return None
    default = "cases.csv" if dataset.layout == "table" else "dataset.json"
    return Path(dataset.file) if dataset.file is not None else root / default


def listed_files(dataset: Dataset, root: Path) -> set[Path]:
    """All files that the list of cases names, also those that are no case of the study: test
    images, columns that are no channel of it.

    Raises InputError if the list cannot be read.
    """
    where = list_of_cases(dataset, root)
    if where is None:
        return set()
    if dataset.layout == "table":
        rows = table.read_rows(where, [table.CASE], "dataset.file")
        cells = [cell for row in rows for cell in row.cells.values() if cell]
        return files_named([str(Source.parse(cell).file) for cell in cells], root)
    return files_named(read_json(where), root)
