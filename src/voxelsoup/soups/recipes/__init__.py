"""How a soup is made: one page per recipe.

A recipe is a function from the ingredients and the selection cases to a weighted average; other
packages may have more of them (docs/new-recipe.md).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

from voxelsoup.common.errors import InputError, Stopped
from voxelsoup.common.plug_ins import PlugIn, find, is_plug_in
from voxelsoup.soups.recipes.best import best
from voxelsoup.soups.recipes.greedy import greedy
from voxelsoup.soups.recipes.uniform import uniform
from voxelsoup.soups.selection import Selection
from voxelsoup.soups.soup import Ingredient, SoupResult

Recipe = Callable[[Sequence[Ingredient], Selection], SoupResult]

RECIPES: dict[str, Recipe] = {
    "best": best,
    "uniform": uniform,
    "greedy": greedy,
}


def recipe_of(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        InputError: if it is another package's, and not what it has to be.
    """
    if is_plug_in("recipes", name):
        return _recipe_of_package(find("recipes", name))
    return RECIPES[name]


def _recipe_of_package(plug_in: PlugIn) -> Recipe:
    recipe: Recipe = plug_in.load()
    try:
        inspect.signature(recipe).bind(None, None)
    except (TypeError, ValueError) as error:
        raise plug_in.refused(
            f"cannot be called as recipe(ingredients, selection): {error}",
            "a function of the ingredients and the selection that gives a `SoupResult`",
        ) from error

    def checked(ingredients: Sequence[Ingredient], selection: Selection) -> SoupResult:
        try:
            result = recipe(ingredients, selection)
        except (InputError, Stopped):
            raise
        except Exception as error:
            raise plug_in.refused(
                f"fails on {len(ingredients)} ingredients: {type(error).__name__}: {error}",
                "a `SoupResult` for any ingredients",
            ) from error
        if problem := _wrong_with(result, ingredients, selection):
            raise plug_in.refused(problem, "a scored average of the ingredients (`SoupResult`)")
        return result

    return checked


def _wrong_with(
    result: object, ingredients: Sequence[Ingredient], selection: Selection
) -> str | None:
    """What keeps a result from being a weighted average of the ingredients with its scores."""
    if not isinstance(result, SoupResult):
        return f"gives {type(result).__name__}"
    files = {one.trial: (one.path, one.sha256) for one in ingredients}
    made_of = [(part.path, part.sha256) for part in result.parts]
    if not made_of or [files.get(trial) for trial in result.trials] != made_of:
        return f"names {len(result.trials)} trials, which are not those of its parts"
    total = math.fsum(part.weight for part in result.parts)
    if not math.isclose(total, 1, abs_tol=1e-6):
        return f"gives weights whose sum is {total:g} instead of 1"
    if unscored := set(selection.cases) - result.scores.keys():
        return f"gives no scores of {len(unscored)} selection cases (`selection.score_all`)"
    if not set(result.trials) <= {decision.trial for decision in result.decisions}:
        return "keeps a trial without a `Decision`"
    return None


__all__ = ["RECIPES", "Recipe", "best", "greedy", "recipe_of", "uniform"]
