"""Soups: many models averaged into one.

Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time, ICML 2022.

A recipe is a function from the ingredients and the selection scores to a mixture. A new one is a
function of that form and an entry in ``RECIPES``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segsoup import checkpoints
from segsoup.averaging import Part, RunningSum, average, equal_parts
from segsoup.checkpoints import Weights
from segsoup.errors import InputError
from segsoup.files import sha256
from segsoup.selection import Candidate, Outcome, Scores, Selection, mean_score

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingredient:
    """A model that may go into a soup.

    Attributes:
        trial: its trial.
        path: its model file.
        sha256: hash of the file.
        scores: what its evaluation gave on the selection cases.
        group: what it shares with others of its kind; for ``hierarchical``.
    """

    trial: str
    path: Path
    sha256: str
    scores: Scores
    group: str = ""

    @property
    def score(self) -> float:
        """Its mean selection Dice."""
        return mean_score(self.scores)


@dataclass(frozen=True)
class Decision:
    """What became of one ingredient, or of one group of them.

    Attributes:
        trial: its trial, or the group.
        single_score: its own selection score.
        candidate_score: selection score of the soup with it (None where none was taken to the
            end).
        at_most: what that could have been at most, where it was stopped.
        stopped: `bound` (it could not win any more), `race` (a test said so) or None.
        best_score: the best selection score after the decision.
        accepted: whether it is in the soup.
        inferences: cases evaluated for it.
    """

    trial: str
    single_score: float
    candidate_score: float | None
    best_score: float | None
    accepted: bool
    at_most: float | None = None
    stopped: str | None = None
    inferences: int = 0


@dataclass(frozen=True)
class Made:
    """A finished soup.

    Attributes:
        mixture: what it is an average of.
        trials: the trials of its parts, in their order.
        decisions: in the order in which they were taken.
        scores: its case scores on the selection cases.
        wasted: inferences of candidates that were evaluated ahead in vain.
    """

    mixture: list[Part]
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
        return average(self.mixture)


Recipe = Callable[[Sequence[Ingredient], Selection], Made]


def descending(ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Best selection score first; equal scores by trial, so that the order is always the same."""
    return sorted(ingredients, key=lambda ingredient: (-ingredient.score, ingredient.trial))


def best(ingredients: Sequence[Ingredient], selection: Selection) -> Made:
    """The single model with the best selection score; costs no evaluation."""
    first, *rest = descending(ingredients)
    decisions = [Decision(first.trial, first.score, first.score, first.score, accepted=True)]
    decisions += [Decision(i.trial, i.score, None, first.score, accepted=False) for i in rest]
    return Made(_equal([first]), [first.trial], decisions, first.scores)


def uniform(ingredients: Sequence[Ingredient], selection: Selection) -> Made:
    """The average of all ingredients, evaluated once."""
    ordered = descending(ingredients)
    mixture = _equal(ordered)
    outcome = selection.score_all(Candidate(mixture, partial(average, mixture)))
    decisions = [Decision(i.trial, i.score, None, None, accepted=True) for i in ordered]
    return Made(mixture, [i.trial for i in ordered], decisions, outcome.scores)


def greedy(ingredients: Sequence[Ingredient], selection: Selection) -> Made:
    """Best first; one is kept if the score of the average strictly improves.

    The single models' scores are known from their evaluation, and what a kept candidate scored
    is what the soup scores: N ingredients cost at most N - 1 evaluations. With several scorers
    the next candidates are evaluated at once, as if those before were left out; what turns out
    to be wrong about that is thrown away, so that the outcome is the same.
    """
    first, *waiting = descending(ingredients)
    pot = _Pot(first)
    while waiting:
        ahead = waiting[: len(selection.scorers)]
        outcomes = selection.challenge([pot.candidate(i) for i in ahead], pot.scores)
        for position, (ingredient, outcome) in enumerate(zip(ahead, outcomes, strict=True)):
            accepted = pot.decide(ingredient, outcome)
            waiting.pop(0)
            if accepted:
                pot.wasted += sum(o.inferences for o in outcomes[position + 1 :])
                break
    mixture = _equal(pot.kept)
    return Made(mixture, [i.trial for i in pot.kept], pot.decisions, pot.scores, pot.wasted)


@dataclass
class _Pot:
    """A greedy soup in the making."""

    first: Ingredient
    kept: list[Ingredient] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    wasted: int = 0

    def __post_init__(self) -> None:
        self.total, self.scores, self.best = RunningSum(), self.first.scores, self.first.score
        self.total.add(self.first.path)
        self.kept.append(self.first)
        self.decisions.append(
            Decision(self.first.trial, self.best, self.best, self.best, accepted=True)
        )

    def candidate(self, ingredient: Ingredient) -> Candidate:
        """The soup with one more ingredient."""
        mixture = _equal([*self.kept, ingredient])
        return Candidate(mixture, partial(self.total.average_with, ingredient.path))

    def decide(self, ingredient: Ingredient, outcome: Outcome) -> bool:
        """Keep an ingredient if the soup with it is strictly better."""
        accepted = outcome.score is not None and outcome.score > self.best
        if accepted:
            assert outcome.score is not None
            self.total.add(ingredient.path)
            self.kept.append(ingredient)
            self.best, self.scores = outcome.score, outcome.scores
        self.decisions.append(
            Decision(
                ingredient.trial,
                ingredient.score,
                outcome.score,
                self.best,
                accepted,
                None if outcome.score is not None else outcome.at_most,
                outcome.stopped,
                outcome.inferences,
            )
        )
        log.info(
            "%s: soup with it scores %s%.6f, %s",
            ingredient.trial,
            "" if outcome.score is not None else "at most ",
            outcome.at_most,
            "kept" if accepted else "left out",
        )
        return accepted


