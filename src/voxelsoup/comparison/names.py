"""What models and protocols are called in tables, figures and reports."""

from __future__ import annotations

BEST_MODEL, ENSEMBLE = "Best Model", "Ensemble"
# The recipe that only copies the best ingredient.
BEST_SINGLE = "Best Single"
# Dice points: a hundredth of the range of Dice is the unit that papers use for differences.
POINTS = 100
OPTIMISTIC = "optimistic: chosen and scored on the same cases"


def soup_title(recipe: str) -> str:
    """``greedy`` -> ``Greedy Soup``; the best single model and the ensemble are not soups."""
    if recipe == "best":
        return BEST_SINGLE
    if recipe == "ensemble":
        return ENSEMBLE
    return f"{recipe.replace('-', ' ').title()} Soup"


def protocol_mark(protocol: str) -> str:
    """The protocol as tables name it: ``published`` says that its numbers are optimistic."""
    return f"published ({OPTIMISTIC})" if protocol == "published" else protocol
