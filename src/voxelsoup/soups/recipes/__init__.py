"""How a soup is made: one page per recipe.

A recipe is a function from the ingredients and the selection cases to a weighted average. A
new one is a module with such a function and an entry in ``RECIPES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """A recipe by its name."""
    return RECIPES[name]


__all__ = ["RECIPES", "Recipe", "best", "greedy", "recipe_of", "uniform"]
