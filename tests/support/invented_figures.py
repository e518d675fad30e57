"""Figures of invented numbers, by name, for any number of folds and trials."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd

from voxelsoup.report import figures

NAMES = ["curves", "points", "build_up", "barriers", "distances"]
NAMES += ["differences", "effects", "slices"]


def histories(folds: int, trials: int):
    random = np.random.default_rng(0)
    names = ["stem", *(f"lr={number},loss=dice" for number in range(trials))]
    return {
        (fold, name): pd.DataFrame({"epoch": [1, 2, 3], "training_loss": random.random(3)})
        for fold in range(folds)
        for name in names
    }


def points(folds: int, trials: int) -> pd.DataFrame:
    random = np.random.default_rng(1)
    kinds = ["Best Model", *(trials - 1) * ["Trial"], "Greedy Soup", "Uniform Soup"]
    return pd.DataFrame(
        [
            (f, str(i), kind, *random.random(2))
            for f in range(folds)
            for i, kind in enumerate(kinds)
        ],
        columns=["fold", "name", "kind", "selection", "test"],
    )


def records(folds: int, trials: int, protocol: str = "held-out"):
    decisions = [
        {
            "trial": f"{number:08x}",
            "single_score": 0.8 - number / 1000,
            "candidate_score": 0.8 + number / 1000 * (1 if number % 2 else -1),
            "best_score": 0.8 + number / 1000,
            "accepted": number % 2 == 1 or number == 0,
        }
        for number in range(trials)
    ]
    return {fold: {"protocol": protocol, "decisions": decisions} for fold in range(folds)}


def basins(folds: int, trials: int, protocol: str = "held-out"):
    random = np.random.default_rng(2)
    names = [f"{number:08x}" for number in range(trials)]
    lines = [{"trial": name, "losses": random.random(5).tolist()} for name in names[1:]]
    record = {
        "protocol": protocol,
        "points": [0, 0.25, 0.5, 0.75, 1],
        "lines": lines,
        "models": names,
        "distances": random.random((trials, trials)).tolist(),
    }
    return dict.fromkeys(range(folds), record)


def differences(folds: int, cases: int):
    random = np.random.default_rng(3)
    return {
        fold: pd.DataFrame(
            {
                "case": [f"case-{number:03}" for number in range(cases)],
                "best": random.random(cases),
                "soup": random.random(cases),
            }
        )
        for fold in range(folds)
    }


def effects(folds: int, trials: int) -> figures.HyperparameterEffects:
    random = np.random.default_rng(4)
    swept = {"optimizer.lr": ["0.1", "0.01"], "training.loss": ["dice", "dice+ce", "focal"]}
    rows = [
        (fold, f"{number:08x}", f"{number:08x} of {key}", key, values[number % len(values)], score)
        for key, values in swept.items()
        for fold in range(folds)
        for number, score in enumerate(random.random(trials))
    ]
    means = [
        (key, value, 0.5, np.nan if place == 0 else 0.4, np.nan if place == 0 else 0.6, place == 0)
        for key, values in swept.items()
        for place, value in enumerate(values)
    ]
    return figures.HyperparameterEffects(
        pd.DataFrame(rows, columns=["fold", "trial", "name", "key", "value", "score"]),
        pd.DataFrame(means, columns=["key", "value", "mean", "low", "high", "reference"]),
    )


def ball(x: float, y: float, radius: float) -> np.ndarray:
    across, up = np.mgrid[:40, :30]
    return (across - x) ** 2 + (up - y) ** 2 < radius**2


def case_slice(rank: str, regions: int) -> figures.CaseSlice:
    image = np.where(ball(20, 15, 14), 100.0 + np.arange(30), 0.0)
    names = ["WT", "TC", "ET", "cavity"][:regions]
    masks = (ball(18, 15, 5), ball(19, 15, 5), ball(18, 14, 4))
    return figures.CaseSlice(
        rank=rank,
        case=f"case-{rank}",
        fold=1,
        spacing=(1.0, 2.0),
        image=image,
        regions=dict.fromkeys(names, masks),
        dice=dict.fromkeys(names, (0.7, 0.75)),
    )


def slices(folds: int) -> list[figures.CaseSlice]:
    return [case_slice(rank, min(folds, 4)) for rank in ("best", "median", "worst")[:folds]]


def drawings(folds: int, trials: int):
    return {
        "differences": lambda path: figures.paired_differences(
            differences(folds, trials),
            path,
            "held-out",
            dict.fromkeys(range(folds), (0.01, -0.01, 0.03) if trials > 1 else None),
        ),
        "effects": lambda path: figures.hyperparameter_effects(
            effects(folds, trials), path, "held-out"
        ),
        "slices": lambda path: figures.case_slices(slices(folds), path, "held-out"),
        "curves": lambda path: figures.training_curves(histories(folds, trials), path),
        "points": lambda path: figures.selection_against_test(
            points(folds, trials), path, "held-out"
        ),
        "build_up": lambda path: figures.build_up(records(folds, trials), path),
        "barriers": lambda path: figures.barriers(basins(folds, trials), path),
        "distances": lambda path: figures.weight_distances(basins(folds, trials), path),
    }


def words(path) -> list[str]:
    """Texts of a figure: matplotlib draws letters as outlines and keeps the text as a comment."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def titles(path) -> list[str]:
    """Texts of the marks that a reader can point at."""
    found = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}title")
    return [title.text or "" for title in found]
