"""Soups: Wortsman et al., Model soups, ICML 2022, table 1 and recipe 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]


def exact_mean(numbers: Sequence[float]) -> Fraction:
    """The mean as a rational number, which nothing has rounded."""
    return sum(map(Fraction, numbers), Fraction(0)) / len(numbers)


def uniform_soup(models: Sequence[Weights]) -> Weights:
    """The average of all models."""
    return np.mean(models, axis=0, dtype=np.float64)


def greedy_soup(models: Sequence[Weights], score: Callable[[Weights], float]) -> list[int]:
    """Recipe 1: in the order of their own scores, a model is kept if the soup improves by it.

    Args:
        models: weights of each.
        score: of weights on the held-out cases; higher is better.

    Returns:
        The kept models by their place, in the order in which they were added.
    """
    order = sorted(range(len(models)), key=lambda place: -score(models[place]))
    soup, top = order[:1], score(models[order[0]])
    for place in order[1:]:
        candidate = score(uniform_soup([models[kept] for kept in [*soup, place]]))
        if candidate > top:
            soup, top = [*soup, place], candidate
    return soup
