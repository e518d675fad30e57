"""What models and protocols are called in tables, figures and reports."""

from __future__ import annotations

from voxelsoup.study.sections.evaluation import Primary

BEST_MODEL, ENSEMBLE = "Best Model", "Ensemble"
# The recipe that only copies the best ingredient.
BEST_SINGLE = "Best Single"
# A soup that was trained on for a while, the best single model that was so too, and one run with
# as many steps as all of it.
FINISHED, FINISHED_BEST, LONG_RUN = "Finished Soup", "Finished Best Model", "Long Run"
NO_SOUPS = {
    "best": BEST_SINGLE,
    "ensemble": ENSEMBLE,
    "finished": FINISHED,
    "finished-best": FINISHED_BEST,
    "long-run": LONG_RUN,
}
# Dice points: a hundredth of the range of Dice is the unit that papers use for differences.
POINTS = 100
OPTIMISTIC = "optimistic: chosen and scored on the same cases"


def soup_title(recipe: str) -> str:
    """``greedy`` -> ``Greedy Soup``; what is no soup, as the ensemble, has a title of its own."""
    # Dotted paths of recipes of other packages stay as they are.
    name = recipe if "." in recipe else recipe.replace("-", " ").title()
    return NO_SOUPS.get(recipe, f"{name} Soup")


def primary_titles(primary: Primary) -> tuple[str, str]:
    """The two models of a study's primary question (``Study.primary``)."""
    against = BEST_MODEL if primary.against == "best" else soup_title(primary.against)
    return soup_title(str(primary.model)), against


def in_a_sentence(title: str) -> str:
    """``Greedy Soup`` -> ``greedy soup``."""
    # "Best single" and "best model" would be two names that are easily confused.
    names = {
        BEST_MODEL: "best single model",
        BEST_SINGLE: "best ingredient",
        FINISHED_BEST: "finished best single model",
    }
    return names.get(title, title.lower())


def protocol_mark(protocol: str) -> str:
    """The protocol as tables name it: ``published`` says that its numbers are optimistic."""
    return f"published ({OPTIMISTIC})" if protocol == "published" else protocol
