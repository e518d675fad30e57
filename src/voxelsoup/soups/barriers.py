"""Linear mode connectivity: can the models of a fold be averaged, and what does it gain?

Averages of models are good where the loss between them is low. Frankle et al., Linear mode
connectivity and the lottery ticket hypothesis, ICML 2020, measure it as the barrier: how far the
loss on the straight line between two models rises above the line between their own losses. Two
models without one are linearly mode-connected: they share a basin of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from voxelsoup.evaluation.case_scores import LOSS, Scores, case_mean, mean_score
from voxelsoup.models import weight_files
from voxelsoup.soups.averaging import WeightedModel, average
from voxelsoup.soups.selection import CandidateSoup, Selection
from voxelsoup.soups.soup import Ingredient

# Frankle et al. call two models connected where the error rises by less than 2 % between them.
# The Dice loss lies between 0 and 1 like their error.
SHARED_BARRIER = 0.02
# Bytes of weights that are held at once, whatever the number of models.
CHUNK = 64 * 2**20


def distances(paths: Sequence[Path], chunk: int = CHUNK) -> np.ndarray:
    """Pairwise L2 distances of models of one network, relative to the first one's norm.

    All floating-point weights count, in float64, running statistics too. A piece of every model
    is read at a time, one file after the other.

    Returns:
        (models, models), no unit; 0.1 says that two models differ by a tenth of the first.

    Raises:
        InputError: if a file cannot be read.
    """
    products = np.zeros((len(paths), len(paths)))
    norm, columns = 0.0, max(1, chunk // (8 * len(paths)))
    for start in count(0, columns):
        first = weight_files.read_slice(paths[0], start, start + columns)
        if not first.size:
            break
        # From the first model, not from 0: models of one stem are alike in most digits, which
        # the difference of their squares would lose.
        moved = np.zeros((len(paths), first.size))
        for row, path in zip(moved[1:], paths[1:], strict=True):
            np.subtract(weight_files.read_slice(path, start, start + columns), first, out=row)
        products += moved @ moved.T
        norm += float(first @ first)
    lengths = np.diag(products)
    squares = lengths[:, None] + lengths[None, :] - 2 * products
    np.fill_diagonal(squares, 0)
    return np.sqrt(np.maximum(squares, 0) / norm)


@dataclass(frozen=True)
class Line:
    """The straight line from the best model of a fold to another one.

    Attributes:
        trial: the other model.
        score: its mean Dice on all selection cases.
        losses: mean loss on some selection cases at equal distances, both ends with it.
        dice: the mean Dice there.
    """

    trial: str
    score: float
    losses: tuple[float, ...]
    dice: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """How far the loss rises above the line between the ends' losses, 0 at least.

        Infinite where a loss is NaN, as that of a model that has diverged.
        """
        if not all(map(math.isfinite, self.losses)):
            return math.inf
        straight = np.linspace(self.losses[0], self.losses[-1], len(self.losses))
        # The ends are on the line, but for rounding.
        return max(0.0, *(np.array(self.losses) - straight)[1:-1].tolist())

    @property
    def gain(self) -> float:
        """Dice of the average of the two less the mean of theirs: what averaging itself gives."""
        return self.dice[len(self.dice) // 2] - (self.dice[0] + self.dice[-1]) / 2

    @property
    def shared(self) -> bool:
        """Whether the model is linearly mode-connected to the best one."""
        return self.barrier <= SHARED_BARRIER


def measured_models(ordered: Sequence[Ingredient], number: int) -> list[Ingredient]:
    """The best model, and others from the second best to the worst, evenly by rank.

    ``number`` of them, at least two; all if there are no more.
    """
    if number >= len(ordered):
        return list(ordered)
    last = len(ordered) - 1
    places = [1 + part * (last - 1) // max(number - 2, 1) for part in range(number - 1)]
    return [ordered[0], *(ordered[place] for place in places)]


def spread(scores: Scores, number: int) -> list[str]:
    """Cases from the hardest to the easiest for a model, evenly; all if there are no more."""
    ordered = sorted(scores, key=lambda case: (case_mean(scores[case]), case))
    if number >= len(ordered):
        return ordered
    # The middles of equal parts, so that one case is an ordinary one.
    return [ordered[(2 * part + 1) * len(ordered) // (2 * number)] for part in range(number)]


def measure(
    ordered: Sequence[Ingredient], selection: Selection, points: int
) -> tuple[list[float], list[Line]]:
    """The places of the points, from 0 to 1, and the lines from the best model to all others.

    The ends' scores are known. Between them, at an odd number of ``points``, each case is evaluated
    once, and not at all where a soup of the two has been scored before.
    """
    places = [position / (points + 1) for position in range(points + 2)]
    return places, [_line(ordered[0], other, selection, places[1:-1]) for other in ordered[1:]]


def _line(best: Ingredient, other: Ingredient, selection: Selection, inner: list[float]) -> Line:
    between = [selection.score_all(_between(best, other, place)).scores for place in inner]
    ends = [{case: model.scores[case] for case in selection.cases} for model in (best, other)]
    scores = [ends[0], *between, ends[1]]
    losses = tuple(fmean(case[LOSS] for case in point.values()) for point in scores)
    return Line(other.trial, other.score, losses, tuple(mean_score(point) for point in scores))


def _between(best: Ingredient, other: Ingredient, place: float) -> CandidateSoup:
    """A point on the line; in the middle, the very candidate that the greedy recipe scores."""
    parts = [
        WeightedModel(model.path, model.sha256, weight)
        for model, weight in ((best, 1 - place), (other, place))
    ]
    return CandidateSoup(parts, partial(average, parts))


def sentence(lines: Sequence[Line], stem: str) -> str:
    """Whether a fold's models are linearly mode-connected, and what to do where they are not."""
    if not lines:
        return "There is one model only: nothing to average."
    apart = [line for line in lines if not line.shared]
    highest = max(line.barrier for line in lines)
    if not apart:
        return (
            "These models are linearly mode-connected (they share a basin): the highest barrier "
            f"between the best one and the {others(lines)} is {highest:.4f}."
        )
    advice = {
        "train": "they have left the stem's basin: shorten the branches or lower their "
        "learning rates",
        "checkpoint": "they have left the basin of the given weights: shorten the trials or "
        "lower their learning rates",
    }.get(stem, "train them from a shared stem")
    return (
        f"These models are not linearly mode-connected: {len(apart)} of {len(lines)} are behind a "
        f"barrier above {SHARED_BARRIER} from the best one (highest {highest:.4f}); {advice}."
    )


