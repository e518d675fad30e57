"""Differences between models, paired over cases, with the fold as a block.

The same cases are scored by both models, and every model of a fold was trained without its test
cases. So patients are resampled and ranked within their fold: that one fold is harder than another
says nothing about the models. The cases of one patient stay together, since they are alike.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

# The level of a test, and of the interval that decides it.
SIGNIFICANT = 0.05
RESAMPLES = 9999
# What so many resamples can tell: one of them at either end.
SMALLEST_P = 2 / (RESAMPLES + 1)
SEED = 0
# The memory of the resamples, in numbers held at once.
BATCH = 2_000_000
# Finer than any metric is meant, coarser than what is left by the subtraction of two scores.
DECIMALS = 12
# Additions for an exact p value, a fraction of a second; above, there are at least 47 cases.
EXACT_COST = 200_000_000

Folds = Sequence[NDArray[np.float64]]
# Of each fold, the patient of each case.
Patients = Sequence[Sequence[Hashable]]
# The differences of a patient's cases, ascending.
Patient = tuple[float, ...]
# Fold -> trial id -> score of each case, in one order of cases per fold.
CaseScores = Mapping[int, Mapping[str, NDArray[np.float64]]]
# Trial id -> swept key -> value.
Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Difference:
    """How far two models, or groups of models, are apart: first minus second, paired over cases.

    Attributes:
        mean: over all cases, each of which counts once; in the unit of the metric.
        low: lower end of the confidence interval; NaN if there are fewer than two patients.
        high: upper end.
        p: two-sided p value of the signed-rank test; NaN if there are no cases.
        cases: number of cases for which both scores are defined.
        folds: number of folds with such cases.
        unequal: number of patients whose two (mean) scores differ; the test rests on these.
        patients: number of patients with such cases.
        p_interval: the smallest level at which the interval leaves out 0, but at least
            `smallest_p`; NaN if there are fewer than two patients.
    """

    mean: float
    low: float
    high: float
    p: float
    cases: int
    folds: int
    unequal: int
    patients: int
    p_interval: float

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the interval does."""
        return self.low > 0 or self.high < 0


# Fold -> differences of its cases, to the difference of all of them.
Measure = Callable[[Mapping[int, NDArray[np.float64]]], Difference]


def smallest_p(unequal: int) -> float:
    """What so many patients can show at most: how often all of them favour one model by chance."""
    return min(1.0, max(SMALLEST_P, 2 * 0.5**unequal))


def model_difference(
    folds: Folds, confidence: float = 1 - SIGNIFICANT, patients: Patients | None = None
) -> Difference:
    """`paired_difference`, with no interval where so few patients differ that it could leave out 0
    by chance: its interval leaves out 0 if and only if ``p_interval`` is below its level.
    """
    found = paired_difference(folds, confidence, patients)
    if found.unequal and smallest_p(found.unequal) >= 1 - confidence:
        return replace(found, low=math.nan, high=math.nan)
    return found


def paired_difference(
    folds: Folds, confidence: float = 1 - SIGNIFICANT, patients: Patients | None = None
) -> Difference:
    """The mean difference of two models with its interval and its p values.

    The interval is the bootstrap's percentile interval, with patients resampled within their fold,
    each with all of its cases. What resamples of small folds lack of the spread is given back (Rao
    and Wu, Resampling inference with complex survey data, 1988), and both ends are moved away from
    the mean by the ratio of Student's t quantile to the normal one, with as many degrees of freedom
    as there are patients less folds: else the interval of few patients would be too narrow, for the
    spread is estimated from them too (Hesterberg, What teachers should know about the bootstrap,
    2015, who moves the percentiles instead, of which small folds have too few). Neither Efron's
    BCa nor the plain percentiles keep their level with few patients (docs/comparison.md).

    ``p_interval`` inverts the interval: where enough patients differ, it is below 0.05 if and only
    if the 95 % interval of the same resamples leaves out 0.

    ``p`` is that of the signed-rank test (Wilcoxon, 1945). Of several folds, patients are ranked
    within their fold and a rank counts by its share of the fold's patients, rank / (n + 1), so
    that one weighs the same in a small fold as in a large one (after van Elteren, 1960). Equal
    scores are left out, as Wilcoxon did; equal differences share their mean rank. The p value is
    exact, ties and all, unless there are so many cases that the normal approximation is as good.

    A fold with a single patient cannot be resampled: all such folds are taken together as one
    block, and if there is but one of them, it joins the smallest other fold (collapsed strata;
    Cochran, Sampling Techniques, 1977).

    Args:
        folds: case differences of each fold, in the unit of the metric; undefined ones (not a
            number) are dropped. Neither the order of cases nor that of folds has any influence.
        confidence: of the interval, between 0 and 1.
        patients: whose case each one is; without it each is a patient's only one.

    Raises:
        ValueError: if a difference is infinite.
    """
    whose = [range(len(fold)) for fold in folds] if patients is None else patients
    defined = [_by_patient(fold, names) for fold, names in zip(folds, whose, strict=True)]
    plain, mirrored = _ordered(defined), _ordered([[_negative(p) for p in f] for f in defined])
    values = [value for fold in plain for patient in fold for value in patient]
    if not values:
        nothing = math.nan
        return Difference(nothing, nothing, nothing, nothing, 0, 0, 0, 0, nothing)
    # Worked out for one of the two directions: the other is its exact mirror image.
    sign = 1 if plain >= mirrored else -1
    blocks = _blocks(max(plain, mirrored))
    low, high, p_interval = _interval(blocks, confidence)
    if plain == mirrored:
        low, high = (low - high) / 2, (high - low) / 2
    means = [np.array([_mean(patient) for patient in block]) for block in blocks]
    unequal = sum(int(np.count_nonzero(block)) for block in means)
    return Difference(
        mean=math.fsum(values) / len(values),
        low=low if sign > 0 else 0.0 - high,
        high=high if sign > 0 else 0.0 - low,
        p=_signed_rank(means),
        cases=len(values),
        folds=len(plain),
        unequal=unequal,
        patients=sum(map(len, plain)),
        # NaN stays.
        p_interval=max(p_interval, smallest_p(unequal)),
    )


