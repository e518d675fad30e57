"""Soups: many models averaged into one.

Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time, ICML 2022.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segsoup import checkpoints
from segsoup.checkpoints import Weights
from segsoup.errors import InputError
from segsoup.files import sha256

log = logging.getLogger(__name__)

Score = Callable[[Weights], float]


@dataclass(frozen=True)
class Ingredient:
    """A model that may go into a soup, with the selection score that its evaluation gave it."""

    trial: str
    path: Path
    score: float


@dataclass(frozen=True)
class Decision:
    """What became of one ingredient.

    Attributes:
        trial: its trial.
        single_score: its own selection score.
        candidate_score: selection score of the soup with it (None where none was taken).
        best_score: the best selection score after the decision.
        accepted: whether it is in the soup.
    """

    trial: str
    single_score: float
    candidate_score: float | None
    best_score: float | None
    accepted: bool


@dataclass(frozen=True)
class Made:
    """A finished soup: its weights, ingredients in order, decisions and selection score."""

    weights: Weights
    ingredients: list[Ingredient]
    decisions: list[Decision]
    score: float


class RunningSum:
    """Exact sum of models, one at a time: float64, so that order and number do not show.

    Integer buffers (step counters) cannot be averaged; the first model's are kept.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: Weights = {}
        self._first: Weights = {}

    def add(self, weights: Weights) -> None:
        """Add one model."""
        if not self.count:
            self._first = weights
            self._sums = {
                name: value.double().clone()
                for name, value in weights.items()
                if value.is_floating_point()
            }
        else:
            for name, total in self._sums.items():
                total += weights[name].double()
        self.count += 1

    def average_with(self, weights: Weights | None = None) -> Weights:
        """The average of what was added, and of ``weights`` too if given, in the stored type."""
        count = self.count + (weights is not None)
        result: Weights = {}
        for name, first in self._first.items():
            if name not in self._sums:
                result[name] = first.clone()
                continue
            total = self._sums[name]
            if weights is not None:
                total = total + weights[name].double()
            result[name] = (total / count).to(first.dtype)
        return result


def descending(ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Best selection score first; equal scores by trial, so that the order is always the same."""
    return sorted(ingredients, key=lambda ingredient: (-ingredient.score, ingredient.trial))


def uniform(ingredients: Sequence[Ingredient], score: Score) -> Made:
    """The average of all ingredients, evaluated once."""
    total = RunningSum()
    for ingredient in descending(ingredients):
        total.add(checkpoints.load(ingredient.path)[0])
    weights = total.average_with()
    result = score(weights)
    decisions = [
        Decision(ingredient.trial, ingredient.score, None, None, accepted=True)
        for ingredient in descending(ingredients)
    ]
    return Made(weights, descending(ingredients), decisions, result)


def greedy(ingredients: Sequence[Ingredient], score: Score) -> Made:
    """Best first; one is kept if the score of the average strictly improves.

    The best single model's score is known from its evaluation, so that N ingredients cost
    N - 1 evaluations.

    Args:
        ingredients: at least one.
        score: the selection score of given weights; higher is better.
    """
    first, *rest = descending(ingredients)
    total = RunningSum()
    total.add(checkpoints.load(first.path)[0])
    kept, best = [first], first.score
    decisions = [Decision(first.trial, first.score, first.score, best, accepted=True)]
    for ingredient in rest:
        weights = checkpoints.load(ingredient.path)[0]
        candidate = score(total.average_with(weights))
        accepted = candidate > best
        if accepted:
            total.add(weights)
            kept.append(ingredient)
            best = candidate
        decisions.append(
            Decision(ingredient.trial, ingredient.score, candidate, best, accepted=accepted)
        )
        log.info(
            "%s: soup with it scores %.6f, %s",
            ingredient.trial,
            candidate,
            "kept" if accepted else "left out",
        )
    return Made(total.average_with(), kept, decisions, best)


RECIPES: dict[str, Callable[[Sequence[Ingredient], Score], Made]] = {
    "uniform": uniform,
    "greedy": greedy,
}


def check_alike(ingredients: Sequence[Ingredient]) -> dict[str, Any]:
    """Make sure that all ingredients can be averaged, and return what they are.

    Raises:
        InputError: naming the first file whose network, channels, regions, preprocessing,
            names or shapes of weights differ from the others'.
    """
    reference: tuple[dict[str, Any], dict[str, Any]] | None = None
    for ingredient in ingredients:
        weights, description = checkpoints.load(ingredient.path)
        shapes = {name: (tuple(value.shape), value.dtype) for name, value in weights.items()}
        if reference is None:
            reference = description, shapes
            continue
        difference = _first_difference(reference[0], description) or _first_difference(
            reference[1], shapes
        )
        if difference:
            raise InputError(
                ingredient.path,
                f"cannot be averaged with {ingredients[0].path}: {difference}",
                "ingredients of one network, one set of regions and one preprocessing",
                "train it anew with the study's settings, or take it out of the study",
            )
    if reference is None:
        raise InputError("soup", "has no ingredients", "at least one trial", "add trials")
    return reference[0]


def _first_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    for key in sorted(one.keys() | other.keys()):
        if key not in one or key not in other:
            return f"only one of them has `{key}`"
        # Regions of another order are equal as mappings, but other outputs of the network.
        orders = [list(v) if isinstance(v, dict) else None for v in (one[key], other[key])]
        if one[key] != other[key] or orders[0] != orders[1]:
            return f"`{key}` is {other[key]} instead of {one[key]}"
    return None


def recipe_record(recipe: str, made: Made) -> dict[str, Any]:
    """What ``recipe.json`` says: enough to make the soup again from its ingredients."""
    weight = 1 / len(made.ingredients)
    return {
        "recipe": recipe,
        "score": made.score,
        "ingredients": [
            {
                "trial": ingredient.trial,
                "weight": weight,
                "selection_score": ingredient.score,
                "sha256": sha256(ingredient.path),
            }
            for ingredient in made.ingredients
        ],
        "decisions": [asdict(decision) for decision in made.decisions],
    }
