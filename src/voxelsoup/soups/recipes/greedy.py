"""The greedy soup of Wortsman et al. 2022."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from voxelsoup.evaluation.case_scores import mean_score
from voxelsoup.soups.averaging import RunningSum
from voxelsoup.soups.selection import CandidateSoup, Outcome, Selection
from voxelsoup.soups.soup import Decision, Ingredient, SoupResult, descending, in_equal_parts

log = logging.getLogger(__name__)


def greedy(ingredients: Sequence[Ingredient], selection: Selection) -> SoupResult:
    """Best first; one is kept if the score of the average strictly improves.

    The single models' scores are known from their evaluation, and what a kept candidate scored
    is what the soup scores: N ingredients cost at most N - 1 evaluations. With several scorers
    the next candidates are evaluated at once, as if those before were left out; what turns out
    to be wrong about that is thrown away, so that the outcome is the same.
    """
    first, *waiting = descending(ingredients)
    soup = _GreedySoup(first)
    while waiting:
        ahead = waiting[: len(selection.scorers)]
        outcomes = selection.challenge([soup.candidate(i) for i in ahead], soup.scores)
        for position, (ingredient, outcome) in enumerate(zip(ahead, outcomes, strict=True)):
            accepted = soup.decide(ingredient, outcome)
            waiting.pop(0)
            if accepted:
                soup.wasted += sum(o.inferences for o in outcomes[position + 1 :])
                break
    parts = in_equal_parts(soup.kept)
    return SoupResult(parts, [i.trial for i in soup.kept], soup.decisions, soup.scores, soup.wasted)


class _GreedySoup:
    """A greedy soup in the making."""

    def __init__(self, first: Ingredient) -> None:
        self.total, self.kept, self.scores, self.wasted = RunningSum(), [first], first.scores, 0
        self.total.add(first.path)
        score = first.score
        self.decisions = [Decision(first.trial, score, score, score, accepted=True)]

    def candidate(self, ingredient: Ingredient) -> CandidateSoup:
        """The soup with one more ingredient."""
        parts = in_equal_parts([*self.kept, ingredient])
        return CandidateSoup(parts, partial(self.total.average_with, ingredient.path))

    def decide(self, ingredient: Ingredient, outcome: Outcome) -> bool:
        """Keep an ingredient if the soup with it is strictly better."""
        accepted = outcome.beats(self.scores)
        if accepted:
            self.total.add(ingredient.path)
            self.kept.append(ingredient)
            self.scores = outcome.scores
        best = mean_score(self.scores)
        self.decisions.append(
            Decision.of(ingredient.trial, ingredient.score, outcome, best, accepted)
        )
        log.info(
            "%s: soup with it scores %s%.6f, %s",
            ingredient.name or ingredient.trial,
            "" if outcome.score is not None else "at most ",
            outcome.at_most,
            "kept" if accepted else "left out",
        )
        return accepted