def _by_patient(fold: NDArray[np.float64], whose: Sequence[Hashable]) -> list[Patient]:
    """The defined differences of each patient's cases."""
    values = np.asarray(fold, dtype=np.float64)
    if np.isinf(values).any():
        raise ValueError("a difference is infinite: it has no mean")
    groups: dict[Hashable, list[float]] = {}
    # 0.9 - 0.8 and 0.8 - 0.7 are equal differences, though not in binary.
    for value, patient in zip((np.round(values, DECIMALS) + 0.0).tolist(), whose, strict=True):
        if not math.isnan(value):
            groups.setdefault(patient, []).append(value)
    return [tuple(sorted(group)) for group in groups.values()]


def _negative(patient: Patient) -> Patient:
    return tuple(sorted(0.0 - value for value in patient))


def _mean(patient: Patient) -> float:
    # Of 0.1 three times it is 0.1, too.
    return round(math.fsum(patient) / len(patient), DECIMALS) + 0.0


def _ordered(folds: Iterable[Sequence[Patient]]) -> list[tuple[Patient, ...]]:
    """The folds with patients, all in an order of their own."""
    return sorted(tuple(sorted(fold)) for fold in folds if fold)


def _blocks(folds: list[tuple[Patient, ...]]) -> list[tuple[Patient, ...]]:
    """The folds, but those with a single patient taken together."""
    blocks = sorted((fold for fold in folds if len(fold) > 1), key=lambda fold: (len(fold), fold))
    single = tuple(fold[0] for fold in folds if len(fold) == 1)
    if len(single) == 1 and blocks:
        blocks[0] = tuple(sorted(blocks[0] + single))
    elif single:
        blocks.append(single)
    return blocks


def _interval(
    blocks: Sequence[tuple[Patient, ...]], confidence: float
) -> tuple[float, float, float]:
    """Both ends, and the smallest level at which 0 is not between them."""
    values = [value for block in blocks for patient in block for value in patient]
    mean = math.fsum(values) / len(values)
    if sum(map(len, blocks)) < 2:
        return math.nan, math.nan, math.nan
    if all(len({_mean(patient) for patient in block}) == 1 for block in blocks):
        return mean, mean, SMALLEST_P if mean else 1.0
    bootstrap = _bootstrap(tuple(blocks), mean)
    return *bootstrap.interval(1 - confidence), bootstrap.level_without_zero()


@dataclass(frozen=True)
class _Bootstrap:
    """What intervals of any level are made of.

    Attributes:
        center: the mean of the sample.
        scale: the unit of ``means``, in which rounding takes nothing from small differences.
        means: of the resamples less ``center``, ascending.
        freedom: degrees of freedom: patients less blocks.
    """

    center: float
    scale: float
    means: NDArray[np.float64]
    freedom: int

    def interval(self, level: float) -> tuple[float, float]:
        """Both ends, which never have the mean outside of them."""
        tail = level / 2
        widening = float(special.stdtrit(self.freedom, tail) / special.ndtri(tail))
        low, high = self._percentile(tail), self._percentile(1 - tail)
        return self._end(widening * min(low, 0.0)), self._end(widening * max(high, 0.0))

    def _percentile(self, share: float) -> float:
        # As np.quantile, which takes a hundred times as long for a single one.
        place = share * (len(self.means) - 1)
        lower, upper = self.means[math.floor(place)], self.means[math.ceil(place)]
        return float(lower + (place - math.floor(place)) * (upper - lower))

    def _end(self, moved: float) -> float:
        # An end at 0 does not leave it out.
        at_zero = round(moved + self.center / self.scale, DECIMALS) == 0
        return 0.0 if at_zero else self.center + self.scale * moved

    def level_without_zero(self) -> float:
        """The smallest level at which `interval` leaves out 0, by bisection."""
        without, within = 1.0, SMALLEST_P
        if self._leaves_out_zero(within):
            return SMALLEST_P
        while within < (middle := (without + within) / 2) < without:
            if self._leaves_out_zero(middle):
                without = middle
            else:
                within = middle
        return without

    def _leaves_out_zero(self, level: float) -> bool:
        low, high = self.interval(level)
        return low > 0 or high < 0


