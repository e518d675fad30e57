"""What a study may conclude: the comparisons that it makes by default, with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxelsoup.comparison.conclusions import conclusion
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL, BEST_SINGLE, ENSEMBLE, protocol_mark
from voxelsoup.comparison.overview import COST
from voxelsoup.comparison.statistics import Difference, effects_of, holm, paired_difference
from voxelsoup.comparison.tables import shown_difference, shown_p, write_table

# Trial id -> swept dotted key -> value.
Parameters = Mapping[str, Mapping[str, Any]]
SCHEDULE = "optimizer.schedule"
SCHEDULE_FREE = "schedule-free"
RECIPE_QUESTION = "Is the recipe better than the best single model?"
ENSEMBLE_QUESTION = "Is the ensemble better than the soup that replaces it?"
SCHEDULE_QUESTION = "Is the schedule-free optimizer better than a scheduled one?"


@dataclass(frozen=True)
class Finding:
    """One comparison of mean Dice on the test cases.

    Attributes:
        first, second: names of the two sides; the difference is first minus second.
        fold: number of the fold, or None for all folds together.
        p: adjusted by Holm over the comparisons of the same folds.
        cost: networks that run for one prediction, on either side.
    """

    question: str
    first: str
    second: str
    fold: int | None
    difference: Difference
    p: float
    cost: str
    sentence: str


@dataclass(frozen=True)
class _Comparison:
    question: str
    first: str
    second: str
    # Both over some of the folds; the difference is first minus second.
    cost: Callable[[Sequence[FoldComparison]], str]
    difference: Callable[[Sequence[FoldComparison]], Difference]


def find(comparisons: Sequence[FoldComparison], parameters: Parameters) -> list[Finding]:
    """Make all comparisons: over all folds first, then per fold."""
    plan = [*_of_recipes(comparisons), *_of_schedules(comparisons, parameters)]
    single = [(c.fold, [c]) for c in comparisons] if len(comparisons) > 1 else []
    return [
        finding for fold, of in [(None, comparisons), *single] for finding in _judge(plan, fold, of)
    ]


def _judge(
    plan: Sequence[_Comparison], fold: int | None, comparisons: Sequence[FoldComparison]
) -> list[Finding]:
    """The comparisons over some folds, with p values for so many of them."""
    differences = [c.difference(comparisons) for c in plan]
    adjusted = holm([difference.p for difference in differences])
    return [
        Finding(
            c.question,
            c.first,
            c.second,
            fold,
            difference,
            p,
            c.cost(comparisons),
            conclusion(c.first, c.second, difference, p),
        )
        for c, difference, p in zip(plan, differences, adjusted, strict=True)
    ]


def _of_recipes(comparisons: Sequence[FoldComparison]) -> list[_Comparison]:
    soups = [title for title in comparisons[0].rows if title != BEST_MODEL]
    pairs = [(RECIPE_QUESTION, soup, BEST_MODEL) for soup in soups]
    if ENSEMBLE in soups:
        # What an ensemble has to beat to be worth its cost.
        rivals = [soup for soup in soups if soup not in (ENSEMBLE, BEST_SINGLE)]
        pairs += [(ENSEMBLE_QUESTION, ENSEMBLE, soup) for soup in rivals]
    return [
        _Comparison(
            question,
            in_a_sentence(first),
            in_a_sentence(second),
            partial(_costs, first, second),
            partial(difference_of, first, second),
        )
        for question, first, second in pairs
    ]


def in_a_sentence(title: str) -> str:
    """``Greedy Soup`` -> ``greedy soup``."""
    # "Best single" and "best model" would be two names that are easily confused.
    names = {BEST_MODEL: "best single model", BEST_SINGLE: "best ingredient"}
    return names.get(title, title.lower())


def difference_of(first: str, second: str, comparisons: Sequence[FoldComparison]) -> Difference:
    """The difference in mean Dice of two of the compared models, first minus second."""
    return paired_difference(
        [
            np.asarray(scores_of_model(c, first) - scores_of_model(c, second), dtype=np.float64)
            for c in comparisons
        ]
    )


def scores_of_model(comparison: FoldComparison, title: str) -> pd.Series:
    """Test case -> mean Dice of one of the compared models."""
    name = comparison.best_trial if title == BEST_MODEL else title
    return comparison.case_scores[name]


def _costs(first: str, second: str, comparisons: Sequence[FoldComparison]) -> str:
    return f"{_cost(comparisons, first)} against {_cost(comparisons, second)}"


def _cost(comparisons: Sequence[FoldComparison], title: str) -> str:
    counts = [c.models_per_prediction[title] for c in comparisons]
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _of_schedules(
    comparisons: Sequence[FoldComparison], parameters: Parameters
) -> list[_Comparison]:
    """Schedule-free against each other schedule of the sweep, over trials alike in the rest."""
    schedules = [str(values[SCHEDULE]) for values in parameters.values() if SCHEDULE in values]
    if SCHEDULE_FREE not in schedules:
        return []
    return [
        _Comparison(
            SCHEDULE_QUESTION,
            SCHEDULE_FREE,
            schedule,
            lambda comparisons: "1 against 1",
            partial(_difference_of_schedules, schedule, parameters),
        )
        for schedule in dict.fromkeys(schedules)
        if schedule != SCHEDULE_FREE
    ]


def _difference_of_schedules(
    schedule: str, parameters: Parameters, comparisons: Sequence[FoldComparison]
) -> Difference:
    effects = effects_of(SCHEDULE, schedule, trial_scores(comparisons), parameters)
    (effect,) = [effect for effect in effects if effect.value == SCHEDULE_FREE]
    # No two trials alike in the rest: nothing to compare.
    return effect.difference or paired_difference([])


def trial_scores(
    comparisons: Sequence[FoldComparison],
) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Fold -> trial -> case scores, the cases in one order; each trial's own model alone."""
    return {
        c.fold: {trial: c.case_scores[trial].to_numpy() for trial in c.trials if "/" not in trial}
        for c in comparisons
    }


def write_findings(findings: Sequence[Finding], protocol: str, stem: Path) -> None:
    """Write all comparisons as a table: a row each, over all folds first."""
    frame = pd.DataFrame(
        [
            {
                "question": finding.question,
                "first": finding.first,
                "second": finding.second,
                "folds": "all" if finding.fold is None else str(finding.fold),
                "cases": finding.difference.cases,
                "difference": finding.difference.mean,
                "low": finding.difference.low,
                "high": finding.difference.high,
                "p": finding.difference.p,
                "p_holm": finding.p,
                COST: finding.cost,
                "conclusion": finding.sentence,
                "protocol": protocol_mark(protocol),
            }
            for finding in findings
        ]
    ).set_index("question")
    shown = frame.drop(columns=["difference", "low", "high", "protocol"])
    shown.columns = [name.replace("_holm", " (Holm)").replace("_", " ") for name in shown.columns]
    shown.insert(
        4, "difference in Dice points [95 %]", [shown_difference(f.difference) for f in findings]
    )
    for name in ("p", "p (Holm)"):
        shown[name] = [shown_p(value) for value in shown[name]]
    caption = (
        "Differences in mean Dice over the regions, first minus second, paired by test case. "
        "95 % interval: BCa bootstrap, cases resampled within their fold. p: two-sided Wilcoxon "
        "signed-rank test, cases ranked within their fold; p (Holm): adjusted for all comparisons "
        "over the same folds. Models per prediction: first against second."
    )
    write_table(frame, shown.astype(str), stem, caption, protocol == "published")
