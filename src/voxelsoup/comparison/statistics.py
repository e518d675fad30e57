"""Differences between models, paired over cases, with the fold as a block.

The same cases are scored by both models, and every model of a fold was trained without its test
cases. So cases are resampled and ranked within their fold: that one fold is harder than another
says nothing about the models.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 9999
SEED = 0
# The memory of the resamples, in numbers held at once.
BATCH = 2_000_000
# Finer than any metric is meant, coarser than what is left by the subtraction of two scores.
DECIMALS = 12
# Additions for an exact p value, a fraction of a second; above, there are at least 47 cases.
EXACT_COST = 200_000_000

Folds = Sequence[NDArray[np.float64]]
# Fold -> trial id -> score of each case, in one order of cases per fold.
CaseScores = Mapping[int, Mapping[str, NDArray[np.float64]]]
# Trial id -> swept key -> value.
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Difference:
    """How far two models, or groups of models, are apart: first minus second, paired over cases.

    Attributes:
        mean: over all cases, each of which counts once; in the unit of the metric.
        low: lower end of the confidence interval; NaN if there are fewer than two cases.
        high: upper end.
        p: two-sided p value of the signed-rank test; NaN if there are no cases.
        cases: number of cases for which both scores are defined.
        folds: number of folds with such cases.
        unequal: number of cases whose two scores differ; the test rests on these.
    """

    mean: float
    low: float
    high: float
    p: float
    cases: int
    folds: int
    unequal: int


def paired_difference(folds: Folds, confidence: float = 0.95) -> Difference:
    """The mean difference of two models with its interval and its p value.

    The interval is the bootstrap's, bias-corrected and accelerated (BCa; Efron, Better bootstrap
    confidence intervals, 1987), with cases resampled within their fold. What small folds would
    lose of their spread by that is given back (Rao and Wu, Resampling inference with complex
    survey data, 1988), so that cases in folds count no more than as many in one. As all bootstrap
    intervals it is somewhat too narrow for few cases.

    The test is the signed-rank test (Wilcoxon, 1945). Of several folds, cases are ranked within
    their fold and a rank counts by its share of the fold's cases, rank / (n + 1), so that a case
    weighs the same in a small fold as in a large one (after van Elteren, 1960). Equal scores are
    left out, as Wilcoxon did; equal differences share their mean rank. The p value is exact, ties
    and all, unless there are so many cases that the normal approximation is as good.

    A fold with a single case cannot be resampled: all such folds are taken together as one block,
    and if there is but one of them, it joins the smallest other fold (collapsed strata; Cochran,
    Sampling Techniques, 1977).

    Args:
        folds: case differences of each fold, in the unit of the metric; undefined ones (not a
            number) are dropped. Neither the order of cases nor that of folds has any influence.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: if a difference is infinite.
    """
    defined = [_defined(fold) for fold in folds]
    plain = _ordered(fold for fold in defined if len(fold))
    mirrored = _ordered(-fold for fold in defined if len(fold))
    values = [value for fold in plain for value in fold]
    if not values:
        return Difference(math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
    # Worked out for one of the two directions: the other is its exact mirror image.
    sign = 1 if plain >= mirrored else -1
    blocks = _blocks(max(plain, mirrored))
    low, high = _interval(blocks, confidence)
    if plain == mirrored:
        low, high = (low - high) / 2, (high - low) / 2
    return Difference(
        mean=math.fsum(values) / len(values),
        low=low if sign > 0 else -high,
        high=high if sign > 0 else -low,
        p=_signed_rank(blocks),
        cases=len(values),
        folds=len(plain),
        unequal=int(np.count_nonzero(values)),
    )


def _defined(fold: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(fold, dtype=np.float64)
    if np.isinf(values).any():
        raise ValueError("a difference is infinite: it has no mean")
    # 0.9 - 0.8 and 0.8 - 0.7 are equal differences, though not in binary.
    return np.round(values[~np.isnan(values)], DECIMALS)


def _ordered(folds: Iterable[NDArray[np.float64]]) -> list[tuple[float, ...]]:
    return sorted(tuple(np.sort(fold + 0.0).tolist()) for fold in folds)


def _blocks(folds: list[tuple[float, ...]]) -> list[NDArray[np.float64]]:
    """The folds, but those with a single case taken together."""
    blocks = sorted((fold for fold in folds if len(fold) > 1), key=lambda fold: (len(fold), fold))
    single = tuple(fold[0] for fold in folds if len(fold) == 1)
    if len(single) == 1 and blocks:
        blocks[0] = tuple(sorted(blocks[0] + single))
    elif single:
        blocks.append(single)
    return [np.array(block) for block in blocks]


def _interval(blocks: Folds, confidence: float) -> tuple[float, float]:
    cases = sum(len(block) for block in blocks)
    mean = math.fsum(itertools.chain(*blocks)) / cases
    if cases < 2:
        return math.nan, math.nan
    if all(np.ptp(block) == 0 for block in blocks):
        return mean, mean
    shares = [len(block) / cases for block in blocks]
    samples = [_deviations(block, cases) for block in blocks]
    # Centred and scaled, so that rounding takes nothing from small differences.
    scale = max(float(np.abs(sample).max()) for sample in samples)

    # Each block keeps its share when the jackknife leaves out a case, as it does in resamples.
    def statistic(*drawn: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        means = [sample.mean(axis=axis) for sample in drawn]
        terms = (share * mean for share, mean in zip(shares, means, strict=True))
        # The same cases in another order are a tie with the sample, which BCa counts as half.
        return np.round(sum(terms, start=np.zeros(())), DECIMALS)

    interval = stats.bootstrap(
        [sample / scale for sample in samples],
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH // cases),
        vectorized=True,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return mean + scale * float(interval.low), mean + scale * float(interval.high)


def _deviations(block: NDArray[np.float64], cases: int) -> NDArray[np.float64]:
    # Resamples of n cases have (n - 1) / n of their variance. One block of all cases is left as it
    # is, which is the interval as Efron defined it.
    count = len(block)
    return math.sqrt(count / (count - 1) * (cases - 1) / cases) * (block - block.mean())


def _signed_rank(blocks: Folds) -> float:
    """Two-sided p value of the signed-rank test with blocks."""
    unequal = [block[block != 0] for block in blocks if block.any()]
    ranks = [stats.rankdata(np.abs(block)) for block in unequal]
    positive = [block > 0 for block in unequal]
    # Ties have half ranks; doubled and on one denominator, all scores are whole numbers.
    denominator = math.lcm(*(len(block) + 1 for block in unequal))
    scores = [
        [int(2 * rank) * (denominator // (len(block) + 1)) for rank in block] for block in ranks
    ]
    flat = list(itertools.chain(*scores))
    if not flat:
        return 1.0
    divisor = math.gcd(*flat)
    flat = [score // divisor for score in flat]
    won = sum(itertools.compress(flat, itertools.chain(*positive)))
    lesser = min(won, sum(flat) - won)
    if lesser * len(flat) <= EXACT_COST:
        p = 2 * _probability_up_to(lesser, flat)
    else:
        deviation = math.sqrt(sum(score * score for score in flat))
        p = 2 * float(stats.norm.sf((sum(flat) - 2 * lesser) / deviation))
    return min(1.0, max(p, sys.float_info.min))


def _probability_up_to(limit: int, scores: Iterable[int]) -> float:
    """Probability that a sum, to which each score belongs or not by a coin, is at most a limit."""
    probabilities = np.zeros(limit + 1)
    probabilities[0] = 1.0
    reach = 0
    for score in sorted(scores):
        kept = probabilities[: max(0, min(reach, limit - score) + 1)].copy()
        probabilities[: reach + 1] *= 0.5
        probabilities[score : score + len(kept)] += 0.5 * kept
        reach = min(limit, reach + score)
    return float(probabilities.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for the number of comparisons made (Holm, 1979); NaN does not count."""
    ranked = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        adjusted[place] = highest
    return adjusted


