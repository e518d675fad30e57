"""The average of everything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from segsoup.averaging import average
from segsoup.selection import Candidate, Selection
from segsoup.soups import Decision, Ingredient, Made, descending, in_equal_parts


def uniform(ingredients: Sequence[Ingredient], selection: Selection) -> Made:
    """The average of all ingredients, evaluated once."""
    ordered = descending(ingredients)
    mixture = in_equal_parts(ordered)
    outcome = selection.score_all(Candidate(mixture, partial(average, mixture)))
    decisions = [Decision(i.trial, i.score, None, None, accepted=True) for i in ordered]
    return Made(mixture, [i.trial for i in ordered], decisions, outcome.scores)
