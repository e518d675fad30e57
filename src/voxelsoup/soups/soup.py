"""Soups: many models averaged into one.

Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time, ICML 2022.

What goes into one, what a recipe (``voxelsoup.soups.recipes``) hands back, and the record of it,
which is enough to make the soup again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, sha256
from voxelsoup.evaluation.case_scores import Scores, mean_score, read_rows, scores_of
from voxelsoup.models import weight_files
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.averaging import WeightedModel, average, equal_parts
from voxelsoup.soups.candidates import OWN, ranking, read_candidates
from voxelsoup.soups.selection import Outcome, Selection
from voxelsoup.study.study import Study
from voxelsoup.study.trials import NO_LABELS, model_labels, named


@dataclass(frozen=True)
class Ingredient:
    """A model that may go into a soup.

    Attributes:
        scores: what its evaluation gave on the selection cases.
        name: what logs call it; empty: its trial.
    """

    trial: str
    path: Path
    sha256: str
    scores: Scores
    name: str = ""

    @property
    def score(self) -> float:
        """Its mean selection Dice."""
        return mean_score(self.scores)


@dataclass(frozen=True)
class Decision:
    """What became of one ingredient.

    Attributes:
        candidate_score: selection score of the soup with it (None where none was taken to the
            end).
        at_most: what that could have been at most, where it was stopped.
        stopped: `bound` (it could not win any more), `race` (a test said so) or None.
    """

    trial: str
    single_score: float
    candidate_score: float | None
    best_score: float | None
    accepted: bool
    at_most: float | None = None
    stopped: str | None = None
    inferences: int = 0

    @classmethod
    def of(
        cls, trial: str, single_score: float, outcome: Outcome, best_score: float, accepted: bool
    ) -> Self:
        """The decision on a candidate, from what became of it."""
        return cls(
            trial,
            single_score,
            outcome.score,
            best_score,
            accepted,
            None if outcome.score is not None else outcome.at_most,
            outcome.stopped,
            outcome.inferences,
        )


@dataclass(frozen=True)
class SoupResult:
    """A finished soup.

    Attributes:
        decisions: in the order in which they were taken.
        wasted: inferences of candidates that were evaluated ahead in vain.
    """

    parts: list[WeightedModel]
    trials: list[str]
    decisions: list[Decision]
    scores: Scores
    wasted: int = 0

    @property
    def score(self) -> float:
        """Its mean selection Dice."""
        return mean_score(self.scores)

    @property
    def weights(self) -> Weights:
        """The average itself."""
        return average(self.parts)


def ingredients_of_fold(path: Path, study: Study | None = None) -> list[Ingredient]:
    """What may go into the soups of a fold, with the case scores of each.

    Args:
        path: the fold's list; the trials lie beside it.
        study: gives the ingredients their names.

    Raises:
        InputError: if a model's file is missing or its per-case scores cannot be read.
    """
    listed = [candidate for candidate in read_candidates(path) if candidate.ingredient]
    labels = model_labels(study, [one.model for one in listed]) if study else NO_LABELS
    found = []
    for candidate in listed:
        folder = path.parent / "trials" / candidate.model
        scores = scores_of(read_rows(folder / "selection.csv"))
        name = named(candidate.model, labels)
        model = _present(folder / OWN)
        found.append(Ingredient(candidate.model, model, candidate.sha256, scores, name))
    return found


def ingredients_of_ensemble(path: Path, recipes: Iterable[Path]) -> list[Ingredient]:
    """What the ensemble of a fold is made of, from its list (``ingredients_of_fold``).

    All of its ingredients, or those that the soups of ``recipes`` (recipe.json) kept.
    """
    ingredients = ingredients_of_fold(path)
    for recipe in recipes:
        kept = {part["trial"] for part in read_json(recipe)["ingredients"]}
        ingredients = [ingredient for ingredient in ingredients if ingredient.trial in kept]
    return ingredients


def _present(model: Path) -> Path:
    if not model.is_file():
        raise InputError(
            model,
            "is missing",
            "the model that was scored",
            "delete the run.json of its run: its models are written again from its last state",
        )
    return model


def descending(ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Best selection score first; equal scores by trial, so that the order is always the same."""
    of_trial = {ingredient.trial: ingredient for ingredient in ingredients}
    ranked = ranking({trial: ingredient.score for trial, ingredient in of_trial.items()})
    return [of_trial[trial] for trial in ranked]


