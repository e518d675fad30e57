"""Mixing weights that are learned on the selection cases.

Wortsman et al. 2022, appendix "Learned soup": a softmax over the ingredients, moved along the
gradient of the loss by the averaged weights. Theirs holds all ingredients in memory. Here the
gradient is taken once by the average, whose slope along each ingredient is a dot product with that
ingredient's file: one ingredient at a time, whatever their number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch

from voxelsoup.evaluation.case_scores import Scores, mean_score
from voxelsoup.models import weight_files
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.averaging import WeightedModel, average, block_of
from voxelsoup.soups.recipes.best import best
from voxelsoup.soups.selection import CandidateSoup, Scorer, Selection
from voxelsoup.soups.soup import Decision, Ingredient, SoupResult, descending
from voxelsoup.study.sections.soup import Learned

log = logging.getLogger(__name__)

WHOLE_MODEL = "model"
GUARD = "average learned without the case"


def learned(
    ingredients: Sequence[Ingredient], selection: Selection, settings: Learned | None = None
) -> SoupResult:
    """An average learned on the selection cases, if it also pays on cases that it did not learn on.

    Few cases are soon overfitted. So the average is learned twice, each time on one half of the
    cases, and scored on the other half. If these scores, none by an average that knew the case,
    beat the best single model's, the soup is the mean of both averages; otherwise it is that
    model.
    """
    settings = settings or Learned()
    ordered = descending(ingredients)
    halves = [sorted(selection.cases)[start::2] for start in (0, 1)]
    if len(ordered) == 1 or not halves[1]:
        return best(ordered, selection)
    scorer = selection.scorers[0]
    shares = [learn(ordered, scorer, half, settings) for half in halves]
    guard = _guard(ordered, selection, [(shares[0], halves[1]), (shares[1], halves[0])], settings)
    steps = 2 * settings.steps
    if not guard.accepted:
        single = best(ordered, selection)
        decisions = [guard, *single.decisions]
        return SoupResult(
            single.parts, single.trials, decisions, single.scores, gradient_steps=steps
        )
    parts = average_of(ordered, (shares[0] + shares[1]) / 2, settings)
    scores = selection.score_all(CandidateSoup(parts, partial(average, parts))).scores
    decisions = [Decision(i.trial, i.score, None, None, accepted=True) for i in ordered]
    trials = [ingredient.trial for ingredient in ordered]
    return SoupResult(parts, trials, [guard, *decisions], scores, gradient_steps=steps)


def _guard(
    ingredients: Sequence[Ingredient],
    selection: Selection,
    learned_and_kept: Sequence[tuple[torch.Tensor, list[str]]],
    settings: Learned,
) -> Decision:
    """Whether averages win over the best model on the cases that were kept from them."""
    scores, inferences = Scores(), 0
    for shares, cases in learned_and_kept:
        parts = average_of(ingredients, shares, settings)
        outcome = selection.on(cases).score_all(CandidateSoup(parts, partial(average, parts)))
        scores |= outcome.scores
        inferences += outcome.inferences
    selection.inferences += inferences
    single, score = ingredients[0].score, mean_score(scores)
    wins = score > single
    log.info("%s: %.6f, best single model %.6f", GUARD, score, single)
    return Decision(GUARD, single, score, max(score, single), wins, inferences=inferences)


def learn(
    ingredients: Sequence[Ingredient], scorer: Scorer, cases: list[str], settings: Learned
) -> torch.Tensor:
    """Mixing weights on the simplex that lower the loss on patches of some cases.

    Returns:
        Shares (ingredient, block), float64; each column sums to 1.
    """
    blocks = _blocks(ingredients[0], settings)
    logits = torch.zeros(len(ingredients), len(blocks), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=settings.lr)
    for step in range(settings.steps):
        shares = logits.softmax(0)
        parts = average_of(ingredients, shares.detach(), settings)
        gradient = scorer.gradient(average(parts), cases, step)
        optimizer.zero_grad()
        shares.backward(_slopes(ingredients, gradient, blocks))
        optimizer.step()
    return logits.detach().softmax(0)


def average_of(
    ingredients: Sequence[Ingredient], shares: torch.Tensor, settings: Learned
) -> list[WeightedModel]:
    """The weighted average by shares (ingredient, block)."""
    blocks, means = _blocks(ingredients[0], settings), shares.mean(1).tolist()
    return [
        WeightedModel(
            ingredient.path,
            ingredient.sha256,
            mean,
            {} if blocks == [WHOLE_MODEL] else dict(zip(blocks, row, strict=True)),
        )
        for ingredient, mean, row in zip(ingredients, means, shares.tolist(), strict=True)
    ]


def _blocks(ingredient: Ingredient, settings: Learned) -> list[str]:
    if settings.per == "model":
        return [WHOLE_MODEL]
    return sorted({block_of(name) for name in weight_files.shapes(ingredient.path)[0]})


def _slopes(
    ingredients: Sequence[Ingredient], gradient: Weights, blocks: list[str]
) -> torch.Tensor:
    """Slope of the loss by the share of each ingredient in each block: (ingredient, block)."""
    slopes = torch.zeros(len(ingredients), len(blocks), dtype=torch.float64)
    for row, ingredient in enumerate(ingredients):
        for name, value in weight_files.stream(ingredient.path):
            if name in gradient:
                column = blocks.index(block_of(name)) if len(blocks) > 1 else 0
                slopes[row, column] += (gradient[name].double() * value).sum()
    return slopes
