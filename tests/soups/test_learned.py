"""The learned recipe: its gradient, its guard, and soups with a weight per block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.runs import preprocess_phantom, small_study
from voxelsoup.common.files import sha256
from voxelsoup.evaluation.case_scores import LOSS, CaseScore
from voxelsoup.models import networks, weight_files
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.averaging import WeightedModel, average, block_of
from voxelsoup.soups.recipes import learned
from voxelsoup.soups.recipes.learned import GUARD, _slopes, learn
from voxelsoup.soups.scorer import WeightsScorer
from voxelsoup.soups.selection import Cache, Selection
from voxelsoup.soups.soup import Ingredient, rebuild, recipe_record
from voxelsoup.study.sections.soup import Learned
from voxelsoup.training.patches import PatchSource, batches

CASES = [f"case{number}" for number in range(8)]
PER_BLOCK = Learned(per="block", steps=60, lr=0.2)
PER_MODEL = Learned(steps=60, lr=0.2)


class TwoBlocks:
    """Each case has its own optimum; a case scores by how near both blocks are to it."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets = torch.from_numpy(targets)

    def _near(self, weights: Weights, case: str) -> torch.Tensor:
        values = torch.cat([weights["a.0.w"].double(), weights["b.w"].double()])
        return torch.exp(-((values - self.targets[CASES.index(case)]) ** 2).mean())

    def use(self, weights: Weights) -> None:
        self.weights = weights

    def score(self, case: str) -> CaseScore:
        near = float(self._near(self.weights, case))
        return {"TC": near, LOSS: 1 - near}

    def gradient(self, weights: Weights, cases: list[str], step: int) -> Weights:
        free = {name: value.double().requires_grad_() for name, value in weights.items()}
        (-torch.stack([self._near(free, case) for case in cases]).mean()).backward()
        return {name: value.grad for name, value in free.items() if value.grad is not None}


def write(folder: Path, models: list[tuple[float, float]], scorer: TwoBlocks) -> list[Ingredient]:
    found = []
    for number, (first, second) in enumerate(models):
        path = folder / f"{number}.safetensors"
        weights = {"a.0.w": torch.full((2,), first), "b.w": torch.full((2,), second)}
        weight_files.save(path, weights, {})
        scorer.use(weights)
        scores = {case: scorer.score(case) for case in CASES}
        found.append(Ingredient(f"trial{number}", path, sha256(path), scores))
    return found


def chance_around(center: float, spread: float) -> np.ndarray:
    return center + np.random.default_rng(0).normal(0, spread, (len(CASES), 4))


def test_mixing_weights_find_the_optimum_between_the_ingredients(tmp_path: Path) -> None:
    scorer = TwoBlocks(chance_around(0.75, 0.0))
    ingredients = write(tmp_path, [(0.0, 0.0), (1.0, 1.0)], scorer)
    shares = learn(ingredients, scorer, CASES, Learned(steps=300, lr=0.1))
    assert shares[:, 0].tolist() == pytest.approx([0.25, 0.75], abs=0.01)
    result = learned(ingredients, Selection(CASES, [scorer], Cache(None, "")), PER_MODEL)
    assert result.score > max(ingredient.score for ingredient in ingredients)
    assert sum(part.weight for part in result.parts) == pytest.approx(1)


def test_blocks_have_weights_of_their_own(tmp_path: Path) -> None:
    targets = np.repeat([[1.0, 1, 0, 0]], len(CASES), axis=0)
    scorer = TwoBlocks(targets)
    # The first model is right in its first block, the second one in its second.
    ingredients = write(tmp_path, [(1.0, 1.0), (0.0, 0.0)], scorer)
    selection = Selection(CASES, [scorer], Cache(None, ""))
    per_model, per_block = (learned(ingredients, selection, s) for s in (PER_MODEL, PER_BLOCK))
    assert per_block.score > 0.99 > per_model.score
    for block in ("a.0", "b"):
        assert sum(part.blocks[block] for part in per_block.parts) == pytest.approx(1)
    record = json.loads(json.dumps(recipe_record("learned", per_block, selection, 1.0)))
    again = rebuild(record)
    assert all(torch.equal(again[name], value) for name, value in per_block.weights.items())
    assert record["gradient_steps"] == 2 * PER_BLOCK.steps
    assert record["case_inferences"] == selection.inferences


def test_the_guard_refuses_an_average_that_only_fits_the_cases_it_was_learned_on(
    tmp_path: Path,
) -> None:
    # Even and odd cases want opposite things: what fits one half is worse on the other.
    targets = np.where(np.arange(len(CASES))[:, None] % 2 == 0, -1.0, 1.0) * np.ones((1, 4))
    scorer = TwoBlocks(targets)
    ingredients = write(tmp_path, [(0.0, 0.0), (-1.0, -1.0), (1.0, 1.0)], scorer)
    single = max(ingredients, key=lambda ingredient: ingredient.score)
    result = learned(ingredients, Selection(CASES, [scorer], Cache(None, "")), PER_MODEL)
    assert result.trials == [single.trial]
    guard = result.decisions[0]
    assert guard.trial == GUARD
    assert not guard.accepted
    assert guard.candidate_score is not None
    assert guard.candidate_score < guard.single_score == single.score


