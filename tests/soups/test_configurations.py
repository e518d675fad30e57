"""Predictions of several configurations, brought together in the voxels of the scan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from support.runs import small_study
from voxelsoup.evaluation.score import ScanPrediction
from voxelsoup.soups import configurations
from voxelsoup.soups.configurations import (
    ConfigurationModel,
    ensemble_of,
    on_one_grid,
    score_candidates,
)
from voxelsoup.soups.selection import Cache

GRID = (6, 5, 4)
CPU = torch.device("cpu")


def scan(crop: list[list[int]], value: float, **changes: Any) -> tuple[ScanPrediction, dict]:
    """A prediction of one value in a crop, whose ground truth is the crop's first plane."""
    shape = tuple(stop - start for start, stop in crop)
    truth = np.zeros((3, *shape), bool)
    truth[:, 0] = True
    probabilities = np.full((3, *shape), value, np.float32)
    found = ScanPrediction("c", probabilities, truth, [1.0, 1.0, 1.0], 9.0, 0.5, **changes)
    return found, {"crop": crop, "ras_shape": list(GRID)}


def test_predictions_of_one_crop_are_averaged_as_they_are() -> None:
    crop = [[1, 4], [0, 5], [0, 4]]
    scans = on_one_grid({"a": scan(crop, 0.2), "b": scan(crop, 0.6)})
    mean = ensemble_of(list(scans.values()))
    np.testing.assert_allclose(mean.probabilities, np.full((3, 3, 5, 4), 0.4), rtol=1e-6)
    assert math.isnan(mean.loss)
    assert ensemble_of([scans["a"]]) is scans["a"]


def test_predictions_of_different_crops_are_averaged_in_the_whole_scan() -> None:
    known = np.zeros((3, 5, 4), bool)
    crops = [[1, 4], [0, 5], [0, 4]], [[0, 6], [0, 5], [0, 4]]
    scans = on_one_grid(
        {"a": scan(crops[0], 0.2, known=known), "b": scan(crops[1], 0.6)}  # type: ignore[arg-type]
    )
    mean = ensemble_of(list(scans.values())).probabilities[0, :, 0, 0]
    # Outside of a crop nothing was predicted there.
    np.testing.assert_allclose(mean, [0.3, 0.4, 0.4, 0.4, 0.3, 0.3], rtol=1e-6)
    first = scans["a"]
    assert first.truth[0, :, 0, 0].tolist() == [False, True, False, False, False, False]
    assert first.known is not None
    assert first.known[:, 0, 0].tolist() == [True, False, False, False, True, True]


@pytest.fixture
def models(tmp_path: Path) -> list[ConfigurationModel]:
    study = small_study()
    return [ConfigurationModel(name, study, tmp_path / name, name, tmp_path) for name in "ab"]


def test_each_model_predicts_a_case_once_for_all_candidates_and_a_repetition_none(
    models: list[ConfigurationModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    crop = [[0, 6], [0, 5], [0, 4]]

    class Counting:
        """Predicts 1 by one configuration and 0 by the other one."""

        def __init__(self, *_: object) -> None:
            pass

        def scans(self, case: str) -> tuple[dict[str, ScanPrediction], dict[str, Any]]:
            asked.append(case)
            found = {"a": scan(crop, 0.9)[0], "b": scan(crop, 0.2)[0]}
            seconds = {"a": 1.0, "b": 3.0 if case == "p" else 2.0}
            return found, {n: {"seconds": s, "memory_mb": 10 * s} for n, s in seconds.items()}

    monkeypatch.setattr(configurations, "Predictor", Counting)
    first = score_candidates(models, ["p", "q"], CPU, Cache(tmp_path / "kept.jsonl", "x"))
    assert asked == ["p", "q"]
    dice = first.rows.groupby("configurations")["dice"].mean()
    # A sixth is true: of all predicted, Dice is 2 / 7; the mean of 0.9 and 0.2 predicts all too.
    assert dice.to_dict() == pytest.approx({"a": 2 / 7, "b": 0.0, "a + b": 2 / 7})
    assert (first.costs["b"].seconds, first.costs["b"].memory_mb) == (2.5, 30.0)

    again = score_candidates(models, ["p", "q"], CPU, Cache(tmp_path / "kept.jsonl", "x"))
    assert asked == ["p", "q"]
    pd.testing.assert_frame_equal(again.rows, first.rows)
