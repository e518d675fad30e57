"""Pairs of models that are compared together: differences corrected for each other by Holm.

What a study compares of its own models is in ``findings``. Here are pairs of any models that were
scored on the same cases: of other studies, or label maps of other tools.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

import pandas as pd

from voxelsoup.comparison.conclusions import conclusion, confidence
from voxelsoup.comparison.findings import DIFFERENCE
from voxelsoup.comparison.statistics import (
    SIGNIFICANT,
    Difference,
    holm,
    holm_levels,
    model_difference,
)
from voxelsoup.comparison.tables import UNKNOWN, decimals, heading, shown_interval, shown_p
from voxelsoup.evaluation.case_scores import ALL_REGIONS, by_case

ENDS = ("difference", "low", "high")


class Scored(Protocol):
    """Cases that are resampled together, as those of a fold, scored by several models."""

    @property
    def rows(self) -> Mapping[str, pd.DataFrame]:
        """Model -> its per-case scores; those of all models are of the same cases and regions."""

    def patients_of(self, cases: Iterable[str]) -> list[str]:
        """The patient of each of some cases."""


@dataclass(frozen=True)
class JudgedPair:
    """Two models compared by their mean Dice over the regions.

    Attributes:
        first, second: what they are called; the difference is first minus second.
        difference: with the interval of the level.
        usual: the same difference with its 95 % interval.
        level: that Holm's procedure tests the pair at; 0.05 where there is no other pair.
        p: adjusted for the other pairs.
        sentence: what may be concluded, without a full stop.
    """

    first: str
    second: str
    difference: Difference
    usual: Difference
    level: float
    p: float
    sentence: str


def difference_between(
    first: str,
    second: str,
    blocks: Sequence[Scored],
    confidence: float = 1 - SIGNIFICANT,
    metric: str = "dice",
    region: str = ALL_REGIONS,
) -> Difference:
    """First minus second in a metric, paired over cases; patients are resampled within blocks."""
    values = [
        by_case(block.rows[first], metric, region) - by_case(block.rows[second], metric, region)
        for block in blocks
    ]
    patients = [block.patients_of(value.index) for block, value in zip(blocks, values, strict=True)]
    return model_difference([value.to_numpy() for value in values], confidence, patients)


def judge(
    pairs: Sequence[tuple[str, str]],
    blocks: Sequence[Scored],
    names: Mapping[str, str],
    block: str = "fold",
) -> list[JudgedPair]:
    """Compare pairs of models, corrected for each other.

    ``names``: model -> what sentences call it; ``block``: what a block is.
    """
    usual = [difference_between(*pair, blocks) for pair in pairs]
    p_values = [difference.p_interval for difference in usual]
    judged = []
    for (first, second), at_95, level, p in zip(
        pairs, usual, holm_levels(p_values), holm(p_values), strict=True
    ):
        difference = (
            at_95 if level == SIGNIFICANT else difference_between(first, second, blocks, 1 - level)
        )
        sentence = conclusion(names[first], names[second], difference, p, level, at_95, block)
        judged.append(JudgedPair(first, second, difference, at_95, level, p, sentence))
    return judged


def pair_rows(
    pairs: Sequence[JudgedPair],
    blocks: Sequence[Scored],
    metrics: Sequence[str],
    regions: Sequence[str],
    tested: bool = True,
) -> list[dict[str, Any]]:
    """All numbers of judged pairs: a row per pair, metric and region.

    Args:
        tested: whether the mean Dice over the regions of these blocks is what was judged.

    Returns:
        ``first``, ``second``, ``metric``, ``region`` (``mean``: of all), ``first_mean`` and
        ``second_mean`` over the cases, ``difference`` with the ends ``low`` and ``high`` of its
        interval, ``level`` (that of the interval), ``p`` and ``p_holm`` (of what is tested; NaN
        elsewhere, where the interval is a 95 % interval), ``p_signed_rank``, ``cases``,
        ``patients``, ``unequal``, ``blocks``.
    """
    return [
        {
            "first": pair.first,
            "second": pair.second,
            "metric": metric,
            "region": region,
            **_numbers(pair, blocks, metric, region, tested),
        }
        for pair in pairs
        for metric in metrics
        for region in (ALL_REGIONS, *regions)
    ]


def _numbers(
    pair: JudgedPair, blocks: Sequence[Scored], metric: str, region: str, tested: bool
) -> dict[str, Any]:
    judged = tested and (metric, region) == ("dice", ALL_REGIONS)
    found = (
        pair.difference
        if judged
        else difference_between(pair.first, pair.second, blocks, metric=metric, region=region)
    )
    return {
        "first_mean": _mean(blocks, pair.first, metric, region),
        "second_mean": _mean(blocks, pair.second, metric, region),
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "level": pair.level if judged else SIGNIFICANT,
        "p": found.p_interval if judged else math.nan,
        "p_holm": pair.p if judged else math.nan,
        "p_signed_rank": found.p,
        "cases": found.cases,
        "patients": found.patients,
        "unequal": found.unequal,
        "blocks": found.folds,
    }


def _mean(blocks: Sequence[Scored], model: str, metric: str, region: str) -> float:
    """Mean over all cases; that of all regions is over the cases, each with its regions' mean."""
    values = pd.concat([by_case(block.rows[model], metric, region) for block in blocks]).dropna()
    return fmean(values) if len(values) else math.nan


def shown_pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``pair_rows`` for readers: a row per pair and region, Dice first."""
    of_metric = dict(list(frame.groupby("metric", sort=False)))
    dice = of_metric.pop("dice")
    shown: dict[str, Any] = {
        "region": dice["region"],
        "cases": dice["cases"].astype(str),
        "Dice of the first": [f"{value:.4f}" for value in dice["first_mean"]],
        "Dice of the second": [f"{value:.4f}" for value in dice["second_mean"]],
        DIFFERENCE: [
            shown_interval(*ends) for ends in zip(*(dice[end] for end in ENDS), strict=True)
        ],
        "interval": [
            shown_level(low, level) for low, level in zip(dice["low"], dice["level"], strict=True)
        ],
        "p (Holm)": [shown_p(value) for value in dice["p_holm"]],
    }
    for metric, part in of_metric.items():
        ends = zip(*(part[end] for end in ENDS), strict=True)
        shown[f"{heading(str(metric))}, difference [95 %]"] = [
            _shown_change(str(metric), *values) for values in ends
        ]
    names = [f"{a} – {b}" for a, b in zip(dice["first"], dice["second"], strict=True)]
    return pd.DataFrame({name: list(values) for name, values in shown.items()}).set_index(
        pd.Index(names, name="compared")
    )


def shown_level(low: float, level: float) -> str:
    """The confidence of an interval, if there is one."""
    return UNKNOWN if math.isnan(low) else confidence(level).removesuffix(" interval")


def _shown_change(metric: str, mean: float, low: float, high: float) -> str:
    """A difference in a metric other than Dice, in its own unit: ``-1.20 [-2.10, -0.30]``."""
    digits = decimals(metric)
    if math.isnan(mean):
        return UNKNOWN
    value = f"{mean:+z.{digits}f}"
    return value if math.isnan(low) else f"{value} [{low:+z.{digits}f}, {high:+z.{digits}f}]"


def outcome(difference: Difference) -> str:
    """``better``, ``worse`` or ``no difference``, of the first model."""
    if not difference.leaves_out_zero:
        return "no difference"
    return "better" if difference.mean > 0 else "worse"