def test_learned_needs_two_ingredients_and_two_cases(tmp_path: Path) -> None:
    scorer = TwoBlocks(chance_around(0.5, 0.1))
    ingredients = write(tmp_path, [(0.0, 0.0), (1.0, 1.0)], scorer)
    one_case = Selection(CASES[:1], [scorer], Cache(None, ""))
    alone = [
        Ingredient(i.trial, i.path, i.sha256, {CASES[0]: i.scores[CASES[0]]}) for i in ingredients
    ]
    for given, selection in (
        (ingredients[:1], Selection(CASES, [scorer], Cache(None, ""))),
        (alone, one_case),
    ):
        result = learned(given, selection, PER_MODEL)
        assert len(result.trials) == 1
        assert selection.inferences == result.gradient_steps == 0


def test_average_with_weights_per_block_matches_the_formula(tmp_path: Path) -> None:
    scorer = TwoBlocks(chance_around(0.5, 0.1))
    ingredients = write(tmp_path, [(0.25, 3.0), (0.5, 7.0)], scorer)
    shares = [{"a.0": 0.9, "b": 0.2}, {"a.0": 0.1, "b": 0.8}]
    parts = [
        WeightedModel(i.path, i.sha256, 0.5, s) for i, s in zip(ingredients, shares, strict=True)
    ]
    result = average(parts)
    assert result["a.0.w"].tolist() == pytest.approx([0.9 * 0.25 + 0.1 * 0.5] * 2)
    assert result["b.w"].tolist() == pytest.approx([0.2 * 3 + 0.8 * 7] * 2)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("enc_stages.1.0.conv1.weight", "enc_stages.1"),
        ("stem.weight", "stem"),
        ("out_0.conv_out.bias", "out_0"),
        ("scale", "scale"),
    ],
)
def test_a_block_is_a_stage_of_the_network(name: str, block: str) -> None:
    assert block_of(name) == block


@pytest.mark.parametrize(
    "network",
    [{}, {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2], "norm": "batch"}}],
)
def test_gradient_of_mixing_weights_is_the_losss_slope_along_ingredients(
    phantom_folder: Path, tmp_path: Path, network: dict[str, Any]
) -> None:
    """Finite differences of the very loss on the very patches, in the direction of a model."""
    changes: dict[str, Any] = {"network": {"size": "S", **network}} if network else {}
    study = small_study(**changes)
    cases = preprocess_phantom(phantom_folder, tmp_path)[:2]
    fold = {"training": cases}
    scorer = WeightsScorer(study, fold, tmp_path, torch.device("cpu"))
    ingredients = []
    for number in range(2):
        with networks.seeded(number):
            model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
        path = tmp_path / f"{number}.safetensors"
        weight_files.save(path, model.state_dict(), {})
        ingredients.append(Ingredient(str(number), path, sha256(path), {}))
    one, other = (weight_files.load(i.path)[0] for i in ingredients)
    trained = set(dict(scorer.model.named_parameters()))

    def moved(share: float) -> Weights:
        return {
            name: value.lerp(other[name], share) if name in trained else value
            for name, value in one.items()
        }

    def loss(share: float) -> float:
        return loss_in_float64(scorer, moved(share), cases)

    gradient = scorer.gradient(moved(0.5), cases, step=3)
    first, second = _slopes(ingredients, gradient, ["model"])[:, 0].tolist()
    measured = (loss(0.5 + 1e-3) - loss(0.5 - 1e-3)) / 2e-3
    assert second - first == pytest.approx(measured, rel=0.02, abs=1e-4)


def loss_in_float64(scorer: WeightsScorer, weights: Weights, cases: list[str]) -> float:
    """The loss whose gradient `gradient` takes, written down again in float64."""
    model = scorer.model
    model.load_state_dict(weights)
    training = scorer.study.training.model_copy(update={"augmentation": "none"})
    source = PatchSource(
        scorer.folder, sorted(cases), scorer.study.regions, training, (training.seed,)
    )
    ((images, regions),) = batches(source, 3, 4, torch.device("cpu"))
    with torch.no_grad():
        predicted = torch.sigmoid(model.double()(images.double()))
    model.float()
    axes = (2, 3, 4)
    overlap = (predicted * regions).sum(axes)
    dice = (2 * overlap + 1e-5) / (predicted.sum(axes) + regions.sum(axes) + 1e-5)
    return float(1 - dice.mean())
