"""The single model with the best selection score."""

from __future__ import annotations

from collections.abc import Sequence

from voxelsoup.soups.selection import Selection
from voxelsoup.soups.soup import Decision, Ingredient, SoupResult, descending, in_equal_parts


def best(ingredients: Sequence[Ingredient], selection: Selection) -> SoupResult:
    """The single model with the best selection score; costs no evaluation."""
    first, *rest = descending(ingredients)
    decisions = [Decision(first.trial, first.score, first.score, first.score, accepted=True)]
    decisions += [Decision(i.trial, i.score, None, first.score, accepted=False) for i in rest]
    return SoupResult(in_equal_parts([first]), [first.trial], decisions, first.scores)
