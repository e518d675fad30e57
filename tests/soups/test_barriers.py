"""Barriers, distances and sentences, against independent formulas on a made-up landscape."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from support.loss_landscape import CASES, MODELS, bump, line_of, record_of, selection_on, write
from voxelsoup.common.files import sha256
from voxelsoup.evaluation.case_scores import LOSS
from voxelsoup.models import weight_files
from voxelsoup.soups import barriers
from voxelsoup.soups.barriers import (
    Line,
    distances,
    measured_models,
    sentence,
    spread,
)
from voxelsoup.soups.recipes import greedy
from voxelsoup.soups.selection import Cache
from voxelsoup.soups.soup import Ingredient


def test_the_barrier_is_the_rise_above_the_ends_line(tmp_path: Path) -> None:
    ingredients = write(tmp_path, MODELS)
    best = torch.tensor(MODELS[0], dtype=torch.float64)
    cases = CASES[1:5]
    selection, scorer = selection_on(cases)
    places, lines = barriers.measure(ingredients, selection, points=5)
    assert places == pytest.approx(np.linspace(0, 1, 7), abs=1e-15)
    for line in lines:
        other = torch.tensor(MODELS[int(line.trial[-1])], dtype=torch.float64)
        at = [[bump(best + t * (other - best), c) for c in cases] for t in places]
        losses = [np.mean([case[LOSS] for case in point]) for point in at]
        dice_scores = [np.mean([[case["TC"], case["WT"]] for case in point]) for point in at]
        assert line.losses == pytest.approx(losses, abs=1e-6)
        assert line.dice == pytest.approx(dice_scores, abs=1e-6)
        rises = [losses[i] - ((1 - t) * losses[0] + t * losses[-1]) for i, t in enumerate(places)]
        assert line.barrier == pytest.approx(max(0, *rises), abs=1e-6)
        assert line.gain == pytest.approx(
            dice_scores[3] - (dice_scores[0] + dice_scores[-1]) / 2, abs=1e-6
        )
    by_name = {line.trial: line for line in lines}
    assert by_name["trial1"].shared
    assert by_name["trial2"].barrier > 0.4
    # The ends are known: only the points between them are evaluated, on the chosen cases.
    assert len(scorer.asked) == selection.inferences == 2 * 5 * len(cases)
    assert set(scorer.asked) == set(cases)


def test_a_line_that_sags_has_no_barrier_and_one_of_a_diverged_model_an_infinite_one() -> None:
    assert Line("a", 0.5, (0.3, 0.2, 0.4), (0.7, 0.8, 0.6)).barrier == 0
    diverged = Line("a", 0.0, (0.3, math.nan, math.nan), (0.7, 0.0, 0.0))
    assert diverged.barrier == math.inf
    assert not diverged.shared


def test_barriers_and_greedy_reuse_each_others_midpoint_scores(
    tmp_path: Path,
) -> None:
    ingredients = write(tmp_path, [[3.0, 0, 1], [-3.0, 0.1, 0.5]])
    cache = Cache(None, "")
    for_greedy, _ = selection_on(CASES, cache)
    greedy(ingredients, for_greedy)
    seen = for_greedy.inferences
    assert seen > 0
    for_basin, scorer = selection_on(CASES, cache)
    barriers.measure(ingredients, for_basin, points=1)
    assert len(scorer.asked) == len(CASES) - seen
    again, scorer = selection_on(CASES, cache)
    greedy(ingredients, again)
    assert scorer.asked == []


def test_cases_are_spread_from_hard_to_easy() -> None:
    # The later the case, the higher its loss.
    scores = {case: bump(torch.tensor([3.0, 0.0]), case) for case in CASES}
    assert spread(scores, 7) == spread(scores, 99) == CASES[::-1]
    assert spread(scores, 1) == [CASES[3]]
    assert spread(scores, 3) == [CASES[5], CASES[3], CASES[1]]
    for number in range(1, 8):
        assert len(set(spread(scores, number))) == number


@pytest.mark.parametrize("chunk", [1, 200, 10**6])
def test_distances_match_those_of_flattened_vectors(tmp_path: Path, chunk: int) -> None:
    random = np.random.default_rng(0)
    base = random.normal(0, 1, 61).astype(np.float32)
    paths, vectors = [], []
    for number in range(5):
        # Close together, as branches of one stem are.
        vector = base + random.normal(0, 1e-4, 61).astype(np.float32)
        tensors = torch.from_numpy(vector).split([1, 24, 36])
        weights = {
            "b": tensors[2].reshape(4, 3, 3),
            "a": tensors[1].reshape(2, 12),
            "c": tensors[0].reshape(()).double(),
            "steps": torch.tensor([1000 * number]),
        }
        paths.append(tmp_path / f"{number}")
        weight_files.save(paths[-1], weights, {})
        vectors.append(vector.astype(np.float64))
    found = distances(paths, chunk)
    norm = np.linalg.norm(vectors[0])
    for i, j in itertools.product(range(5), repeat=2):
        expected = np.linalg.norm(vectors[i] - vectors[j]) / norm
        assert found[i, j] == pytest.approx(expected, rel=1e-9)
    assert distances(paths[:1]).tolist() == [[0.0]]


MEASURE = """
import resource, sys
from pathlib import Path
from voxelsoup.soups.barriers import distances
paths = [Path(sys.argv[1])] * int(sys.argv[2])
distances(paths[:1], 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
distances(paths, 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_distances_of_many_models_take_no_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "model"
    # 16 MB, so that thirty of them would show.
    weight_files.save(path, {"w": torch.randn(2000, 2000)}, {})
    command = [sys.executable, "-c", MEASURE, str(path), "30"]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(grown) < 16_000, "KiB"


def test_a_sentence_says_whether_models_are_connected() -> None:
    assert "nothing to average" in sentence([], "train")
    near = sentence([line_of(barrier=0.001), line_of("c", barrier=0.0031)], "train")
    assert near == (
        "These models are linearly mode-connected (they share a basin): the highest barrier "
        "between the best one and the 2 others is 0.0031."
    )
    apart = [line_of(barrier=0.3), line_of("c", barrier=0.01), line_of("d", barrier=0.1)]
    for stem, advice in (
        ("none", "train them from a shared stem"),
        ("train", "left the stem's basin: shorten the branches or lower their learning rates"),
        ("checkpoint", "left the basin of the given weights"),
    ):
        said = sentence(apart, stem)
        assert "are not linearly mode-connected: 2 of 3" in said
        assert "highest 0.3000" in said
        assert advice in said


def test_a_diverged_model_is_recorded(tmp_path: Path) -> None:
    good, other = write(tmp_path, MODELS[:2])
    path = tmp_path / "nan.safetensors"
    weight_files.save(path, {"w": torch.full((3,), math.nan), "steps": torch.tensor([1])}, {})
    scores = {case: {"TC": 0.0, "WT": 0.0, LOSS: math.nan} for case in CASES}
    record = record_of([good, other, Ingredient("nan", path, sha256(path), scores)], CASES)
    assert record["lines"][1]["barrier"] is None
    assert record["distances"][2][0] is None
    assert record["distances"][0][1] > 0
    assert "1 of 2" in record["sentence"]
    assert barriers.lines_of(record)[1].barrier == math.inf


def test_barriers_of_many_models_are_measured_for_some_of_all_ranks(tmp_path: Path) -> None:
    ordered = write(tmp_path, [*MODELS, [2.0, 0.1, 1.0], [1.0, 0.3, 0.7]])
    assert measured_models(ordered, 5) == measured_models(ordered, 99) == ordered
    # The best and the second best, and with one more the worst.
    assert measured_models(ordered, 2) == ordered[:2]
    assert measured_models(ordered, 3) == [ordered[0], ordered[1], ordered[4]]
    record = record_of(ordered, CASES, models=3)
    assert len(record["lines"]) == 2 and len(record["distances"]) == 3
    assert record["sentence"].endswith("Measured between 3 of 5 models, of all ranks.")
