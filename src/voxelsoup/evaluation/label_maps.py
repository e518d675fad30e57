"""Label maps in files scored against the ground truth, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.common.machine import in_processes
from voxelsoup.data.case import Source
from voxelsoup.data.regions import label_table, to_regions
from voxelsoup.data.volumes.alignment import align
from voxelsoup.data.volumes.volume import Volume, read_label
from voxelsoup.evaluation.metrics import METRICS, Scoring, score_regions
from voxelsoup.study.sections.data import regions_not_annotated

Regions = dict[str, list[int]]
Row = dict[str, object]


@dataclass(frozen=True)
class ScoredPair:
    """A label map to score, and the ground truth of its case."""

    case: str
    truth: Source
    predicted: Source


@dataclass(frozen=True)
class RegionValues:
    """What the label values of two label maps mean.

    Attributes:
        truth: region -> its values in the ground truth.
        predicted: region -> its values in the label maps to score; the same regions, in the same
            order.
        background: values that count as background in both.
        ignored: the ground truth's value of voxels that nobody has annotated: not scored.
        not_annotated: name or pattern of a case -> regions that nobody has annotated in it, which
            have no scores there (``dataset.not_annotated``).
    """

    truth: Regions
    predicted: Regions
    background: frozenset[int] = frozenset()
    ignored: int | None = None
    not_annotated: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of_case(self, case: str) -> RegionValues:
        """The same, of the regions that are annotated in a case."""
        hidden = regions_not_annotated(self.not_annotated, case)
        if not hidden:
            return self
        truth = {name: values for name, values in self.truth.items() if name not in hidden}
        if not truth:
            raise InputError(
                case,
                "has no region that is annotated (`dataset.not_annotated`)",
                "at least one region to score",
                "leave the case out, or correct the setting",
            )
        predicted = {name: self.predicted[name] for name in truth}
        return replace(self, truth=truth, predicted=predicted)


def score_pair(
    pair: ScoredPair, values: RegionValues, scoring: Scoring, by_voxels: bool = False
) -> list[Row]:
    """Per-case scores of one label map, in the voxels of the ground truth.

    A row per region that is annotated in the case.

    ``by_voxels``: of the same shape, they may be placed apart by their headers (``align``).

    Raises:
        InputError: if a file cannot be read, the two lie on different grids, one of them holds
            a label value that no region names, or no region is annotated.
    """
    scored = values.of_case(pair.case)
    truth = read_label(pair.truth)
    ignored = frozenset([] if values.ignored is None else [values.ignored])
    _check_values(truth, pair.truth, values.truth, values.background | ignored)
    stored = read_label(pair.predicted)
    _check_values(stored, pair.predicted, values.predicted, values.background)
    predicted, _ = align(stored, truth, pair.predicted.file, pair.truth.file, by_voxels)
    annotated = ~np.isin(truth.data, [*ignored])
    scores = score_regions(
        to_regions(predicted.data, label_table(scored.predicted)) & annotated,
        to_regions(truth.data, label_table(scored.truth)) & annotated,
        truth.spacing,
        scoring,
    )
    return [
        {"case": pair.case, "region": region, **score}
        for region, score in zip(scored.truth, scores, strict=True)
    ]


def score_pairs(
    pairs: Sequence[ScoredPair],
    values: RegionValues,
    scoring: Scoring,
    workers: int,
    by_voxels: bool = False,
) -> tuple[pd.DataFrame, dict[str, InputError]]:
    """Per-case scores of label maps (``case_scores``, without a loss), in ``workers`` processes.

    Returns also case name -> what is wrong, of those that cannot be scored: they stop no other.
    """
    work = partial(_rows_or_problem, values=values, scoring=scoring, by_voxels=by_voxels)
    rows: list[Row] = []
    problems: dict[str, InputError] = {}
    for pair, found in zip(pairs, in_processes(work, workers, pairs), strict=True):
        if isinstance(found, InputError):
            problems[pair.case] = found
        else:
            rows += found
    columns = ["case", "region", *(m for m in METRICS if m == "dice" or m in scoring.metrics)]
    return pd.DataFrame(rows, columns=columns), problems


def _rows_or_problem(
    pair: ScoredPair, values: RegionValues, scoring: Scoring, by_voxels: bool
) -> list[Row] | InputError:
    try:
        return score_pair(pair, values, scoring, by_voxels)
    except InputError as problem:
        return problem


def _check_values(
    labels: Volume, source: Source, regions: Regions, background: frozenset[int]
) -> None:
    """Refuse a value without meaning: counted as background, it would lower a score silently."""
    known = {value for values in regions.values() for value in values}
    strange = sorted(set(pd.unique(labels.data.ravel()).tolist()) - known - background - {0})
    if strange:
        named = "; ".join(f"{name}: {list(values)}" for name, values in regions.items())
        raise InputError(
            source.file,
            f"holds the label value {strange[0]}, which no region names",
            f"0 and the values of {named}",
            "say what the values mean (--regions NAME=VALUE+VALUE,...), or that "
            f"{strange[0]} counts as background (--background {strange[0]})",
        )
