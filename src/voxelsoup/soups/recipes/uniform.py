"""The average of everything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from voxelsoup.soups.averaging import average
from voxelsoup.soups.selection import CandidateSoup, Selection
from voxelsoup.soups.soup import Decision, Ingredient, SoupResult, descending, in_equal_parts


def uniform(ingredients: Sequence[Ingredient], selection: Selection) -> SoupResult:
    """The average of all ingredients, evaluated once."""
    ordered = descending(ingredients)
    parts = in_equal_parts(ordered)
    outcome = selection.score_all(CandidateSoup(parts, partial(average, parts)))
    decisions = [Decision(i.trial, i.score, None, None, accepted=True) for i in ordered]
    return SoupResult(parts, [i.trial for i in ordered], decisions, outcome.scores)
