"""Tables of the folds in the published form, and the overview: recipes x regions x metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType

import numpy as np
import pandas as pd

from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL, protocol_mark
from voxelsoup.comparison.statistics import model_difference
from voxelsoup.comparison.tables import (
    OVER_REGIONS,
    decimals,
    heading,
    partly_annotated,
    shown_interval,
    spread,
    write_table,
)
from voxelsoup.evaluation.case_scores import (
    ALL_REGIONS,
    by_case,
    cases_of_regions,
    measured_by,
    region_means,
)
from voxelsoup.study.trials import NO_LABELS, named

COST, STEPS = "models_per_prediction", "training_steps"
GREEDY = "Greedy Soup"
# Of a difference and its interval, as columns are called.
ENDS = ("difference", "low", "high")


def published_columns(comparison: FoldComparison) -> dict[str, dict[str, float]]:
    """The columns of the published table: the best single model and the greedy soup.

    A study without a greedy soup has its first recipe there.
    """
    soups = [title for title in comparison.rows if title != BEST_MODEL]
    soup = GREEDY if GREEDY in soups else next(iter(soups), None)
    columns = comparison.columns
    return {title: columns[title] for title in (BEST_MODEL, soup) if title is not None}


def fold_table(
    fold: int, columns: Mapping[str, Mapping[str, float]], protocol: str
) -> pd.DataFrame:
    """The table of one fold in the published form.

    Returns:
        Rows ``test_avg``, ``test_<region>`` and ``test_loss`` in the order of the alphabet;
        columns ``Best Model (Fold k)``, ``Greedy Soup (Fold k)``.
    """
    index = sorted(next(iter(columns.values())))
    table = pd.DataFrame(
        {
            f"{title} (Fold {fold})": [column[name] for name in index]
            for title, column in columns.items()
        },
        index=index,
        dtype="float64",
    )
    optimistic = protocol == "published"
    table.index.name = "metric (published protocol, optimistic)" if optimistic else "metric"
    return table


def write_fold_table(
    comparison: FoldComparison,
    stem: Path,
    labels: Mapping[str, str] = NO_LABELS,
    left_out: str = "",
) -> None:
    """Write a fold's table as ``stem``.csv, .md, .tex and .html: the same digits in all.

    ``left_out`` is a sentence about the trials that diverged.
    """
    columns = published_columns(comparison)
    table = fold_table(comparison.fold, columns, comparison.protocol)
    parts = [
        f" Ingredients of {title}: {comparison.ingredients[title]}."
        for title in columns
        if title != BEST_MODEL
    ]
    # With several checkpoints there are more models than trials.
    kind = "models of the trials" if any("/" in name for name in comparison.trials) else "trials"
    caption = (
        f"Fold {comparison.fold}: Dice (0 to 1) and loss on the test cases. "
        f"Best Model is trial {named(comparison.best_trial, labels)}, whose mean Dice on "
        f"the selection cases is the highest of {len(comparison.trials)} {kind}.{''.join(parts)}"
        + (f" {left_out}" if left_out else "")
        + partly_annotated(cases_of_regions([comparison.rows[BEST_MODEL]]), OVER_REGIONS)
    )
    write_table(table, table.map(repr), stem, caption, comparison.protocol == "published")


def overview(
    comparisons: Sequence[FoldComparison],
    after_postprocessing: bool = False,
    steps: Mapping[str, int] = MappingProxyType({}),
) -> pd.DataFrame:
    """All folds: one row per kind of model and region.

    ``steps``: kind of model -> optimizer steps per fold that it cost, which become a column.

    Returns:
        ``model``; ``region`` (``mean``: of all); for every metric ``<metric>_mean`` and
        ``<metric>_std`` over the folds (sample standard deviation; NaN for one fold),
        ``<metric>_difference`` to the best single model over all cases with the ends of its 95 %
        interval ``<metric>_low`` and ``<metric>_high``; the same of ``loss`` where the region is
        ``mean``; ``cases`` in which it is annotated; ``folds``, ``ingredients`` and
        ``models_per_prediction`` (per fold, in the order of ``folds``); ``training_steps``, if they
        are given; ``protocol``.
    """
    ordered = sorted(comparisons, key=lambda comparison: comparison.fold)
    scored = [c.postprocessed if after_postprocessing else c.rows for c in ordered]
    first = scored[0][BEST_MODEL]
    cases = cases_of_regions([rows[BEST_MODEL] for rows in scored])
    rows = []
    for title in scored[0]:
        for region, number in cases.items():
            row: dict[str, object] = {"model": title, "region": region}
            for metric in ["dice", *measured_by(first), "loss"]:
                if metric != "loss" or region == ALL_REGIONS:
                    row |= _cells(ordered, scored, title, metric, region)
            row |= {
                "cases": number,
                "folds": ", ".join(str(c.fold) for c in ordered),
                "ingredients": ", ".join(str(c.ingredients[title]) for c in ordered),
                COST: ", ".join(str(c.models_per_prediction[title]) for c in ordered),
                **({STEPS: steps[title]} if steps else {}),
                "protocol": protocol_mark(ordered[0].protocol),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _cells(
    comparisons: Sequence[FoldComparison],
    scored: Sequence[Mapping[str, pd.DataFrame]],
    title: str,
    metric: str,
    region: str,
) -> dict[str, float]:
    centers = [_center(rows[title], metric, region) for rows in scored]
    cells = {f"{metric}_mean": fmean(centers), f"{metric}_std": _deviation(centers)}
    ends = [math.nan] * len(ENDS)
    if title != BEST_MODEL:
        differences = [
            by_case(rows[title], metric, region) - by_case(rows[BEST_MODEL], metric, region)
            for rows in scored
        ]
        # The loss of a model that diverged may be infinite: no difference to take a mean of.
        made = model_difference(
            [d.where(np.isfinite(d)).to_numpy() for d in differences],
            patients=[
                c.patients_of(d.index) for c, d in zip(comparisons, differences, strict=True)
            ],
        )
        ends = [made.mean, made.low, made.high]
    return cells | {f"{metric}_{end}": value for end, value in zip(ENDS, ends, strict=True)}


def _deviation(centers: Sequence[float]) -> float:
    # `stdev` fails on NaN.
    return stdev(centers) if len(centers) > 1 and np.isfinite(centers).all() else math.nan


def _center(rows: pd.DataFrame, metric: str, region: str) -> float:
    means = region_means(rows, metric)
    return fmean(means.values()) if region == ALL_REGIONS else means[region]


def shown_overview(frame: pd.DataFrame) -> pd.DataFrame:
    """The overview for readers: mean ± deviation, and the difference in Dice."""
    metrics = [name.removesuffix("_mean") for name in frame.columns if name.endswith("_mean")]
    shown: dict[str, Sequence[str]] = {"model": frame["model"], "region": frame["region"]}
    for metric in metrics:
        shown[heading(metric)] = [
            spread(center, deviation, decimals(metric))
            for center, deviation in zip(
                frame[f"{metric}_mean"], frame[f"{metric}_std"], strict=True
            )
        ]
        if metric == "dice":
            shown["difference in Dice points [95 %]"] = [
                shown_interval(*values)
                for values in zip(*(frame[f"dice_{end}"] for end in ENDS), strict=True)
            ]
    for name in (COST, "ingredients", *([STEPS] if STEPS in frame else [])):
        shown[name.replace("_", " ")] = [
            (f"{value:,}" if name == STEPS else value) if region == ALL_REGIONS else ""
            for value, region in zip(frame[name], frame["region"], strict=True)
        ]
    return pd.DataFrame(shown)


def write_overview(
    frame: pd.DataFrame, stem: Path, tolerance: float, after_postprocessing: bool = False
) -> None:
    """Write the overview: full precision in ``stem``.csv, shown in .md, .tex and .html."""
    protocol = str(frame["protocol"].iloc[0])
    caption = (
        f"{folds_in_words(frame).capitalize()} with "
        f"{counted(int(frame['cases'].iloc[0]), 'test case')}"
        f"{', after post-processing' if after_postprocessing else ''}; protocol: "
        f"{protocol.partition(' ')[0]}. Mean ± standard deviation over the folds. Difference: mean "
        "over all cases of the difference in Dice from the best single model of the same fold, in "
        "Dice points (hundredths), with a 95 % bootstrap interval that is not corrected for the "
        "number of models; what may be concluded stands in the table of comparisons. Models per "
        "prediction: networks that run for one prediction, which is the inference cost, in each "
        "fold. Ingredients: "
        "models that are averaged, in each fold."
    )
    if STEPS in frame:
        caption += (
            " Training steps: optimizer steps per fold that the model cost, with those of all "
            "models that it was chosen among."
        )
    counts = frame.drop_duplicates("region").set_index("region")["cases"].astype(int)
    caption += partly_annotated(counts.to_dict(), OVER_REGIONS)
    if "nsd_mean" in frame:
        caption += f" Surface Dice: at a tolerance of {tolerance:g} mm."
    optimistic = protocol.startswith("published")
    write_table(
        frame.set_index("model"),
        shown_overview(frame).set_index("model"),
        stem,
        caption,
        optimistic,
    )


def folds_in_words(frame: pd.DataFrame) -> str:
    """``folds 0, 1 and 2`` of an overview."""
    folds = str(frame["folds"].iloc[0]).split(", ")
    return f"fold{'s' if len(folds) > 1 else ''} {listed(folds)}"


def read_overview(path: Path) -> pd.DataFrame:
    """Read an overview.csv that `write_overview` wrote, bit by bit."""
    text = dict.fromkeys(("model", "region", "protocol", "folds", "ingredients", COST), str)
    # A region may be called NA.
    return pd.read_csv(
        path, dtype=text, keep_default_na=False, na_values=["nan"], float_precision="round_trip"
    )
