"""The final model: which trials are trained on all cases, and what score is to be expected of it.

Nothing is left to choose by once all cases are trained on. So the folds choose: the trials that
their greedy soups kept, and the learning rate of the finish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.soups.candidates import Candidate, ranking
from voxelsoup.soups.soup import Ingredient

KEPT = "greedy kept them in at least half of the folds"
BEST = "greedy kept no model in half of the folds: the best by mean selection score"


def final_plan(
    greedy: Mapping[int, Mapping[str, Any]],
    candidates: Mapping[int, Sequence[Candidate]],
    finished: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the final model is made of.

    Args:
        greedy: fold -> the recipe.json of its greedy soup.
        candidates: fold -> its single models.
        finished: the recipe.json of each fold's finished soup; none if the study has no finish.

    Returns:
        ``models`` (each with its mean ``selection_score`` and the folds that it was ``kept_in``),
        ``because``, ``folds``, and ``lr`` of the finish (None without one).

    Raises:
        InputError: if each learning rate of the finish diverged in some fold.
    """
    kept: dict[str, list[int]] = {}
    for fold, record in greedy.items():
        for ingredient in record["ingredients"]:
            kept.setdefault(str(ingredient["trial"]), []).append(fold)
    scores = _mean_scores(candidates)
    often = {model: folds for model, folds in kept.items() if 2 * len(folds) >= len(greedy)}
    everywhere = [model for model in scores if _in_all(model, candidates)] or list(scores)
    best = ranking({model: scores[model] for model in everywhere})[0]
    chosen = often or {best: kept.get(best, [])}
    return {
        "models": [
            {"model": model, "selection_score": scores[model], "kept_in": chosen[model]}
            for model in ranking({model: scores[model] for model in chosen})
        ],
        "because": KEPT if often else BEST,
        "folds": len(greedy),
        "lr": _rate(finished) if finished else None,
    }


def _mean_scores(candidates: Mapping[int, Sequence[Candidate]]) -> dict[str, float]:
    """Model -> its mean selection score over the folds that have it."""
    scores: dict[str, list[float]] = {}
    for found in candidates.values():
        for candidate in found:
            scores.setdefault(candidate.model, []).append(candidate.selection_score)
    return {model: fmean(values) for model, values in scores.items()}


def _in_all(model: str, candidates: Mapping[int, Sequence[Candidate]]) -> bool:
    return all(model in {one.model for one in found} for found in candidates.values())


def _rate(finished: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate with the highest mean selection score; of equal ones the first."""
    scores: dict[float, list[float | None]] = {}
    for record in finished:
        for one in record["finish"]["tried"]:
            scores.setdefault(one["lr"], []).append(one["selection_score"])
    means = {
        rate: fmean(score for score in values if score is not None)
        for rate, values in scores.items()
        if None not in values
    }
    if not means:
        raise InputError(
            "soup.finish.rates",
            f"each of {', '.join(f'{rate:g}' for rate in scores)} diverged in some fold",
            "a learning rate with which every fold was finished",
            "lower `soup.finish.rates`",
        )
    return max(means, key=lambda rate: means[rate])


def all_cases(folds: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """The cases of all parts of all folds, sorted: what the final model is trained on."""
    parts = (part for fold in folds.values() for part in fold.values())
    return sorted({case for part in parts for case in part})


def ingredients_of_final(plan: Mapping[str, Any], files: Sequence[Path]) -> list[Ingredient]:
    """The models of a plan as ingredients, in its order; ``files`` are theirs."""
    return [
        Ingredient(one["model"], path, sha256(path), {})
        for one, path in zip(plan["models"], files, strict=True)
    ]
