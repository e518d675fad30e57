"""Soups of soups: greedy within groups, then across them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from voxelsoup.evaluation.case_scores import mean_score
from voxelsoup.soups.averaging import WeightedModel, average
from voxelsoup.soups.candidates import ranking
from voxelsoup.soups.recipes.greedy import greedy
from voxelsoup.soups.selection import CandidateSoup, Selection
from voxelsoup.soups.soup import Decision, Ingredient, SoupResult


def hierarchical(ingredients: Sequence[Ingredient], selection: Selection) -> SoupResult:
    """Greedy soups within groups of like ingredients first, then greedy across their soups.

    After Sanjeev et al., FissionFusion: fast geometric generation and hierarchical souping for
    medical image analysis, 2024. Groups are best first; each counts as one, however many
    ingredients it holds.
    """
    groups: dict[str, list[Ingredient]] = {}
    for ingredient in ingredients:
        groups.setdefault(ingredient.group, []).append(ingredient)
    soups = {name: greedy(members, selection) for name, members in sorted(groups.items())}
    order = ranking({name: soup.score for name, soup in soups.items()})
    kept, scores, decisions = [order[0]], soups[order[0]].scores, []
    for soup in soups.values():
        decisions += soup.decisions
    for name in order[1:]:
        parts = _across([soups[k] for k in [*kept, name]])
        (outcome,) = selection.challenge([CandidateSoup(parts, partial(average, parts))], scores)
        accepted = outcome.beats(scores)
        if accepted:
            kept, scores = [*kept, name], outcome.scores
        decisions.append(
            Decision.of(f"group {name}", soups[name].score, outcome, mean_score(scores), accepted)
        )
    trials = [trial for name in kept for trial in soups[name].trials]
    wasted = sum(soup.wasted for soup in soups.values())
    return SoupResult(_across([soups[name] for name in kept]), trials, decisions, scores, wasted)


def _across(soups: Sequence[SoupResult]) -> list[WeightedModel]:
    """The average in which each soup has the same weight."""
    return [
        WeightedModel(part.path, part.sha256, part.weight / len(soups))
        for soup in soups
        for part in soup.parts
    ]