def in_equal_parts(ingredients: Sequence[Ingredient]) -> list[WeightedModel]:
    """The plain average of ingredients."""
    return equal_parts([(ingredient.path, ingredient.sha256) for ingredient in ingredients])


def check_alike(ingredients: Sequence[Ingredient]) -> dict[str, Any]:
    """Make sure that all ingredients can be averaged, and return what they are.

    Raises:
        InputError: naming the first file whose network, channels, regions, preprocessing,
            names or shapes of weights differ from the others'.
    """
    if not ingredients:
        raise InputError("soup", "has no ingredients", "at least one trial", "add trials")
    first, *others = ingredients
    shapes, description = weight_files.shapes(first.path)
    for other in others:
        its_shapes, its_description = weight_files.shapes(other.path)
        if difference := (
            _first_difference(description, its_description) or _first_difference(shapes, its_shapes)
        ):
            raise InputError(
                other.path,
                f"cannot be averaged with {first.path}: {difference}",
                "ingredients of one network, one set of regions and one preprocessing",
                "train it again with the study's settings, or take it out of the study",
            )
    return description


def _first_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    for key in sorted(one.keys() | other.keys()):
        if key not in one or key not in other:
            return f"only one of them has `{key}`"
        # Regions of another order are equal as mappings, but other outputs of the network.
        orders = [list(v) if isinstance(v, dict) else None for v in (one[key], other[key])]
        if one[key] != other[key] or orders[0] != orders[1]:
            return f"`{key}` is {other[key]} instead of {one[key]}"
    return None


def ingredient_record(trial: str, part: WeightedModel, score: float) -> dict[str, Any]:
    """What ``recipe.json`` says of an ingredient."""
    return {
        "trial": trial,
        "weight": part.weight,
        "selection_score": score,
        "sha256": part.sha256,
        "path": str(part.path),
    }


def recipe_record(
    recipe: str, soup: SoupResult, selection: Selection, seconds: float
) -> dict[str, Any]:
    """What ``recipe.json`` says: enough to make the soup again from its ingredients."""
    single = {decision.trial: decision.single_score for decision in soup.decisions}
    return {
        "recipe": recipe,
        "score": soup.score,
        "ingredients": [
            ingredient_record(trial, part, single[trial])
            for trial, part in zip(soup.trials, soup.parts, strict=True)
        ],
        "decisions": [asdict(decision) for decision in soup.decisions],
        "case_inferences": selection.inferences,
        "wasted_inferences": soup.wasted,
        "seconds": round(seconds, 1),
    }


def rebuild(record: dict[str, Any], folder: Path = Path()) -> Weights:
    """Make a soup again from its ``recipe.json`` alone, bit-identical; paths count from ``folder``.

    Raises:
        InputError: if an ingredient is missing or is not the file that it was, or if the record is
            of an earlier version's recipe with a weight per block of the network.
    """
    if any("blocks" in one for one in record["ingredients"]):
        raise InputError(
            "recipe.json",
            "has weights per block, of the recipe `learned`, which was removed",
            "one weight per ingredient",
            "take the model.safetensors beside it",
        )
    parts = [
        WeightedModel(folder / one["path"], one["sha256"], one["weight"])
        for one in record["ingredients"]
    ]
    check_unchanged(parts)
    return average(parts)


def check_unchanged(parts: Sequence[WeightedModel]) -> None:
    """Make sure that the files of an average are those that it names.

    Raises:
        InputError: if one is missing or has another SHA-256.
    """
    for part in parts:
        if not part.path.is_file() or sha256(part.path) != part.sha256:
            raise InputError(
                part.path,
                "is missing" if not part.path.is_file() else "has changed",
                f"the model with the SHA-256 {part.sha256}",
                "put it back, or delete the run.json beside it: its run writes it again",
            )
