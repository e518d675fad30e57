"""Statistics without random numbers: everything that could have happened is listed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def every_resample(fold: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of all resamples of one fold, each as often as it is drawn."""
    places = np.array(list(itertools.product(range(len(fold)), repeat=len(fold))))
    return fold[places].sum(axis=1)


def all_means(folds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over the cases of two folds, for all of their resamples."""
    first, second = folds
    sums = np.add.outer(every_resample(first), every_resample(second)).ravel()
    return sums / (len(first) + len(second))


def spread_given_back(folds: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Rao and Wu 1988: folds with their sample variance, which resamples have too little of."""
    total = sum(map(len, folds))
    return [
        fold.mean()
        + (fold - fold.mean())
        * (fold.std(ddof=1) / fold.std(ddof=0))
        / math.sqrt(total / (total - 1))
        for fold in folds
    ]


def bca_by_enumeration(folds: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Efron 1987, BCa: the interval with neither random numbers nor a jackknife.

    The empirical influence of a case on the mean of all is its distance to its fold's mean.
    """
    means = all_means(folds)
    observed = np.concatenate(folds).mean()
    close = np.isclose(means, observed, rtol=0, atol=1e-12)
    below = np.mean((means < observed) & ~close) + np.mean(close) / 2
    influences = np.concatenate([fold - fold.mean() for fold in folds])
    acceleration = (influences**3).sum() / (influences**2).sum() ** 1.5 / 6
    bias = stats.norm.ppf(below)
    ends = bias + stats.norm.ppf([0.025, 0.975])
    levels = stats.norm.cdf(bias + ends / (1 - acceleration * ends))
    low, high = np.quantile(means, levels)
    return float(low), float(high)


def bca_of_patients(
    folds: Sequence[Sequence[Sequence[float]]], confidences: Sequence[float]
) -> list[tuple[float, float]]:
    """Intervals of the mean over all cases, with patients resampled within their fold.

    By scipy's own BCa, of patients by their places; spread is not given back.
    """
    places = [np.arange(len(fold)) for fold in folds]
    sums = [np.array([sum(patient) for patient in fold]) for fold in folds]
    counts = [np.array([len(patient) for patient in fold]) for fold in folds]
    total = sum(int(count.sum()) for count in counts)

    def mean(*drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        ratios = [
            own[place].sum(axis=axis) / number[place].sum(axis=axis)
            for own, number, place in zip(sums, counts, drawn, strict=True)
        ]
        weights = [number.sum() / total for number in counts]
        return np.asarray(sum(w * ratio for w, ratio in zip(weights, ratios, strict=True)))

    found = None
    intervals = []
    for confidence in confidences:
        found = stats.bootstrap(
            places,
            mean,
            n_resamples=0 if found else 20_000,
            bootstrap_result=found,
            confidence_level=confidence,
            vectorized=True,
            method="BCa",
            rng=7,
        )
        interval = found.confidence_interval
        intervals.append((float(interval.low), float(interval.high)))
    return intervals


def p_by_enumeration(folds: Sequence[Sequence[float]]) -> float:
    """Wilcoxon 1945, van Elteren 1960: all signs that could have been, with ranks by counting."""
    ranks: list[float] = []
    signs: list[int] = []
    # A single case cannot be ranked within its fold.
    single = [fold[0] for fold in folds if len(fold) == 1]
    blocks = sorted((sorted(fold) for fold in folds if len(fold) > 1), key=len)
    if len(single) == 1 and blocks:
        blocks[0] = blocks[0] + single
    else:
        blocks.append(single)
    for block in blocks:
        unequal = [value for value in block if value != 0]
        for value in unequal:
            lower = sum(abs(other) < abs(value) for other in unequal)
            same = sum(abs(other) == abs(value) for other in unequal)
            ranks.append((lower + (same + 1) / 2) / (len(unequal) + 1))
            signs.append(1 if value > 0 else -1)
    observed = abs(sum(sign * rank for sign, rank in zip(signs, ranks, strict=True)))
    ways = [
        sum(sign * rank for sign, rank in zip(way, ranks, strict=True))
        for way in itertools.product((-1, 1), repeat=len(ranks))
    ]
    return sum(abs(way) >= observed - 1e-9 for way in ways) / len(ways)
