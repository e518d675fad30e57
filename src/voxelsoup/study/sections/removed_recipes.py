"""Recipes that were taken out because they gained nothing over `greedy` (docs/souping.md)."""

from __future__ import annotations

from typing import Any

REMOVED = ("hierarchical", "learned")
# Their settings, as the complete studies (`report/study.yaml`) of earlier versions state them
# where the study says nothing of them.
UNUSED = {"group_by": None, "learned": {"per": "model", "steps": 40, "lr": 0.1}}


def without_unused_settings(soup: Any) -> Any:
    """Section ``soup`` as a file has it, without the removed recipes' settings at their defaults.

    Complete studies of earlier versions have them, and give the same study still.
    """
    if not isinstance(soup, dict):
        return soup
    return {k: v for k, v in soup.items() if k not in UNUSED or v != UNUSED[k]}


def without_removed(config: dict[str, Any]) -> dict[str, Any]:
    """The study that finished results are of, without the soups that no version makes any more.

    What else these results hold is read as it is: they stand.
    """
    soup = config.get("soup")
    if not isinstance(soup, dict):
        return config
    kept = {key: value for key, value in soup.items() if key not in UNUSED}
    recipes = soup.get("recipes")
    if isinstance(recipes, list):
        # Where no recipe is left, those of the study stay, and are refused.
        kept["recipes"] = [name for name in recipes if name not in REMOVED] or recipes
    return {**config, "soup": kept}


def check_removed(soup: Any) -> None:
    """Refuse a section ``soup`` that names a removed recipe, or settings of one.

    Raises:
        ValueError: naming all places, the reason and the fix.
    """
    if not isinstance(soup, dict):
        return
    finish = soup.get("finish")
    values = {
        "recipes": soup.get("recipes"),
        "ensemble_of": soup.get("ensemble_of"),
        "finish.of": finish.get("of") if isinstance(finish, dict) else None,
    }
    found = [
        f"`{key}` names `{name}`"
        for key, value in values.items()
        for name in REMOVED
        if name == value or (isinstance(value, list) and name in value)
    ]
    found += [f"`{key}` is a setting of such a recipe" for key in UNUSED if key in soup]
    if found:
        raise ValueError(
            f"{'; '.join(found)}: the recipes `hierarchical` and `learned` were removed, because "
            "they gained nothing over `greedy` (docs/souping.md); take them out, or name `greedy`"
        )
