"""Recipes, against plain second implementations of the published algorithms."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from references.soups import greedy_soup, uniform_soup
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.evaluation.case_scores import LOSS, CaseScore, Scores, mean_score
from voxelsoup.models import weight_files
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.recipes import best, greedy, uniform
from voxelsoup.soups.selection import Cache, Selection
from voxelsoup.soups.soup import (
    Ingredient,
    SoupResult,
    check_alike,
    descending,
    rebuild,
    recipe_record,
)

DESCRIPTION = {"network": {"name": "x"}}
CASES = [f"case{n}" for n in range(6)]
# Where the perfect weights of each case lie.
TARGETS = np.random.default_rng(1).normal(0, 1, (len(CASES), 3))
rows = st.lists(
    st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3), min_size=1, max_size=7
)


def made_up_dice(weights: torch.Tensor, case: str) -> CaseScore:
    """How near weights are to a case's target, between 0 and 1."""
    distance = np.abs(weights.double().numpy() - TARGETS[CASES.index(case)])
    near = np.exp(-distance)
    return {"TC": float(near[:2].mean()), "WT": float(near[2]), LOSS: float(distance.sum())}


class MadeUp:
    def __init__(self) -> None:
        self.asked = 0

    def use(self, weights: Weights) -> None:
        self.weights = weights["w"]

    def score(self, case: str) -> CaseScore:
        self.asked += 1
        return made_up_dice(self.weights, case)


def all_scores(weights: torch.Tensor) -> Scores:
    return {case: made_up_dice(weights, case) for case in CASES}


def write(folder: Path, models: list[list[float]]) -> list[Ingredient]:
    found = []
    for number, row in enumerate(models):
        path = folder / f"{number}.safetensors"
        weights = {"w": torch.tensor(row), "steps": torch.tensor([7 + number])}
        weight_files.save(path, weights, DESCRIPTION)
        scores = all_scores(weights["w"])
        found.append(Ingredient(f"trial{number}", path, sha256(path), scores))
    return found


def selection_with(scorers: int = 1) -> Selection:
    return Selection(CASES, [MadeUp() for _ in range(scorers)], Cache(None, ""))


def plain_greedy(ingredients: list[Ingredient]) -> list[str]:
    """The trials that the greedy recipe of the paper keeps."""
    models = [weight_files.load(i.path)[0]["w"].double().numpy() for i in ingredients]
    kept = greedy_soup(models, lambda w: mean_score(all_scores(torch.from_numpy(w).float())))
    return [ingredients[place].trial for place in kept]


