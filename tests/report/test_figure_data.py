"""Figures draw the numbers of the tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from support.compared_folds import BEST_TRIAL, OTHER_TRIAL, compared
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.report.figures.data import case_differences, drawn_effects, intervals_of

BEST = {0: [0.5, 0.625, 0.75], 3: [0.875, 0.8125]}
# Where all cases gain the same, the interval is known without resampling. Fold 3 gains on one case
# what it loses on the other, so that its interval is symmetrical around 0.
SOUP = {0: [0.625, 0.75, 0.875], 3: [0.9375, 0.75]}
OTHER = {fold: [score - 0.25 for score in scores] for fold, scores in BEST.items()}
PARAMETERS: dict[str, dict[str, Any]] = {
    BEST_TRIAL: {"optimizer.schedule": "cosine", "training.seed": 0},
    OTHER_TRIAL: {"optimizer.schedule": "schedule-free", "training.seed": 0},
}


def two_folds() -> list[FoldComparison]:
    return [
        compared({"Greedy Soup": SOUP[f]}, BEST[f], f, trials={OTHER_TRIAL: OTHER[f]}) for f in BEST
    ]


def test_figure_data_has_the_scores_of_each_case() -> None:
    found = case_differences(two_folds(), "Greedy Soup")
    assert list(found) == [0, 3]
    for fold, frame in found.items():
        assert frame["case"].tolist() == [f"case{n:02}" for n in range(len(BEST[fold]))]
        assert frame["best"].tolist() == pytest.approx(BEST[fold], rel=1e-14)
        assert frame["soup"].tolist() == pytest.approx(SOUP[fold], rel=1e-14)


def test_figure_data_has_the_interval_of_each_fold() -> None:
    # Of fewer than six cases that differ there is none.
    assert np.isnan(intervals_of(two_folds(), "Greedy Soup")[3][1:]).all()
    often = [compared({"Greedy Soup": SOUP[f] * 4}, BEST[f] * 4, f) for f in BEST]
    found = intervals_of(often, "Greedy Soup")
    assert found[0] == pytest.approx((0.125, 0.125, 0.125), rel=1e-9)
    mean, low, high = found[3]
    assert mean == pytest.approx(0, abs=1e-12)
    assert -low == pytest.approx(high, rel=1e-9) and 0 < high <= 0.0625


def test_effects_are_drawn_from_the_mean_of_the_reference() -> None:
    drawn = drawn_effects(two_folds(), PARAMETERS, {BEST_TRIAL: "schedule cosine"})
    trials = drawn.trials
    # A seed is no hyperparameter.
    assert set(trials["key"]) == {"optimizer.schedule"}
    assert list(zip(trials["fold"], trials["name"], trials["value"], strict=True)) == [
        (0, f"schedule cosine ({BEST_TRIAL})", "cosine"),
        (0, OTHER_TRIAL, "schedule-free"),
        (3, f"schedule cosine ({BEST_TRIAL})", "cosine"),
        (3, OTHER_TRIAL, "schedule-free"),
    ]
    expected = [np.mean(scores[fold]) for fold in BEST for scores in (BEST, OTHER)]
    assert trials["score"].tolist() == pytest.approx(expected, rel=1e-12)

    reference, other = (row for _, row in drawn.means.iterrows())
    assert (reference["value"], other["value"]) == ("cosine", "schedule-free")
    assert (reference["reference"], other["reference"]) == (True, False)
    mean = np.mean(np.concatenate(list(BEST.values())))
    assert reference["mean"] == pytest.approx(mean, rel=1e-12)
    assert math.isnan(reference["low"]) and math.isnan(reference["high"])
    assert other["mean"] == pytest.approx(mean - 0.25, rel=1e-12)
    # Five cases differ, of which there is no interval.
    assert math.isnan(other["low"]) and math.isnan(other["high"])
    often = [
        compared({}, BEST[fold] * 2, fold, trials={OTHER_TRIAL: OTHER[fold] * 2}) for fold in BEST
    ]
    other = drawn_effects(often, PARAMETERS, {}).means.iloc[1]
    assert [other["low"], other["high"]] == pytest.approx([mean - 0.25] * 2, rel=1e-9)


def test_each_key_has_a_reference_of_its_own() -> None:
    trials = {"b": 3 * [0.5, 0.75], "c": 3 * [0.25, 0.5], "d": 3 * [0.125, 0.375]}
    parameters = {
        "b": {"optimizer.lr": 0.1, "network.deep": False},
        "c": {"optimizer.lr": 0.2, "network.deep": False},
        "d": {"optimizer.lr": 0.2, "network.deep": True},
    }
    fold = compared({"Greedy Soup": 6 * [0.5]}, 6 * [0.5], trials=trials)
    means = drawn_effects([fold], parameters, {}).means
    assert list(zip(means["key"], means["value"], means["reference"], strict=True)) == [
        ("optimizer.lr", "0.1", True),
        ("optimizer.lr", "0.2", False),
        ("network.deep", "false", True),
        ("network.deep", "true", False),
    ]
    # d against c, seen from the mean of b and c; c against b, seen from the mean of b.
    assert means["low"].iloc[3] == pytest.approx(0.5 - 0.125, rel=1e-9)
    assert means["low"].iloc[1] == pytest.approx(0.625 - 0.25, rel=1e-9)


def test_a_value_without_matched_trials_takes_nothing_from_the_others() -> None:
    trials = {"b": 4 * [0.5, 0.75], "c": 4 * [0.25, 0.5], "d": 4 * [0.75, 0.5]}
    parameters = {
        "b": {"optimizer.lr": 0.1, "network.deep": False},
        "c": {"optimizer.lr": 0.2, "network.deep": True},
        "d": {"optimizer.lr": 0.4, "network.deep": False},
    }
    fold = compared({"Greedy Soup": 8 * [0.5]}, 8 * [0.5], trials=trials)
    means = drawn_effects([fold], parameters, {}).means
    rates = means[means["key"] == "optimizer.lr"].set_index("value")
    assert math.isnan(rates.loc["0.2", "low"])
    # d gains on one case what it loses on the other, seen from the mean of b.
    low, high = rates.loc["0.4", ["low", "high"]]
    assert low + high == pytest.approx(2 * 0.625, rel=1e-9)
    assert 0.375 <= low < 0.625 < high <= 0.875


def test_an_interval_is_drawn_within_what_dice_can_be() -> None:
    trials = {"b": 3 * [0.0, 1.0], "d": 3 * [1.0, 0.0]}
    parameters = {"b": {"optimizer.lr": 0.1}, "d": {"optimizer.lr": 0.4}}
    fold = compared({"Greedy Soup": 6 * [0.5]}, 6 * [0.5], trials=trials)
    rates = drawn_effects([fold], parameters, {}).means.set_index("value")
    assert rates.loc["0.4", ["low", "high"]].tolist() == [0.0, 1.0]


def test_effects_of_a_study_without_sweep_are_empty() -> None:
    parameters: dict[str, dict[str, Any]] = {BEST_TRIAL: {}, OTHER_TRIAL: {}}
    drawn = drawn_effects(two_folds(), parameters, {})
    assert drawn.trials.empty and drawn.means.empty
    assert "score" in drawn.trials and "reference" in drawn.means
