"""What figures draw, from the comparisons of the folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from voxelsoup.comparison.findings import Parameters, difference_of, scores_of_model
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL
from voxelsoup.comparison.sweep_effects import SEED, effects, value_text
from voxelsoup.report.figures import HyperparameterEffects
from voxelsoup.study.trials import named


def case_differences(comparisons: Sequence[FoldComparison], title: str) -> dict[int, pd.DataFrame]:
    """Fold -> ``case``, ``best`` and ``soup``: mean Dice of the best model and of a soup."""
    return {
        c.fold: pd.DataFrame(
            {"best": scores_of_model(c, BEST_MODEL), "soup": scores_of_model(c, title)}
        )
        .rename_axis("case")
        .reset_index()
        for c in comparisons
    }


def intervals_of(
    comparisons: Sequence[FoldComparison], title: str
) -> dict[int, tuple[float, float, float]]:
    """Fold -> mean difference of a soup to the best model, with the ends of its interval."""
    differences = {c.fold: difference_of(title, BEST_MODEL, [c]) for c in comparisons}
    return {fold: (made.mean, made.low, made.high) for fold, made in differences.items()}


def drawn_effects(
    comparisons: Sequence[FoldComparison], parameters: Parameters, names: Mapping[str, str]
) -> HyperparameterEffects:
    """Scores of the trials by the values of each swept key."""
    trials = [
        {
            "fold": c.fold,
            "trial": trial,
            "name": named(trial, names),
            "key": key,
            "value": value_text(value),
            "score": float(c.case_scores[trial].mean()),
        }
        for c in comparisons
        for trial, values in parameters.items()
        # Halving keeps other trials in each fold.
        if trial in c.case_scores
        for key, value in values.items()
        if key != SEED
    ]
    means, reference = [], math.nan
    for effect in effects(comparisons, parameters):
        if effect.difference is None:
            low = high = math.nan
            reference = effect.mean if effect.value == effect.reference else reference
        else:
            # Of a few cases the interval says nothing, and would be drawn beyond what Dice can be.
            ends = effect.difference.low, effect.difference.high
            low, high = np.clip(reference + np.array(ends), 0, 1).tolist()
        means.append(
            {
                "key": effect.key,
                "value": value_text(effect.value),
                "mean": effect.mean,
                "low": low,
                "high": high,
                "reference": effect.value == effect.reference,
            }
        )
    return HyperparameterEffects(
        pd.DataFrame(trials, columns=["fold", "trial", "name", "key", "value", "score"]),
        pd.DataFrame(means, columns=["key", "value", "mean", "low", "high", "reference"]),
    )
