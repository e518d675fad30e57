"""Effects of swept settings and seeds: against differences and deviations written out."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from support.compared_folds import (
    BEST_TRIAL,
    compared,
    csv_cells,
    html_cells,
    latex_cells,
    markdown_cells,
)
from voxelsoup.comparison.findings import difference_of
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.statistics import (
    SeedSpread,
    holm,
    model_difference,
    paired_difference,
)
from voxelsoup.comparison.sweep_effects import (
    effects,
    seed_spreads,
    value_text,
    write_effects,
    write_seeds,
)
from voxelsoup.study.loading import load
from voxelsoup.study.trials import parameters_of, trials

RNG = np.random.default_rng(8)
PRIMARY = ("Greedy Soup", "Best Model")
CASES = {0: 7, 2: 5}
GRID: dict[str, list[Any]] = {
    "optimizer.lr": [0.1, 0.2],
    "training.loss": ["dice", "dice-bce"],
    "training.seed": [0, 1, 2],
}
PARAMETERS = {
    f"{number:08x}": dict(zip(GRID, values, strict=True))
    for number, values in enumerate(itertools.product(*GRID.values()))
}
SCORES = {
    fold: {trial: RNG.uniform(0.4, 0.8, cases) for trial in PARAMETERS}
    for fold, cases in CASES.items()
}
BEST = {fold: np.linspace(0.5, 0.7, cases) for fold, cases in CASES.items()}


def folds_of(
    parameters: dict[str, dict[str, Any]] = PARAMETERS, protocol: str = "held-out"
) -> list[FoldComparison]:
    """Folds with a greedy soup that gains 2 Dice points in the first and none in the other."""
    return [
        compared(
            {"Greedy Soup": best + (0.02 if fold == 0 else 0.0)},
            best,
            fold,
            protocol,
            trials={trial: SCORES[fold][trial] for trial in parameters if trial != BEST_TRIAL},
        )
        for fold, best in {
            fold: np.linspace(0.5, 0.7, cases) for fold, cases in CASES.items()
        }.items()
    ]


def mean_of(fold: int, **chosen: Any) -> NDArray[np.float64]:
    """Mean scores of the trials with these values, keys by their last part."""
    trials = [
        trial
        for trial, values in PARAMETERS.items()
        if all(values[key] == chosen.get(key.split(".")[1], values[key]) for key in values)
    ]
    return np.mean([SCORES[fold][trial] for trial in trials], axis=0)


def test_the_effect_of_a_value_is_over_matched_trials_and_a_seed_is_no_hyperparameter() -> None:
    found = effects(folds_of(), PARAMETERS)
    assert [(e.key, e.value, e.trials, e.pairs) for e in found] == [
        ("optimizer.lr", 0.1, 6, 0),
        ("optimizer.lr", 0.2, 6, 6),
        ("training.loss", "dice", 6, 0),
        ("training.loss", "dice-bce", 6, 6),
    ]
    # The grid is complete: the difference of matched trials is that of the means.
    expected = paired_difference([mean_of(f, lr=0.2) - mean_of(f, lr=0.1) for f in CASES])
    assert found[1].difference is not None
    assert found[1].difference.mean == pytest.approx(expected.mean, rel=1e-8)
    assert found[1].difference.p == pytest.approx(expected.p, rel=1e-8)
    scores = np.concatenate([mean_of(fold, loss="dice-bce") for fold in CASES])
    assert found[3].mean == pytest.approx(scores.mean(), rel=1e-12)


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_effects_are_written_beside_the_reference(tmp_path: Path, protocol: str) -> None:
    found = effects(folds_of(), PARAMETERS)
    write_effects(found, protocol, tmp_path / "hyperparameters")
    frame = pd.read_csv(tmp_path / "hyperparameters.csv", float_precision="round_trip")
    assert frame["key"].tolist() == [e.key for e in found]
    # JSON, which distinguishes a text from a number.
    assert frame["value"].tolist() == ["0.1", "0.2", '"dice"', '"dice-bce"']
    assert frame["mean"].tolist() == [e.mean for e in found]
    compared_ones = [e.difference for e in found if e.difference]
    assert frame["difference"].dropna().tolist() == [d.mean for d in compared_ones]
    assert frame["p"].dropna().tolist() == [d.p_interval for d in compared_ones]
    assert frame["p_holm"].dropna().tolist() == holm([d.p_interval for d in compared_ones])
    assert frame["low"].isna().tolist() == [True, False, True, False]

    cells = markdown_cells(tmp_path / "hyperparameters.md")
    assert html_cells(tmp_path / "hyperparameters.html") == cells
    assert latex_cells(tmp_path / "hyperparameters.tex") == cells
    assert cells[0] == [
        "key",
        "value",
        "trials",
        "mean Dice",
        "pairs",
        "difference in Dice points [95 %]",
        "p",
        "p (Holm)",
    ]
    assert cells[3] == ["training.loss", "dice", "6", f"{found[2].mean:.4f}", "0", "–", "–", "–"]
    difference = compared_ones[0]
    assert cells[2][5] == (
        f"{100 * difference.mean:+.2f} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    )
    for ending in ("csv", "md", "html", "tex"):
        text = (tmp_path / f"hyperparameters.{ending}").read_text().lower()
        assert (OPTIMISTIC in text) == (protocol == "published")


@pytest.mark.parametrize(
    "parameters",
    [
        {BEST_TRIAL: {}},
        {BEST_TRIAL: {"training.seed": 0}, "00000000": {"training.seed": 1}},
        {BEST_TRIAL: {"optimizer.lr": 0.1}, "00000000": {"optimizer.lr": 0.1}},
    ],
)
def test_effects_table_says_that_nothing_is_swept(
    tmp_path: Path, parameters: dict[str, dict[str, Any]]
) -> None:
    found = effects(folds_of(parameters), parameters)
    assert found == []
    write_effects(found, "held-out", tmp_path / "hyperparameters")
    assert "No hyperparameter is swept." in (tmp_path / "hyperparameters.md").read_text()
    assert len(csv_cells(tmp_path / "hyperparameters.csv")) == 1
    assert len(html_cells(tmp_path / "hyperparameters.html")) == 1
    assert len(latex_cells(tmp_path / "hyperparameters.tex")) == 1


def test_the_interval_of_an_effect_resamples_patients() -> None:
    patients = {f"case{number:02}": f"patient{number % 6}" for number in range(12)}
    parameters = {"00000000": {"optimizer.lr": 0.1}, "00000001": {"optimizer.lr": 0.2}}
    gains = np.array([0.01, 0.02, 0.03, -0.01, 0.04, 0.02] * 2)
    scores = {"00000000": np.full(12, 0.5), "00000001": 0.5 + gains}
    fold = replace(compared({}, np.full(12, 0.5), trials=scores), patients=patients)
    (_, of_patients) = effects([fold], parameters)
    (_, of_cases) = effects([replace(fold, patients={})], parameters)
    assert of_patients.difference == model_difference([gains], patients=[list(patients.values())])
    assert of_cases.difference == model_difference([gains])
    # Each patient's two cases tell the same: there are six observations and not twelve.
    assert of_patients.difference.low < of_cases.difference.low


def test_a_value_without_matched_trials_has_no_difference(tmp_path: Path) -> None:
    parameters = {
        "00000000": {"optimizer.lr": 0.1, "training.loss": "dice"},
        "00000001": {"optimizer.lr": 0.2, "training.loss": "dice-bce"},
    }
    write_effects(effects(folds_of(parameters), parameters), "held-out", tmp_path / "h")
    assert [row[4:] for row in markdown_cells(tmp_path / "h.md")[1:]] == [["0", "–", "–", "–"]] * 4


def test_trials_of_different_keys_are_compared_with_the_values_of_their_studies() -> None:
    sweep = {
        "grid": {"optimizer.lr": [0.1, 0.2], "training.augmentation": ["none"]},
        "also": [{"trials": [{"training.augmentation": "none", "training.loss": "dice"}]}],
    }
    study = load(
        {
            "dataset": {"channels": ["t1n"]},
            "regions": {"WT": [1]},
            "optimizer": {"lr": 0.1},
            "sweep": sweep,
        }
    )
    parameters = parameters_of(trials(study))
    first, second, other = parameters
    scores = {
        fold: {
            trial: SCORES[fold][name] for trial, name in zip(parameters, PARAMETERS, strict=False)
        }
        for fold in CASES
    }
    folds = [compared({}, BEST[fold], fold, trials=scores[fold]) for fold in CASES]
    found = effects(folds, parameters)
    # A key with one value is not shown; the third trial has the first one's rate.
    assert [(e.key, e.value, e.trials, e.pairs) for e in found] == [
        ("optimizer.lr", 0.1, 2, 0),
        ("optimizer.lr", 0.2, 1, 1),
        ("training.loss", "dice-bce", 2, 0),
        ("training.loss", "dice", 1, 1),
    ]
    rate = paired_difference([scores[f][second] - scores[f][first] for f in CASES])
    loss = paired_difference([scores[f][other] - scores[f][first] for f in CASES])
    assert [e.difference and e.difference.mean for e in found] == [None, rate.mean, None, loss.mean]


@pytest.mark.parametrize(
    ("value", "text"),
    [("cosine", "cosine"), (0.1, "0.1"), (True, "true"), (None, "null"), ([1, 2], "[1, 2]")],
)
def test_swept_values_are_written_compactly(value: object, text: str) -> None:
    assert value_text(value) == text


def test_the_spread_of_seeds_is_pooled_over_the_settings_of_a_fold() -> None:
    found = seed_spreads(folds_of(), PARAMETERS)
    assert list(found) == [None, 0, 2]
    for scope, spread in found.items():
        groups = [
            [float(mean_of(fold, lr=lr, loss=loss, seed=seed).mean()) for seed in (0, 1, 2)]
            for fold in (0, 2)
            if scope in (None, fold)
            for lr in (0.1, 0.2)
            for loss in ("dice", "dice-bce")
        ]
        pooled = math.sqrt(statistics.fmean(map(statistics.variance, groups)))
        assert (spread.settings, spread.seeds) == (8 if scope is None else 4, 3)
        assert spread.deviation == pytest.approx(pooled, rel=1e-9)
        largest = max(max(group) - min(group) for group in groups)
        assert spread.largest_range == pytest.approx(largest, rel=1e-9)


@pytest.mark.parametrize("keys", [["optimizer.lr"], ["optimizer.lr", "training.seed"]])
def test_without_a_second_seed_there_is_no_spread(tmp_path: Path, keys: list[str]) -> None:
    parameters = {
        trial: {key: values[key] for key in keys}
        for trial, values in PARAMETERS.items()
        if values["training.seed"] == 0
    }
    folds = folds_of(parameters)
    assert seed_spreads(folds, parameters) == {}
    write_seeds({}, folds, PRIMARY, tmp_path / "seeds")
    assert "No setting runs under several seeds." in (tmp_path / "seeds.md").read_text()
    assert len(csv_cells(tmp_path / "seeds.csv")) == 1


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_spread_of_seeds_is_shown_beside_the_gain_of_the_soup(
    tmp_path: Path, protocol: str
) -> None:
    spreads = {
        None: SeedSpread(6, 3, 0.01, 0.0456),
        0: SeedSpread(4, 3, 0.0123, 0.0456),
        2: SeedSpread(2, 3, 0.001, 0.002),
    }
    folds = folds_of(protocol=protocol)
    write_seeds(spreads, folds, PRIMARY, tmp_path / "seeds")
    frame = pd.read_csv(tmp_path / "seeds.csv", index_col="fold", float_precision="round_trip")
    assert frame.loc["0"].tolist()[:4] == [4, 3, 0.0123, 0.0456]
    whole = difference_of("Greedy Soup", "Best Model", folds).mean
    assert frame["gain"].tolist() == pytest.approx([whole, 0.02, 0], abs=1e-12)
    cells = markdown_cells(tmp_path / "seeds.md")
    assert cells == [
        [
            "fold",
            "settings",
            "seeds",
            "seed deviation (Dice points)",
            "seed largest range (Dice points)",
            "gain (Dice points)",
        ],
        ["all", "6", "3", "1.00", "4.56", f"{100 * whole:+.2f}"],
        ["0", "4", "3", "1.23", "4.56", "+2.00"],
        ["2", "2", "3", "0.10", "0.20", "+0.00"],
    ]
    assert html_cells(tmp_path / "seeds.html") == cells
    assert latex_cells(tmp_path / "seeds.tex") == cells
    text = (tmp_path / "seeds.md").read_text()
    assert "gain of the greedy soup over the best single model" in text
    assert (OPTIMISTIC in text.lower()) == (protocol == "published")


def test_a_fold_without_a_spread_has_no_row(tmp_path: Path) -> None:
    write_seeds({2: SeedSpread(2, 3, 0.001, 0.002)}, folds_of(), PRIMARY, tmp_path / "seeds")
    assert [row[0] for row in csv_cells(tmp_path / "seeds.csv")] == ["fold", "2"]
