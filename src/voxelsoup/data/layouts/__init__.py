"""Layouts of data sets: how each says which cases there are. The registry is below.

In: the study's `dataset` section and a folder. Out: `Case`s with the place of each volume; none
is opened. A reader is one function `find_cases(dataset, root)`; other packages may have more of
them (docs/new-layout.md).

`json_files`, `case_names` and the rows of `table` are shared by several layouts; `detect` finds
out which layout a folder has, for `voxelsoup init` and `voxelsoup predict`; `phantom` makes up a
data set.

Decision: **lists may come from anyone**, so paths that leave the data set's folder, names that no
file can have and keys that stand twice are refused, whatever the layout.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import find, is_plug_in
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts import brats, decathlon, monai, nnunet, table
from voxelsoup.data.layouts.case_names import check_case_names
from voxelsoup.data.layouts.json_files import files_named, read_json
from voxelsoup.study.sections.data import Dataset

Reader = Callable[[Dataset, Path], list[Case]]
READERS: dict[str, Reader] = {
    "brats": brats.find_cases,
    "phantom": brats.find_cases,
    "decathlon": decathlon.find_cases,
    "nnunet": nnunet.find_cases,
    "monai": monai.find_cases,
    "table": table.find_cases,
}


def reader_of(layout: str) -> Reader:
    """The function that reads a layout.

    Raises:
        InputError: if it is another package's, and not what it has to be.
    """
    if not is_plug_in("layouts", layout):
        return READERS[layout]
    plug_in = find("layouts", layout)
    reader: Reader = plug_in.load()
    try:
        inspect.signature(reader).bind(None, None)
    except (TypeError, ValueError) as error:
        raise plug_in.refused(
            f"cannot be called as find_cases(dataset, root): {error}",
            "a function of the study's `dataset` section and a folder that gives a list of `Case`s",
        ) from error
    return reader


def _read(dataset: Dataset, root: Path) -> list[Case]:
    """What the reader of the layout gives, in the order of names."""
    reader = reader_of(dataset.layout)
    if not is_plug_in("layouts", dataset.layout):
        return reader(dataset, root)
    plug_in = find("layouts", dataset.layout)
    try:
        cases = list(reader(dataset, root))
    except (InputError, OSError):
        raise
    except Exception as error:
        raise plug_in.refused(
            f"fails on {root}: {type(error).__name__}: {error}", "a list of `Case`s"
        ) from error
    wrong = next((case for case in cases if not isinstance(case, Case)), None)
    if wrong is not None:
        raise plug_in.refused(f"gives {wrong!r} for {root}", "`Case`s (voxelsoup.data.case) alone")
    channels = dataset.channels
    for case in cases:
        if not case.problem and set(case.channels) != set(channels):
            raise plug_in.refused(
                f"gives case {case.name} the channels {', '.join(case.channels) or 'none'}",
                f"those of the study: {', '.join(channels)}",
            )
    # Their order is that of the network's inputs.
    ordered = [
        case if case.problem else replace(case, channels={n: case.channels[n] for n in channels})
        for case in cases
    ]
    return sorted(ordered, key=lambda case: case.name)


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
        cases = _read(dataset, root)
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
    if is_plug_in("layouts", dataset.layout):
        # Its reader alone knows what the file holds.
        return Path(dataset.file) if dataset.file is not None else None
    default = "cases.csv" if dataset.layout == "table" else "dataset.json"
    return Path(dataset.file) if dataset.file is not None else root / default


def listed_files(dataset: Dataset, root: Path) -> set[Path]:
    """All files that the list of cases names, also those that are no case of the study: test
    images, columns that are no channel of it.

    Raises InputError if the list cannot be read.
    """
    where = list_of_cases(dataset, root)
    if where is None or is_plug_in("layouts", dataset.layout):
        return set()
    if dataset.layout == "table":
        rows = table.read_rows(where, [table.CASE], "dataset.file")
        cells = [cell for row in rows for cell in row.cells.values() if cell]
        return files_named([str(Source.parse(cell).file) for cell in cells], root)
    return files_named(read_json(where), root)
