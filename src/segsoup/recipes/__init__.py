"""How a soup is made: one page per recipe.

A recipe is a function from the ingredients and the selection cases to a mixture of ingredients. A
new one is a module with such a function and an entry in ``RECIPES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from segsoup.recipes.best import best
from segsoup.recipes.greedy import greedy
from segsoup.recipes.hierarchical import hierarchical
from segsoup.recipes.learned import learned
from segsoup.recipes.uniform import uniform
from segsoup.selection import Selection
from segsoup.soups import Ingredient, Made
from segsoup.study import Soup

Recipe = Callable[[Sequence[Ingredient], Selection], Made]

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


__all__ = [
    "RECIPES",
    "Recipe",
    "best",
    "greedy",
    "hierarchical",
    "learned",
    "recipe_of",
    "uniform",
]
