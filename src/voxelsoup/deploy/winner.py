"""Which kind of model a study hands over: chosen on selection scores alone, never on test scores.

The best single model and each soup are kinds. A kind's score is the mean over the folds of the
mean Dice on the fold's selection cases, which each of its models was chosen on too. Of equal
kinds the first wins: the best single model, then the soups in the study's order, since an average
has to be better to be worth it. An ensemble does not take part: it is several models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from voxelsoup.common.files import read_json
from voxelsoup.comparison.names import BEST_MODEL, soup_title
from voxelsoup.soups.candidates import CANDIDATES, read_candidates


@dataclass(frozen=True)
class Kind:
    """A kind of model that every fold has one of.

    ``folder`` lies below a fold's: ``best`` or ``soups/<recipe>``; tables call it ``title``;
    ``scores`` are fold -> mean Dice on its selection cases.
    """

    folder: str
    title: str
    scores: dict[int, float]

    @property
    def score(self) -> float:
        """The mean over the folds."""
        return fmean(self.scores.values())


def kinds(results: Path, folds: Sequence[int], recipes: Sequence[str]) -> list[Kind]:
    """The kinds of a study, in the order in which equal ones win; ``recipes`` average."""
    lists = {fold: read_candidates(results / f"fold{fold}" / CANDIDATES) for fold in folds}
    single = {fold: max(c.selection_score for c in found) for fold, found in lists.items()}
    return [Kind("best", BEST_MODEL, single)] + [
        Kind(f"soups/{recipe}", soup_title(recipe), _scores(results, folds, recipe))
        for recipe in recipes
    ]


def _scores(results: Path, folds: Sequence[int], recipe: str) -> dict[int, float]:
    records = {fold: results / f"fold{fold}/soups/{recipe}/recipe.json" for fold in folds}
    return {fold: float(read_json(record)["score"]) for fold, record in records.items()}


def winner(found: Sequence[Kind]) -> Kind:
    """The kind with the highest score; of equal ones the first."""
    return max(found, key=lambda kind: kind.score)
