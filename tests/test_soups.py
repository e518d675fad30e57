"""Soups: exact averages, and the greedy recipe against a plain second implementation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segsoup import checkpoints
from segsoup.checkpoints import Weights
from segsoup.errors import InputError
from segsoup.soups import (
    Ingredient,
    RunningSum,
    check_alike,
    greedy,
    recipe_record,
    uniform,
)

values = st.lists(
    st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1, max_size=6
)
DESCRIPTION = {"network": {"name": "x"}}


def write(folder: Path, rows: list[list[float]], scores: list[float]) -> list[Ingredient]:
    found = []
    for number, (row, score) in enumerate(zip(rows, scores, strict=True)):
        path = folder / f"{number}.safetensors"
        weights = {"w": torch.tensor(row), "steps": torch.tensor([7 + number])}
        checkpoints.save(path, weights, DESCRIPTION)
        found.append(Ingredient(f"trial{number}", path, score))
    return found


def closeness(weights: Weights) -> float:
    """A made-up score: how near the weights are to a point."""
    return -float((weights["w"].double() - torch.tensor([1.0, 2.0, 3.0])).abs().sum())


@settings(deadline=None, max_examples=30)
@given(values)
def test_the_uniform_soup_is_the_float64_mean(rows: list[list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = uniform(write(Path(folder), rows, [0.0] * len(rows)), closeness)
    expected = np.mean(np.array(rows, dtype=np.float64), axis=0)
    np.testing.assert_allclose(made.weights["w"].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert made.weights["w"].dtype == torch.float32
    assert made.weights["steps"].tolist() == [7]


def plain_greedy(rows: list[list[float]], scores: list[float]) -> tuple[list[int], int]:
    """The published algorithm, written down naively."""
    order = sorted(range(len(rows)), key=lambda i: (-scores[i], f"trial{i}"))
    kept, best, evaluations = [order[0]], scores[order[0]], 0
    for i in order[1:]:
        mean = np.mean(np.array([rows[j] for j in [*kept, i]], dtype=np.float64), axis=0)
        score = closeness({"w": torch.tensor(mean).float()})
        evaluations += 1
        if score > best:
            kept, best = [*kept, i], score
    return kept, evaluations


@settings(deadline=None, max_examples=30)
@given(values)
def test_greedy_keeps_what_the_plain_algorithm_keeps(rows: list[list[float]]) -> None:
    scores = [closeness({"w": torch.tensor(row)}) for row in rows]
    calls = []

    def counted(weights: Weights) -> float:
        calls.append(weights)
        return closeness(weights)

    with tempfile.TemporaryDirectory() as folder:
        ingredients = write(Path(folder), rows, scores)
        made = greedy(ingredients, counted)
    kept, evaluations = plain_greedy(rows, scores)
    assert [part.trial for part in made.ingredients] == [f"trial{i}" for i in kept]
    assert len(calls) == evaluations == len(rows) - 1
    assert made.score == max(d.best_score for d in made.decisions if d.best_score is not None)


def test_an_equal_score_is_not_kept_and_ties_go_by_name(tmp_path: Path) -> None:
    ingredients = write(tmp_path, [[1.0, 2.0, 3.0]] * 3, [0.0] * 3)
    made = greedy(list(reversed(ingredients)), closeness)
    assert [part.trial for part in made.ingredients] == ["trial0"]
    assert [d.accepted for d in made.decisions] == [True, False, False]


def test_the_record_names_weights_hashes_and_decisions(tmp_path: Path) -> None:
    record = recipe_record(
        "uniform", uniform(write(tmp_path, [[0.0] * 3, [1.0] * 3], [0, 1]), closeness)
    )
    assert [part["weight"] for part in record["ingredients"]] == [0.5, 0.5]
    assert all(len(part["sha256"]) == 64 for part in record["ingredients"])
    assert len(record["decisions"]) == 2


@pytest.mark.parametrize(
    ("weights", "description", "said"),
    [
        ({"v": torch.zeros(3)}, DESCRIPTION, "`steps`|`v`"),
        ({"w": torch.zeros(4), "steps": torch.tensor([1])}, DESCRIPTION, "`w`"),
        (
            {"w": torch.zeros(3), "steps": torch.tensor([1])},
            {"network": {"name": "y"}},
            "`network`",
        ),
        (
            {"w": torch.zeros(3).half(), "steps": torch.tensor([1])},
            DESCRIPTION,
            "`w` .*float16",
        ),
    ],
)
def test_unlike_ingredients_are_refused_by_name(
    tmp_path: Path, weights: Weights, description: dict, said: str
) -> None:
    ingredients = write(tmp_path, [[0.0] * 3], [0.0])
    checkpoints.save(tmp_path / "other.safetensors", weights, description)
    other = Ingredient("other", tmp_path / "other.safetensors", 0.0)
    with pytest.raises(InputError, match=said) as caught:
        check_alike([*ingredients, other])
    assert "other.safetensors" in str(caught.value)


def test_outputs_in_another_order_are_refused(tmp_path: Path) -> None:
    found = []
    for number, order in enumerate((["WT", "TC"], ["TC", "WT"])):
        path = tmp_path / f"{number}.safetensors"
        regions = {name: {"WT": [1, 2], "TC": [1]}[name] for name in order}
        checkpoints.save(path, {"w": torch.zeros(2)}, {"regions": regions})
        found.append(Ingredient(str(number), path, 0.5))
    with pytest.raises(InputError, match="`regions` is"):
        check_alike(found)


@settings(deadline=None, max_examples=20)
@given(values, st.randoms())
def test_the_order_of_the_ingredients_does_not_show(
    rows: list[list[float]], random: Random
) -> None:
    scores = [closeness({"w": torch.tensor(row)}) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        ingredients = write(Path(folder), rows, scores)
        shuffled = random.sample(ingredients, len(ingredients))
        for recipe in (uniform, greedy):
            one, two = recipe(ingredients, closeness), recipe(shuffled, closeness)
            assert torch.equal(one.weights["w"], two.weights["w"])
            assert one.ingredients == two.ingredients
            assert one.decisions == two.decisions


@settings(deadline=None, max_examples=20)
@given(values)
def test_the_best_score_rises_with_every_ingredient_kept(rows: list[list[float]]) -> None:
    scores = [closeness({"w": torch.tensor(row)}) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        made = greedy(write(Path(folder), rows, scores), closeness)
    best = [decision.best_score for decision in made.decisions]
    assert best[0] == max(scores)
    for before, after, decision in zip(best, best[1:], made.decisions[1:], strict=False):
        assert (after > before) == decision.accepted
        assert decision.candidate_score is not None
        assert after == (decision.candidate_score if decision.accepted else before)
    assert made.score == best[-1] == closeness(made.weights)


def test_a_single_model_is_its_own_soup_and_costs_no_evaluation(tmp_path: Path) -> None:
    (ingredient,) = write(tmp_path, [[0.1, 0.2, 0.3]], [0.5])
    made = greedy([ingredient], lambda weights: pytest.fail("evaluated"))
    assert torch.equal(made.weights["w"], torch.tensor([0.1, 0.2, 0.3]))
    assert made.score == 0.5


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_average_has_the_type_of_the_weights_but_not_its_errors(kind: torch.dtype) -> None:
    """In half precision 2048 + 1 is 2048: a sum in the stored type would lose every addition."""
    total = RunningSum()
    for value in (2048.0, *[1.0] * 7):
        total.add({"w": torch.tensor([value], dtype=kind)})
    average = total.average_with()["w"]
    assert average.dtype == kind
    assert average.item() == torch.tensor(2055 / 8, dtype=torch.float64).to(kind).item()


def test_trying_a_model_does_not_put_it_into_the_soup() -> None:
    total = RunningSum()
    first = {"w": torch.tensor([1.0])}
    total.add(first)
    assert total.average_with({"w": torch.tensor([3.0])})["w"].item() == 2
    assert total.average_with()["w"].item() == 1
    total.add({"w": torch.tensor([5.0])})
    assert first["w"].item() == 1


def test_a_soup_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="has no ingredients"):
        check_alike([])
