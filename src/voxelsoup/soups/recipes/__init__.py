"""How a soup is made: one page per recipe.

A recipe is a function from the ingredients and the selection cases to a weighted average. A
new one is a module with such a function and an entry in ``RECIPES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from voxelsoup.soups.recipes.best import best
from voxelsoup.soups.recipes.greedy import greedy
from voxelsoup.soups.recipes.hierarchical import hierarchical
from voxelsoup.soups.recipes.learned import learned
from voxelsoup.soups.recipes.uniform import uniform
from voxelsoup.soups.selection import Selection
from voxelsoup.soups.soup import Ingredient, SoupResult
from voxelsoup.study.sections.soup import Soup

Recipe = Callable[[Sequence[Ingredient], Selection], SoupResult]

RECIPES: dict[str, Recipe] = {
    "best": best,
    "uniform": uniform,
    "greedy": greedy,
    "hierarchical": hierarchical,
    "learned": learned,
}


def recipe_of(name: str, soup: Soup) -> Recipe:
    """A recipe by its name, with what the study says of it."""
    return partial(learned, settings=soup.learned) if name == "learned" else RECIPES[name]


__all__ = ["RECIPES", "Recipe", "best", "greedy", "hierarchical", "learned", "recipe_of", "uniform"]
