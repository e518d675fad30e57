"""What models and protocols are called in tables, figures and reports."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

BEST_MODEL, ENSEMBLE = "Best Model", "Ensemble"
# The recipe that only copies the best ingredient.
BEST_SINGLE = "Best Single"
# Trial id -> label, where no labels are given: people read the ids.
NO_LABELS: Mapping[str, str] = MappingProxyType({})
OPTIMISTIC = "optimistic: chosen and scored on the same cases"


def soup_title(recipe: str) -> str:
    """``greedy`` -> ``Greedy Soup``; the best single model and the ensemble are no soups."""
    if recipe == "best":
        return BEST_SINGLE
    if recipe == "ensemble":
        return ENSEMBLE
    return f"{recipe.replace('-', ' ').title()} Soup"


def model_label(model: str, labels: Mapping[str, str]) -> str:
    """A single model as people call it, by the label of its trial.

    Args:
        model: id of its trial, or the id and a folder below it.
        labels: trial id -> what distinguishes it (`lr 0.03, seed 1`).
    """
    trial, _, below = model.partition("/")
    return ", ".join(filter(None, (labels.get(trial, trial), below)))


def label_and_id(model: str, labels: Mapping[str, str]) -> str:
    """``lr 0.03, seed 1 (1f3c9a7e)``: the label of a model, with its id beside it."""
    label = model_label(model, labels)
    return label if label == model else f"{label} ({model})"


def protocol_mark(protocol: str) -> str:
    """The protocol as tables name it: ``published`` says that its numbers are optimistic."""
    return f"published ({OPTIMISTIC})" if protocol == "published" else protocol
