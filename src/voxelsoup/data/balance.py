"""Folds that hold equal shares of rare regions and of sites, each patient in one of them.

The principle is that of scikit-learn's ``StratifiedGroupKFold``: each patient, those of rare kinds
first, goes to the fold with which the shares of all kinds of cases spread least over the folds. A
case may be of several kinds here (a region and a site), as in Sechidis et al., On the
stratification of multi-label data, ECML PKDD 2011.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import listed
from voxelsoup.data.case import IndexedCase
from voxelsoup.data.layouts.table import CASE, Row, read_rows
from voxelsoup.study.sections.data import BY_REGIONS, Dataset, Folds, regions_not_annotated

# Case -> what it counts as: regions that it holds or in which they are annotated, its site.
Kinds = Mapping[str, Sequence[str]]
# Shares that differ by less are equal.
EQUAL = 1e-9


def kinds_of_cases(
    dataset: Dataset,
    regions: Mapping[str, Sequence[int]],
    folds: Folds,
    root: Path,
    cases: Sequence[IndexedCase],
) -> Kinds | None:
    """What `folds.balance` balances the labelled cases by; None where it names nothing.

    Raises:
        InputError: if a column is in no table of the data set, or has no entry for a case.
    """
    if not folds.balance:
        return None
    labelled = [case for case in cases if case.label is not None]
    kinds: dict[str, list[str]] = {case.name: [] for case in labelled}
    for by in folds.balance:
        if by == BY_REGIONS:
            partly = {region for p in dataset.not_annotated.values() for region in p}
            for case in labelled:
                hidden = regions_not_annotated(dataset.not_annotated, case.name)
                seen = {r: labels for r, labels in regions.items() if r not in hidden}
                held = (r for r, labels in seen.items() if set(labels) & set(case.labels))
                kinds[case.name] += [f"region {region}" for region in held]
                # Also where an annotated region is empty: each fold needs cases to score it on.
                kinds[case.name] += [f"annotated {region}" for region in seen if region in partly]
            continue
        path, entries = _column(dataset, root, by)
        for case in labelled:
            if not entries.get(case.name):
                raise InputError(
                    path,
                    f"has nothing under `{by}` for the case {case.name}",
                    f"an entry for every labelled case: `folds.balance` names `{by}`",
                    f"fill it in, or take `{by}` out of `folds.balance`",
                )
            kinds[case.name].append(f"{by} {entries[case.name]}")
    return kinds


def has_column(dataset: Dataset, root: Path, column: str) -> bool:
    """Whether a table of the data set has a column with an entry in every row."""
    for key, path in _tables_of(dataset, root).items():
        rows = read_rows(path, [CASE], key)
        if rows and all(row.cells.get(column) for row in rows):
            return True
    return False


def _tables_of(dataset: Dataset, root: Path) -> dict[str, Path]:
    """The tables that may have a column to balance by: key of the study -> file."""
    tables = {}
    if dataset.patients is not None:
        tables["dataset.patients"] = Path(dataset.patients)
    if dataset.layout == "table":
        tables["dataset.file"] = Path(dataset.file) if dataset.file else root / "cases.csv"
    return tables


def _column(dataset: Dataset, root: Path, column: str) -> tuple[Path, dict[str, str]]:
    """The table that has a column, and case -> its entry."""
    tables = _tables_of(dataset, root)
    rows: dict[Path, list[Row]] = {
        path: read_rows(path, [CASE], key) for key, path in tables.items()
    }
    for path, found in rows.items():
        if found and column in found[0].cells:
            return path, {row.cells[CASE]: row.cells[column] for row in found}
    heads = sorted({head for found in rows.values() if found for head in found[0].cells})
    raise InputError(
        "folds.balance",
        f"names the column `{column}`, which {listed(map(str, tables.values()))} does not have",
        f"`{BY_REGIONS}`, or one of the columns {listed(heads)}",
        "correct the name, or add the column",
    )


def counts_of(patients: Mapping[str, Sequence[str]], kinds: Kinds) -> NDArray[np.float64]:
    """Cases of each patient (rows in the order of ``patients``): all of them, then of each kind."""
    names = sorted({kind for cases in patients.values() for case in cases for kind in kinds[case]})
    column = {kind: number for number, kind in enumerate(names, 1)}
    counts = np.zeros((len(patients), 1 + len(names)))
    for row, cases in enumerate(patients.values()):
        counts[row, 0] = len(cases)
        for case in cases:
            for kind in kinds[case]:
                counts[row, column[kind]] += 1
    return counts


def rarest_first(counts: NDArray[np.float64], order: Sequence[int]) -> list[int]:
    """Rows by how large their share of what there is is; as in ``order`` among equals."""
    shares = (counts / counts.sum(axis=0)).sum(axis=1)
    return sorted(order, key=lambda row: -round(float(shares[row]), 9))


def deal(counts: NDArray[np.float64], count: int, order: Sequence[int]) -> list[list[int]]:
    """Deal rows of ``counts_of`` out to ``count`` folds with equal shares of every kind.

    A row goes to the fold with which the standard deviation of the folds' shares, averaged over
    the kinds, is smallest; to the smallest of those where several are. ``order`` decides among
    rows that are alike.
    """
    shares = counts / counts.sum(axis=0)
    held = np.zeros((count, counts.shape[1]))
    folds: list[list[int]] = [[] for _ in range(count)]
    for row in rarest_first(counts, order):
        spreads = []
        for fold in range(count):
            tried = held.copy()
            tried[fold] += shares[row]
            spreads.append(tried.std(axis=0).mean())
        least = [fold for fold in range(count) if spreads[fold] <= min(spreads) + EQUAL]
        best = min(least, key=lambda fold: held[fold, 0])
        held[best] += shares[row]
        folds[best].append(row)
    return folds


def choose(counts: NDArray[np.float64], share: float, order: Sequence[int]) -> list[int]:
    """Rows that hold together as nearly as possible a ``share`` of every kind.

    One at least, and never all of several.
    """
    shares = counts / counts.sum(axis=0)
    held = np.zeros(counts.shape[1])
    chosen: list[int] = []
    for row in rarest_first(counts, order):
        nearer = np.abs(held + shares[row] - share).mean() < np.abs(held - share).mean() - EQUAL
        if nearer and len(chosen) + 1 < len(counts):
            held += shares[row]
            chosen.append(row)
    # Every row is larger than twice the share: the smallest misses it least.
    return chosen or [min(order, key=lambda row: counts[row, 0])] if len(counts) > 1 else []
