"""Which configuration, or which ensemble of two or three, is the best by selection scores.

As nnU-Net chooses what it calls the best configuration
(``nnunetv2/evaluation/find_best_configuration.py``): by the mean Dice on cases that no model was
trained on, which are the selection cases here, never the test cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from statistics import fmean
from typing import Any

import pandas as pd

from voxelsoup.evaluation.case_scores import mean_dice

LARGEST_ENSEMBLE = 3

# Names of configurations whose probabilities are averaged.
Names = tuple[str, ...]


def candidates(names: Sequence[str]) -> list[Names]:
    """Each configuration alone, and all ensembles of two or three of them."""
    sizes = range(1, LARGEST_ENSEMBLE + 1)
    return list(chain.from_iterable(combinations(names, size) for size in sizes))


def title_of(names: Names) -> str:
    """What tables call a configuration, or an ensemble of several."""
    return " + ".join(names)


@dataclass(frozen=True)
class Choice:
    """What the selection cases say.

    Attributes:
        scores: candidate -> mean over the folds of its mean Dice on their selection cases.
    """

    scores: dict[Names, float]

    @property
    def configuration(self) -> str:
        """The best single configuration; of equal ones the first."""
        return self._best(lambda names: len(names) == 1)[0]

    @property
    def ensemble(self) -> Names:
        """The best ensemble; of equal ones the one of fewer models."""
        return self._best(lambda names: len(names) > 1)

    @property
    def chosen(self) -> Names:
        """The best of all: an ensemble has to be better to be worth its cost."""
        return self._best(lambda names: True)

    def _best(self, fits: Callable[[Names], bool]) -> Names:
        return max((names for names in self.scores if fits(names)), key=self.scores.__getitem__)

    def record(self) -> dict[str, Any]:
        """What ``chosen.json`` says."""
        return {
            "configuration": self.configuration,
            "ensemble": list(self.ensemble),
            "chosen": list(self.chosen),
            "selection_dice": {title_of(names): score for names, score in self.scores.items()},
        }


def choose(folds: Sequence[pd.DataFrame], names: Sequence[str]) -> Choice:
    """Choose by the scores of all folds (``SelectionScores.rows``)."""
    scores = {}
    for one in candidates(names):
        own = [rows[rows["configurations"] == title_of(one)] for rows in folds]
        scores[one] = fmean(mean_dice(rows) for rows in own)
    return Choice(scores)