# The same comparison is asked for at several levels.
@lru_cache(maxsize=64)
def _bootstrap(blocks: tuple[tuple[Patient, ...], ...], mean: float) -> _Bootstrap:
    cases = [sum(map(len, block)) for block in blocks]
    counts = [np.array([len(patient) for patient in block]) for block in blocks]
    everybody = sum(map(len, blocks))
    sums = [_deviations(block) for block in blocks]
    scale = max(float(np.abs(block).max()) for block in sums)
    sums = [block / scale for block in sums]
    shares = [number / sum(cases) for number in cases]
    # Each block keeps its share of the mean, whichever patients it is made of.
    generator, means = np.random.default_rng(SEED), []
    batch = max(1, BATCH // everybody)
    for start in range(0, RESAMPLES, batch):
        rows, total = min(batch, RESAMPLES - start), np.zeros(())
        for share, own, number in zip(shares, sums, counts, strict=True):
            drawn = generator.integers(0, len(own), (rows, len(own)))
            # Most patients have a single case: then all resamples have as many.
            drawn_cases = len(own) if number.max() == 1 else number[drawn].sum(axis=1)
            total = total + share * (own[drawn].sum(axis=1) / drawn_cases)
        means.append(total)
    found: NDArray[Any] = np.sort(np.round(np.concatenate(means), DECIMALS)) + 0.0
    return _Bootstrap(mean, scale, found, everybody - len(blocks))


def _deviations(block: tuple[Patient, ...]) -> NDArray[np.float64]:
    """Of each patient, the sum of what its cases differ from the block's mean by."""
    # Resamples of n patients have (n - 1) / n of their variance.
    count = len(block)
    center = np.concatenate(block).mean()
    sums = np.array([(np.array(patient) - center).sum() for patient in block])
    return math.sqrt(count / (count - 1)) * sums


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


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """The level that Holm's procedure tests each p value at; of NaN that of a single test.

    The smallest is tested at 0.05 over their number, the next at 0.05 over one less, and so on to
    the first that is not below its level, which is that of all others too. So a p value is below
    its level if and only if the adjusted one (`holm`) is below 0.05.
    """
    ranked = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    levels, level, rejected = [SIGNIFICANT] * len(p_values), SIGNIFICANT, True
    for rank, (p, place) in enumerate(ranked):
        if rejected:
            level = SIGNIFICANT / (len(ranked) - rank)
        levels[place] = level
        rejected = rejected and p < level
    return levels


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


def marginal_effects(case_scores: CaseScores, settings: Settings, measure: Measure) -> list[Effect]:
    """The effects of all swept keys that have several values, each beside its first value.

    ``measure`` is that of `effects_of`. Keys and values keep the order in which they are met;
    values are compared by their JSON text. Trials without scores are left out.
    """
    scored = _scored(case_scores, settings)
    keys = dict.fromkeys(key for trial in scored.values() for key in trial)
    effects = []
    for key in keys:
        values = [trial[key] for trial in scored.values() if key in trial]
        if len({_text(value) for value in values}) > 1:
            effects += effects_of(key, values[0], case_scores, scored, measure)
    return effects


def effects_of(
    key: str,
    reference: Any,
    case_scores: CaseScores,
    settings: Settings,
    measure: Measure,
) -> list[Effect]:
    """The effects of all values of one swept key beside a reference value, which comes first.

    ``measure`` makes a difference of those of the cases of each fold, in the order of
    ``case_scores``.

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
                difference=_matched_difference(case_scores, pairs, measure),
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
    case_scores: CaseScores,
    pairs: Sequence[tuple[str, str]],
    measure: Measure,
) -> Difference | None:
    folds = {}
    for fold, scores in case_scores.items():
        differences = [
            scores[trial] - scores[partner]
            for trial, partner in pairs
            if trial in scores and partner in scores
        ]
        if differences:
            folds[fold] = _defined_mean(np.array(differences))
    return measure(folds) if folds else None