def hierarchical(ingredients: Sequence[Ingredient], selection: Selection) -> Made:
    """Greedy soups within groups of like ingredients first, then greedy across their soups.

    After Sanjeev et al., FissionFusion: fast geometric generation and hierarchical souping for
    medical image analysis, 2024. Groups are best first; each counts as one, however many
    ingredients it holds.
    """
    groups: dict[str, list[Ingredient]] = {}
    for ingredient in ingredients:
        groups.setdefault(ingredient.group, []).append(ingredient)
    soups = {name: greedy(members, selection) for name, members in sorted(groups.items())}
    order = sorted(soups, key=lambda name: (-soups[name].score, name))
    kept, scores, decisions = [order[0]], soups[order[0]].scores, []
    for soup in soups.values():
        decisions += soup.decisions
    for name in order[1:]:
        mixture = _across([soups[k] for k in [*kept, name]])
        (outcome,) = selection.challenge([Candidate(mixture, partial(average, mixture))], scores)
        accepted = outcome.score is not None and outcome.score > mean_score(scores)
        if accepted:
            kept, scores = [*kept, name], outcome.scores
        decisions.append(
            Decision(
                f"group {name}",
                soups[name].score,
                outcome.score,
                mean_score(scores),
                accepted,
                None if outcome.score is not None else outcome.at_most,
                outcome.stopped,
                outcome.inferences,
            )
        )
    trials = [trial for name in kept for trial in soups[name].trials]
    wasted = sum(soup.wasted for soup in soups.values())
    return Made(_across([soups[name] for name in kept]), trials, decisions, scores, wasted)


def _across(soups: Sequence[Made]) -> list[Part]:
    """The mixture in which each soup has the same weight."""
    return [
        Part(part.path, part.sha256, part.weight / len(soups))
        for soup in soups
        for part in soup.mixture
    ]


def _equal(ingredients: Sequence[Ingredient]) -> list[Part]:
    return equal_parts([(ingredient.path, ingredient.sha256) for ingredient in ingredients])


RECIPES: dict[str, Recipe] = {
    "best": best,
    "uniform": uniform,
    "greedy": greedy,
    "hierarchical": hierarchical,
}


def check_alike(ingredients: Sequence[Ingredient]) -> dict[str, Any]:
    """Make sure that all ingredients can be averaged, and return what they are.

    Raises:
        InputError: naming the first file whose network, channels, regions, preprocessing,
            names or shapes of weights differ from the others'.
    """
    reference: tuple[dict[str, Any], dict[str, Any]] | None = None
    for ingredient in ingredients:
        shapes, description = checkpoints.shapes(ingredient.path)
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


def recipe_record(recipe: str, made: Made, selection: Selection, seconds: float) -> dict[str, Any]:
    """What ``recipe.json`` says: enough to make the soup again from its ingredients.

    Args:
        recipe: its name.
        made: the soup.
        selection: what it was chosen by.
        seconds: the time that it took.
    """
    single = {decision.trial: decision.single_score for decision in made.decisions}
    return {
        "recipe": recipe,
        "score": made.score,
        "ingredients": [
            {
                "trial": trial,
                "weight": part.weight,
                "selection_score": single[trial],
                "sha256": part.sha256,
                "path": str(part.path),
            }
            for trial, part in zip(made.trials, made.mixture, strict=True)
        ],
        "decisions": [asdict(decision) for decision in made.decisions],
        "case_inferences": selection.inferences,
        "wasted_inferences": made.wasted,
        "seconds": round(seconds, 1),
    }


def rebuild(record: dict[str, Any], folder: Path = Path()) -> Weights:
    """Make a soup again from its ``recipe.json`` alone, to the bit.

    Args:
        record: the content of the file.
        folder: what its paths count from.

    Raises:
        InputError: if an ingredient is missing or is not the file that it was.
    """
    mixture = []
    for ingredient in record["ingredients"]:
        path = folder / ingredient["path"]
        if not path.is_file() or sha256(path) != ingredient["sha256"]:
            raise InputError(
                path,
                "is missing" if not path.is_file() else "is another file than went into the soup",
                f"the model with the SHA-256 {ingredient['sha256']}",
                "put it back, or make the soup anew",
            )
        mixture.append(Part(path, ingredient["sha256"], ingredient["weight"]))
    return average(mixture)
