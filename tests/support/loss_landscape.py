"""A made-up landscape of the loss, and models that lie in it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from voxelsoup.common.files import sha256
from voxelsoup.evaluation.case_scores import LOSS, CaseScore
from voxelsoup.models import weight_files
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.barriers import Line, barrier_record
from voxelsoup.soups.selection import Cache, Selection
from voxelsoup.soups.soup import Ingredient, descending

CASES = [f"case{number}" for number in range(7)]


def bump(weights: torch.Tensor, case: str) -> CaseScore:
    """A landscape with a hill at the first weight's 0 and a case's own slope along the second."""
    hill = math.exp(-(float(weights[0]) ** 2))
    slope = 0.01 * CASES.index(case) * (1 + float(weights[1]))
    loss = 0.2 + 0.5 * hill + slope
    return {"TC": 1 - loss, "WT": 1 - loss / 2, LOSS: loss}


class MadeUp:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def use(self, weights: Weights) -> None:
        self.weights = weights["w"]

    def score(self, case: str) -> CaseScore:
        self.asked.append(case)
        return bump(self.weights, case)


def write(folder: Path, models: list[list[float]]) -> list[Ingredient]:
    found = []
    for number, row in enumerate(models):
        path, weights = folder / f"{number}.safetensors", torch.tensor(row)
        weight_files.save(path, {"w": weights, "steps": torch.tensor([number])}, {})
        scores = {case: bump(weights, case) for case in CASES}
        found.append(Ingredient(f"trial{number}", path, sha256(path), scores))
    return descending(found)


def selection_on(cases: list[str], cache: Cache | None = None) -> tuple[Selection, MadeUp]:
    scorer = MadeUp()
    return Selection(cases, [scorer], cache or Cache(None, "")), scorer


def record_of(ingredients: list[Ingredient], cases: list[str], points: int = 3, models: int = 40):
    selection, _ = selection_on(cases)
    record = barrier_record(ingredients, selection, points, "train", averaged=True, models=models)
    return json.loads(json.dumps({"fold": 0, "protocol": "held-out", **record}, allow_nan=False))


# Two on one side of the hill, one on the other.
MODELS = [[3.0, 0.0, 1.0], [2.5, 0.5, 2.0], [-3.0, 0.2, 0.5]]


def line_of(trial: str = "b", score: float = 0.8, barrier: float = 0.0, gain: float = 0.0) -> Line:
    """A line of the given barrier and gain between ends with the losses 0.2 and 0.3."""
    line = Line(trial, score, (0.2, 0.25 + barrier, 0.3), (0.8, 0.75 + gain, 0.7))
    assert (line.barrier, line.gain) == (pytest.approx(barrier), pytest.approx(gain))
    return line