@dataclass(frozen=True)
class SeedSpread:
    """How far trials are apart that differ in their seed alone.

    Attributes:
        settings: number of combinations of settings that ran under several seeds.
        seeds: number of different seeds among them.
        deviation: standard deviation between seeds, pooled over the combinations by their degrees
            of freedom; in the unit of the metric.
        largest_range: the largest distance between two seeds of one combination.
    """

    settings: int
    seeds: int
    deviation: float
    largest_range: float


def seed_spread(scores: Mapping[tuple[Any, ...], Mapping[int, float]]) -> SeedSpread | None:
    """The spread that the seed alone makes; None if nothing ran under two seeds.

    ``scores``: settings other than the seed -> seed -> mean score; NaN is left out.
    """
    defined = [
        {seed: score for seed, score in group.items() if not math.isnan(score)}
        for group in scores.values()
    ]
    groups = [group for group in defined if len(group) > 1]
    if not groups:
        return None
    runs = [np.array(list(group.values())) for group in groups]
    squares = math.fsum(float(((run - run.mean()) ** 2).sum()) for run in runs)
    return SeedSpread(
        settings=len(groups),
        seeds=len(set().union(*groups)),
        deviation=math.sqrt(squares / sum(len(run) - 1 for run in runs)),
        largest_range=max(float(np.ptp(run)) for run in runs),
    )


