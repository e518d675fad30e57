"""Means of per-case scores with their intervals: what a model card and an evaluation report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

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

# Metric -> region (`mean`: of all) -> mean over the cases with its 95 % interval.
Means = dict[str, dict[str, Difference]]


def means_of(folds: Sequence[pd.DataFrame]) -> Means:
    """Means of per-case scores, given as the rows of each fold, with 95 % bootstrap intervals.

    Cases are resampled within their fold (``paired_difference``).
    """
    regions = [ALL_REGIONS, *regions_of(pd.concat(folds))]
    return {
        metric: {
            region: paired_difference([by_case(rows, metric, region).to_numpy() for rows in folds])
            for region in regions
        }
        for metric in ["dice", *measured_by(folds[0])]
    }


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
