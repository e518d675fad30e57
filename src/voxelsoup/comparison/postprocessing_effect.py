"""What post-processing does to the compared models: scores without and with it, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import protocol_mark
from voxelsoup.comparison.statistics import paired_difference
from voxelsoup.comparison.tables import (
    OVER_CASES,
    partly_annotated,
    shown_interval,
    write_table,
)
from voxelsoup.evaluation.case_scores import by_case, cases_of_regions


def without_and_with(comparisons: Sequence[FoldComparison]) -> pd.DataFrame:
    """Dice of every compared model and region, over all cases.

    Returns:
        ``model``, ``region`` (``mean``: of all), ``without``, ``with``, ``difference`` with the
        ends ``low`` and ``high`` of its 95 % interval, ``cases``, ``protocol``.
    """
    first = comparisons[0]
    regions = list(cases_of_regions([next(iter(c.rows.values())) for c in comparisons]))
    rows = []
    for title in first.postprocessed:
        for region in regions:
            without = [by_case(c.rows[title], region=region) for c in comparisons]
            after = [by_case(c.postprocessed[title], region=region) for c in comparisons]
            difference = paired_difference(
                [(b - a).to_numpy() for a, b in zip(without, after, strict=True)],
                patients=[
                    c.patients_of(a.index) for c, a in zip(comparisons, without, strict=True)
                ],
            )
            rows.append(
                {
                    "model": title,
                    "region": region,
                    "without": fmean(pd.concat(without)),
                    "with": fmean(pd.concat(after)),
                    "difference": difference.mean,
                    "low": difference.low,
                    "high": difference.high,
                    "cases": difference.cases,
                    "protocol": protocol_mark(first.protocol),
                }
            )
    return pd.DataFrame(rows).set_index("model")


def write_without_and_with(
    comparisons: Sequence[FoldComparison], records: Sequence[Mapping[str, Any]], stem: Path
) -> None:
    """Write the table, with what was chosen in each fold (its postprocessing.json) above it."""
    frame = without_and_with(comparisons)
    shown = frame[["region"]].copy()
    for name in ("without", "with"):
        shown[f"Dice {name}"] = [f"{value:.4f}" for value in frame[name]]
    shown["difference in Dice points [95 %]"] = [
        shown_interval(*values)
        for values in zip(frame["difference"], frame["low"], frame["high"], strict=True)
    ]
    caption = (
        "Mean Dice over all test cases without and with post-processing, which was chosen in each "
        "fold on the selection cases alone and is the same for all models."
    )
    counts = cases_of_regions([next(iter(c.rows.values())) for c in comparisons])
    caption += partly_annotated(counts, OVER_CASES)
    chosen = "\n\n".join(f"Fold {record['fold']}: {choice_in_words(record)}" for record in records)
    optimistic = comparisons[0].protocol == "published"
    write_table(frame, shown, stem, f"{caption}\n\n{chosen}", optimistic)


def choice_in_words(record: Mapping[str, Any]) -> str:
    """What was chosen in a fold, in words."""
    choice = record["postprocessing"]
    parts = []
    for region, rule in choice["regions"].items():
        changes = []
        if rule["threshold"] != 0.5:
            changes.append(f"threshold {rule['threshold']:g}")
        if rule["smallest_component"]:
            changes.append(f"components below {rule['smallest_component']:g} mm³ dropped")
        if changes:
            parts.append(f"{region}: {' and '.join(changes)}")
    if choice["replacement"]:
        rule = choice["replacement"]
        parts.append(f"{rule['region']} below {rule['below']:g} mm³ becomes {rule['by']}")
    return "; ".join(parts) + "." if parts else "no post-processing, since none scored higher."