@dataclass(frozen=True)
class Effect:
    """What one value of a hyperparameter does beside a reference value of the same.

    Attributes:
        reference: the value that it is compared with.
        mean: over the trials with this value, of their means over all cases.
        pairs: number of matched pairs: a trial with this value and one with the reference that
            agree in all other swept keys.
        difference: value minus reference, a case's difference being the mean over the matched
            pairs; None for the reference itself, and if there are no matched pairs.
    """

    key: str
    value: Any
    reference: Any
    mean: float
    trials: int
    pairs: int
    difference: Difference | None


def marginal_effects(case_scores: CaseScores, settings: Settings) -> list[Effect]:
    """The effects of all swept keys that have several values, each beside its first value.

    Keys and values keep the order in which they are met; values are compared by their JSON text.
    Trials without scores are left out.
    """
    scored = _scored(case_scores, settings)
    keys = dict.fromkeys(key for trial in scored.values() for key in trial)
    effects = []
    for key in keys:
        values = [trial[key] for trial in scored.values() if key in trial]
        if len({_text(value) for value in values}) > 1:
            effects += effects_of(key, values[0], case_scores, scored)
    return effects


def effects_of(
    key: str, reference: Any, case_scores: CaseScores, settings: Settings
) -> list[Effect]:
    """The effects of all values of one swept key beside a reference value, which comes first.

    ``effects_of("optimizer.schedule", "schedule-free", ...)`` sets each scheduled baseline beside
    schedule-free. A grid need not be complete: a difference is of matched trials only, so that
    other keys have no part in it. The means are of all trials that have the key. If none with
    scores has the reference value, there are no differences.
    """
    groups: dict[str, list[str]] = {_text(reference): []}
    scored = {trial: s for trial, s in _scored(case_scores, settings).items() if key in s}
    for trial, swept in scored.items():
        groups.setdefault(_text(swept[key]), []).append(trial)
    others = {
        trial: _text({name: value for name, value in swept.items() if name != key})
        for trial, swept in scored.items()
    }
    references = groups[_text(reference)]
    effects = []
    for group in filter(None, groups.values()):
        pairs = [
            (trial, partner)
            for trial, partner in itertools.product(group, references)
            if group is not references and others[trial] == others[partner]
        ]
        effects.append(
            Effect(
                key=key,
                value=scored[group[0]][key],
                reference=reference,
                mean=float(_defined_mean(np.array([_trial_mean(case_scores, t) for t in group]))),
                trials=len(group),
                pairs=len(pairs),
                difference=_matched_difference(case_scores, pairs),
            )
        )
    return effects


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _scored(case_scores: CaseScores, settings: Settings) -> dict[str, Mapping[str, Any]]:
    with_scores = {trial for scores in case_scores.values() for trial in scores}
    return {trial: swept for trial, swept in settings.items() if trial in with_scores}


def _trial_mean(case_scores: CaseScores, trial: str) -> float:
    scores = [fold[trial] for fold in case_scores.values() if trial in fold]
    return float(_defined_mean(np.concatenate(scores)))


def _defined_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis without NaN; NaN where nothing else is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def _matched_difference(
    case_scores: CaseScores, pairs: Sequence[tuple[str, str]]
) -> Difference | None:
    folds = []
    for scores in case_scores.values():
        differences = [
            scores[trial] - scores[partner]
            for trial, partner in pairs
            if trial in scores and partner in scores
        ]
        if differences:
            folds.append(_defined_mean(np.array(differences)))
    return paired_difference(folds) if folds else None
