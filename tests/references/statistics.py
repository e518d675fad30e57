"""Statistics without random numbers: everything that could have happened is listed."""

from __future__ import annotations

import itertools
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
    return [
        fold.mean() + (fold - fold.mean()) * (fold.std(ddof=1) / fold.std(ddof=0)) for fold in folds
    ]


def widened(
    mean: float, percentiles: Sequence[float], level: float, freedom: int
) -> tuple[float, float]:
    """Percentiles, of a level, as far from the mean as Student's t has them, not the normal."""
    ratio = stats.t.isf(level / 2, freedom) / stats.norm.isf(level / 2)
    low, high = (float(mean + ratio * (end - mean)) for end in percentiles)
    return low, high


def interval_by_enumeration(
    folds: Sequence[NDArray[np.float64]], level: float = 0.05
) -> tuple[float, float]:
    """The interval of the mean over the cases of two folds, without random numbers."""
    mean = float(np.concatenate(folds).mean())
    means = all_means(spread_given_back(folds))
    percentiles = np.quantile(means, [level / 2, 1 - level / 2])
    return widened(mean, percentiles, level, sum(map(len, folds)) - len(folds))


def percentiles_of_patients(
    folds: Sequence[Sequence[Sequence[float]]], confidences: Sequence[float]
) -> list[tuple[float, float]]:
    """Intervals of the mean over all cases, with patients resampled within their fold.

    By scipy's own percentiles, of patients by their places; spread is not given back.
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
            method="percentile",
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
