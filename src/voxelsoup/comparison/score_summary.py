"""Means of per-case scores with their intervals: what a model card and an evaluation report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from voxelsoup.common.plug_ins import uses_plug_in
from voxelsoup.comparison.statistics import Difference, paired_difference
from voxelsoup.comparison.tables import (
    OVER_CASES,
    UNKNOWN,
    decimals,
    heading,
    partly_annotated,
    write_table,
)
from voxelsoup.evaluation.case_scores import ALL_REGIONS, by_case, measured_by, regions_of
from voxelsoup.evaluation.metrics import METRICS

# Metric -> region (`mean`: of all) -> mean over the cases with its 95 % interval.
Means = dict[str, dict[str, Difference]]


def means_of(folds: Sequence[pd.DataFrame], patients: Mapping[str, str]) -> Means:
    """Means of per-case scores, given as the rows of each fold, with 95 % bootstrap intervals.

    Patients are resampled within their fold (``paired_difference``); ``patients``: case -> patient,
    where a case that is not named is its patient's only one. An interval ends where scores do.
    """
    regions = [ALL_REGIONS, *regions_of(pd.concat(folds))]

    def mean(metric: str, region: str) -> Difference:
        scores = [by_case(rows, metric, region) for rows in folds]
        whose = [[patients.get(case, case) for case in fold.index] for fold in scores]
        values = [fold.to_numpy() for fold in scores]
        return _possible(metric, paired_difference(values, patients=whose))

    metrics = ["dice", *measured_by(folds[0])]
    return {metric: {region: mean(metric, region) for region in regions} for metric in metrics}


def _possible(metric: str, mean: Difference) -> Difference:
    """A mean whose interval has no scores that there are not: shares are from 0 to 1."""
    if uses_plug_in("metrics", metric):
        # What range it has is not known.
        return mean
    highest = 1.0 if METRICS[metric].higher_is_better else math.inf
    low, high = (float(np.clip(end, 0.0, highest)) for end in (mean.low, mean.high))
    return replace(mean, low=low, high=high)


def note_on_regions(means: Means) -> str:
    """What a caption adds where regions are not annotated in all cases (``partly_annotated``)."""
    cases = {region: value.cases for region, value in means["dice"].items()}
    return partly_annotated(cases, OVER_CASES)


def shown_mean(value: Difference, metric: str) -> str:
    """``0.8512 [0.8327, 0.8651]``; without an interval where there are too few cases for one."""
    if value.mean != value.mean:
        return UNKNOWN
    digits = decimals(metric)
    if value.low != value.low:
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def shown_means(means: Means) -> pd.DataFrame:
    """A row per region, a column per metric."""
    regions = list(next(iter(means.values())))
    columns = {
        heading(metric): [shown_mean(by_region[region], metric) for region in regions]
        for metric, by_region in means.items()
    }
    return pd.DataFrame(columns, index=pd.Index(regions, name="region"))


def write_means(means: Means, stem: Path, caption: str) -> None:
    """Write means as ``stem``.csv (a row per region and metric, all digits), .md, .tex, .html."""
    rows = [
        {
            "region": region,
            "metric": metric,
            "mean": value.mean,
            "low": value.low,
            "high": value.high,
            "cases": value.cases,
        }
        for metric, by_region in means.items()
        for region, value in by_region.items()
    ]
    frame = pd.DataFrame(rows).set_index("region")
    write_table(frame, shown_means(means), stem, caption, optimistic=False)
