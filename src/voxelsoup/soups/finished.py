"""The finished model of a fold: of its learning rates the one with the highest selection Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, sha256
from voxelsoup.evaluation.case_scores import mean_dice
from voxelsoup.soups.averaging import equal_parts
from voxelsoup.soups.candidates import OWN, best_model, read_candidates
from voxelsoup.soups.soup import ingredient_record


@dataclass(frozen=True)
class FinishedModel:
    """A model that was trained on, with one learning rate.

    Attributes:
        rate: the learning rate.
        folder: of its run.
        scores: per-case scores on the selection cases; None where the run diverged.
    """

    rate: float
    folder: Path
    scores: pd.DataFrame | None

    @property
    def score(self) -> float | None:
        """Mean Dice on the selection cases."""
        return None if self.scores is None else mean_dice(self.scores)


def chosen_rate(tried: Sequence[FinishedModel]) -> FinishedModel:
    """The model with the highest selection score; of equal ones the first.

    Raises:
        InputError: if all of them diverged.
    """
    scores = [(model.score, -place, model) for place, model in enumerate(tried)]
    left = [one for one in scores if one[0] is not None]
    if not left:
        rates = ", ".join(f"{model.rate:g}" for model in tried)
        raise InputError(
            tried[0].folder.parent,
            f"the finish diverged with every learning rate ({rates})",
            "a rate with which training goes on",
            "lower `soup.finish.rates`",
        )
    return max(left, key=lambda one: one[:2])[2]


def source_of(of: str, candidates: Path, recipes: Sequence[Path]) -> dict[str, Any]:
    """What ``recipe.json`` says of the model that is finished: which one, and its ingredients.

    ``recipes`` holds the soup's recipe.json, if it is one; ``candidates`` the fold's single models.
    """
    if recipes:
        return {"of": of, "ingredients": read_json(recipes[0])["ingredients"]}
    model = best_model(candidates)
    best = model.parent.relative_to(candidates.parent / "trials").as_posix()
    scores = {one.model: one.selection_score for one in read_candidates(candidates)}
    part = equal_parts([(model, sha256(model))])[0]
    return {"of": of, "ingredients": [ingredient_record(best, part, scores[best])]}


def finished_record(
    name: str, tried: Sequence[FinishedModel], chosen: FinishedModel, source: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``recipe.json`` says of a finished model.

    Args:
        source: of what was finished: its ``of`` and ``ingredients``.
    """
    run = read_json(chosen.folder / "run.json")
    return {
        "recipe": name,
        "score": chosen.score,
        **source,
        "finish": {
            "lr": chosen.rate,
            "epochs": run["epochs"],
            "steps": run["steps"],
            "ensemble_share": run["settings"].get("finish", {}).get("ensemble_share", 0.0),
            "start_sha256": run["initial_sha256"],
            "model": str(chosen.folder / OWN),
            "sha256": run["models"][OWN],
            "tried": [_tried(model) for model in tried],
        },
        "models_per_prediction": 1,
    }


def _tried(model: FinishedModel) -> dict[str, Any]:
    # A soup of one model is that model, whose finish is done once.
    taken = read_json(model.folder / "run.json").get("taken_from")
    said = {"taken_from": taken} if taken else {}
    return {"lr": model.rate, "selection_score": model.score, **said}
