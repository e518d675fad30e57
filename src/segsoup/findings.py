"""What a study may conclude: the comparisons that it makes by default, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segsoup.comparison import BEST_MODEL, ENSEMBLE, FoldComparison, protocol_mark
from segsoup.significance import (
    Difference,
    Effect,
    SeedSpread,
    conclusion,
    effects_of,
    holm,
    marginal_effects,
    paired_difference,
    seed_spread,
)
from segsoup.tables import GREEDY, POINTS, UNKNOWN, interval, write_table

Parameters = Mapping[str, Mapping[str, Any]]
SCHEDULE, SEED = "optimizer.schedule", "training.seed"
SCHEDULE_FREE = "schedule-free"
RECIPE_QUESTION = "Is the recipe better than the best single model?"
ENSEMBLE_QUESTION = "Is the ensemble better than the soup that replaces it?"
SCHEDULE_QUESTION = "Is the schedule-free optimizer better than a scheduled one?"


@dataclass(frozen=True)
class Finding:
    """One comparison of mean Dice on the test cases.

    Attributes:
        question: what it answers.
        first, second: names of the two sides; the difference is first minus second.
        fold: number of the fold, or None for all folds together.
        difference: with its interval and p value.
        p: adjusted by Holm over the comparisons of the same folds.
        cost: networks that run for one prediction, on either side.
        sentence: what may be concluded.
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
    # Fold -> differences of its cases.
    folds: Mapping[int, NDArray[np.float64]]
    cost: str


def find(comparisons: Sequence[FoldComparison], parameters: Parameters) -> list[Finding]:
    """Make all comparisons: over all folds first, then per fold.

    Args:
        comparisons: the folds.
        parameters: trial id -> swept dotted key -> value.
    """
    made = [*_of_recipes(comparisons), *_of_schedules(comparisons, parameters)]
    scopes = [None, *(c.fold for c in comparisons)] if len(comparisons) > 1 else [None]
    return [finding for scope in scopes for finding in _judged(made, scope)]


def _judged(made: Sequence[_Comparison], fold: int | None) -> list[Finding]:
    """The comparisons over all folds or in one, with p values for so many of them."""
    differences = [
        paired_difference(list(c.folds.values()) if fold is None else [c.folds[fold]])
        for c in made
    ]
    adjusted = holm([difference.p for difference in differences])
    return [
        Finding(
            c.question,
            c.first,
            c.second,
            fold,
            difference,
            p,
            c.cost,
            conclusion(c.first, c.second, difference, p),
        )
        for c, difference, p in zip(made, differences, adjusted, strict=True)
    ]


def _of_recipes(comparisons: Sequence[FoldComparison]) -> list[_Comparison]:
    soups = [title for title in comparisons[0].rows if title != BEST_MODEL]
    pairs = [(RECIPE_QUESTION, soup, BEST_MODEL) for soup in soups]
    if ENSEMBLE in soups:
        # What an ensemble has to beat to be worth its cost.
        rivals = [soup for soup in soups if soup not in (ENSEMBLE, "Best Single")]
        pairs += [(ENSEMBLE_QUESTION, ENSEMBLE, soup) for soup in rivals]
    return [
        _Comparison(
            question,
            _in_a_sentence(first),
            _in_a_sentence(second),
            {c.fold: _minus(_scores(c, first), _scores(c, second)) for c in comparisons},
            f"{_cost(comparisons, first)} against {_cost(comparisons, second)}",
        )
        for question, first, second in pairs
    ]


def _in_a_sentence(title: str) -> str:
    return title[0].lower() + title[1:].replace("Soup", "soup").replace("Model", "model")


def _scores(comparison: FoldComparison, title: str) -> pd.Series:
    name = comparison.best_trial if title == BEST_MODEL else title
    return comparison.case_scores[name]


def _minus(first: pd.Series, second: pd.Series) -> NDArray[np.float64]:
    return np.asarray((first - second).to_numpy(), dtype=np.float64)


def _cost(comparisons: Sequence[FoldComparison], title: str) -> str:
    counts = [c.models_per_prediction[title] for c in comparisons]
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _of_schedules(
    comparisons: Sequence[FoldComparison], parameters: Parameters
) -> list[_Comparison]:
    """Schedule-free against each other schedule of the sweep, over trials alike in the rest."""
    schedules = {values[SCHEDULE] for values in parameters.values() if SCHEDULE in values}
    if SCHEDULE_FREE not in schedules:
        return []
    made = []
    for effect in effects_of(SCHEDULE, SCHEDULE_FREE, _trial_scores(comparisons), parameters):
        if effect.value == SCHEDULE_FREE or not effect.differences:
            continue
        # An effect is that of the other value; the question is asked the other way round.
        folds = {fold: -values for fold, values in effect.differences.items()}
        made.append(
            _Comparison(
                SCHEDULE_QUESTION, SCHEDULE_FREE, str(effect.value), folds, "1 against 1"
            )
        )
    return made


def _trial_scores(
    comparisons: Sequence[FoldComparison],
) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Fold -> trial -> case scores, the cases in one order; the models to evaluate alone."""
    return {
        c.fold: {
            trial: c.case_scores[trial].to_numpy() for trial in c.trials if "/" not in trial
        }
        for c in comparisons
    }