@settings(max_examples=60)
@given(rows)
def test_greedy_keeps_the_ingredients_of_the_reference_algorithm(models: list[list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ingredients = write(Path(folder), models)
        selection = selection_with()
        result = greedy(ingredients, selection)
        assert result.trials == plain_greedy(ingredients)
        assert result.scores == all_scores(result.weights["w"])
    assert selection.inferences <= (len(models) - 1) * len(CASES)
    assert len(result.decisions) == len(models)
    assert result.score >= max(ingredient.score for ingredient in ingredients)


@settings(max_examples=30)
@given(rows, st.integers(2, 4))
def test_greedy_result_does_not_depend_on_looking_ahead(
    models: list[list[float]], scorers: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ingredients = write(Path(folder), models)
        alone, ahead = selection_with(1), selection_with(scorers)
        one, other = greedy(ingredients, alone), greedy(ingredients, ahead)
    assert one.parts == other.parts
    assert one.scores == other.scores
    assert [d.accepted for d in one.decisions] == [d.accepted for d in other.decisions]
    assert ahead.inferences - other.wasted <= alone.inferences + other.wasted


@settings(max_examples=30)
@given(rows)
def test_the_uniform_soup_is_the_float64_mean(models: list[list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        selection = selection_with()
        result = uniform(write(Path(folder), models), selection)
        weights = result.weights["w"]
    np.testing.assert_allclose(
        weights.numpy(), uniform_soup(np.array(models)), rtol=1e-6, atol=1e-6
    )
    assert selection.inferences == len(CASES)
    assert result.scores == all_scores(weights)


def test_greedy_logs_ingredients_by_their_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = write(tmp_path, [[2.0, 2, 2], [0, 0, 0]])
    named = [dataclasses.replace(i, name=f"lr 0.1 ({i.trial})") for i in (one, other)]
    with caplog.at_level("INFO"):
        tried = greedy(named, selection_with()).decisions[1].trial
        greedy([one, other], selection_with())
    starts = [record.getMessage().partition(": ")[0] for record in caplog.records]
    assert starts == [f"lr 0.1 ({tried})", tried]


def test_best_needs_no_inference(tmp_path: Path) -> None:
    ingredients = write(tmp_path, [[2.0, 2, 2], [0, 0, 0], [1, 1, 1]])
    selection = selection_with()
    result = best(ingredients, selection)
    assert result.trials == [descending(ingredients)[0].trial]
    assert selection.inferences == 0


@pytest.mark.parametrize("recipe", [greedy, uniform])
def test_a_soup_rebuilt_from_its_recipe_alone_is_bit_identical(tmp_path: Path, recipe) -> None:
    models = np.random.default_rng(3).normal(0, 0.5, (5, 3)).astype(np.float32).tolist()
    selection = selection_with()
    result: SoupResult = recipe(write(tmp_path, models), selection)
    record = json.loads(json.dumps(recipe_record(recipe.__name__, result, selection, 1.0)))
    again = rebuild(record)
    assert again.keys() == result.weights.keys()
    for name, value in result.weights.items():
        assert torch.equal(again[name], value)
    assert record["case_inferences"] == selection.inferences


def test_a_recipe_whose_ingredient_changed_is_refused(tmp_path: Path) -> None:
    selection = selection_with()
    result = uniform(write(tmp_path, [[1.0, 2, 3], [0, 0, 0]]), selection)
    record = recipe_record("uniform", result, selection, 1.0)
    write(tmp_path, [[1.5, 2, 3]])
    with pytest.raises(InputError, match="has changed"):
        rebuild(record)


def test_a_record_with_weights_per_block_is_refused_not_rebuilt_without_them(
    tmp_path: Path,
) -> None:
    selection = selection_with()
    result = uniform(write(tmp_path, [[1.0, 2, 3], [0, 0, 0]]), selection)
    record = recipe_record("uniform", result, selection, 1.0)
    record["ingredients"][0]["blocks"] = {"w": 0.9}
    with pytest.raises(InputError, match="weights per block, of the recipe `learned`"):
        rebuild(record)


def test_equal_scores_are_ordered_by_trial(tmp_path: Path) -> None:
    ingredients = write(tmp_path, [[1.0, 1, 1]] * 3)
    assert [i.trial for i in descending(ingredients[::-1])] == ["trial0", "trial1", "trial2"]
    # An equal average improves nothing.
    assert greedy(ingredients, selection_with()).trials == ["trial0"]


def test_ingredients_of_other_networks_regions_or_shapes_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path, [[1.0, 2.0, 3.0]])[0]
    for name, weights, description, reason in (
        ("network", {"w": torch.ones(3)}, {"network": {"name": "y"}}, "`network`"),
        ("shape", {"w": torch.ones(4), "steps": torch.tensor([1])}, DESCRIPTION, "`w`"),
        ("names", {"v": torch.ones(3)}, DESCRIPTION, "only one of them has"),
    ):
        path = tmp_path / f"{name}.safetensors"
        weight_files.save(path, weights, description)
        other = dataclasses.replace(good, trial=name, path=path)
        with pytest.raises(InputError, match=reason) as caught:
            check_alike([good, other])
        assert str(path) in str(caught.value)
    # Regions of another order are other outputs of the network.
    paths = []
    for number, order in enumerate((["WT", "TC"], ["TC", "WT"])):
        paths.append(tmp_path / f"order{number}.safetensors")
        regions = {name: {"WT": [1, 2], "TC": [1]}[name] for name in order}
        weight_files.save(paths[-1], {"w": torch.zeros(2)}, {"regions": regions})
    with pytest.raises(InputError, match="`regions` is"):
        check_alike([dataclasses.replace(good, path=path) for path in paths])
    with pytest.raises(InputError, match="no ingredients"):
        check_alike([])