def others(lines: Sequence[Line]) -> str:
    """The models at the other ends of the lines, in words."""
    return "other one" if len(lines) == 1 else f"{len(lines)} others"


def barrier_record(
    ordered: Sequence[Ingredient],
    selection: Selection,
    points: int,
    stem: str,
    averaged: bool,
    models: int,
) -> dict[str, Any]:
    """What ``basin.json`` says: the lines, the distances and the sentence of one fold.

    Args:
        ordered: the best model, then the others, as `soups.descending` gives them.
        points: number of points between two models, odd.
        stem: the study's `stem.source`.
        averaged: whether all models are averages of their own run already.
    """
    measured = measured_models(ordered, models)
    best, names = measured[0], [model.trial for model in measured]
    apart = distances([model.path for model in measured])
    places, lines = measure(measured, selection, points)
    text = sentence(lines, stem)
    if len(measured) < len(ordered):
        text += f" Measured between {len(measured)} of {len(ordered)} models, of all ranks."
    return {
        "best": best.trial,
        "best_score": best.score,
        "cases": selection.cases,
        "points": places,
        "lines": [
            {
                "trial": line.trial,
                "selection_score": line.score,
                "losses": [_or_none(loss) for loss in line.losses],
                "dices": [_or_none(dice) for dice in line.dice],
                "barrier": _or_none(line.barrier),
                "gain": _or_none(line.gain),
            }
            for line in lines
        ],
        "models": names,
        "distances": [[_or_none(value) for value in row] for row in apart.tolist()],
        "averaged": averaged,
        "sentence": text,
        "case_inferences": selection.inferences,
    }


def _or_none(value: float) -> float | None:
    # A diverged model's; JSON has no word for it.
    return value if math.isfinite(value) else None


def lines_of(record: Mapping[str, Any]) -> list[Line]:
    """The lines of a ``basin.json``."""
    return [
        Line(
            line["trial"],
            line["selection_score"],
            tuple(math.nan if loss is None else loss for loss in line["losses"]),
            tuple(math.nan if dice is None else dice for dice in line["dices"]),
        )
        for line in record["lines"]
    ]
