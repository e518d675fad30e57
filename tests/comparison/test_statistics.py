"""Differences of models: intervals and p values against oracles, and the sentences they allow."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from references.statistics import (
    all_means,
    interval_by_enumeration,
    p_by_enumeration,
    percentiles_of_patients,
    spread_given_back,
    widened,
)
from voxelsoup.comparison.conclusions import conclusion
from voxelsoup.comparison.statistics import (
    RESAMPLES,
    SIGNIFICANT,
    SMALLEST_P,
    Difference,
    SeedSpread,
    effects_of,
    holm,
    holm_levels,
    marginal_effects,
    model_difference,
    paired_difference,
    seed_spread,
    smallest_p,
)

pytestmark = pytest.mark.filterwarnings("error")

# Skewed, and the folds are of unequal size and level.
SKEWED = [np.array([0.011, 0.023, 0.047, 0.06, 0.31]), np.array([-0.02, 0.001, 0.013, 0.19])]


def folds_of(*folds: Sequence[float]) -> list[NDArray[np.float64]]:
    return [np.array(fold, dtype=np.float64) for fold in folds]


# Few different numbers, so that ties and equal scores are frequent.
coarse = st.integers(-4, 4).map(lambda number: number / 8)
some_folds = st.lists(st.lists(coarse | st.floats(-1, 1), max_size=8), min_size=1, max_size=4).map(
    lambda folds: folds_of(*folds)
)
few_cases = st.lists(st.lists(coarse, max_size=6), min_size=1, max_size=3).filter(
    lambda folds: sum(map(len, folds)) <= 11
)


# The interval


@pytest.mark.parametrize("level", [0.05, 0.05 / 4])
def test_interval_matches_the_enumeration_of_all_resamples_within_folds(level: float) -> None:
    found = paired_difference(SKEWED, 1 - level)
    low, high = interval_by_enumeration(SKEWED, level)
    means = all_means(spread_given_back(SKEWED))
    noise = 0.15 * float(means.std())
    assert found.low == pytest.approx(low, abs=noise)
    assert found.high == pytest.approx(high, abs=noise)
    # Percentiles as they are lie further inside: this oracle distinguishes the two.
    percentiles = np.quantile(means, [level / 2, 1 - level / 2])
    assert np.abs(percentiles - [low, high]).max() > 2 * noise


def test_interval_of_one_fold_is_scipys_widened_by_students_t() -> None:
    values = np.random.default_rng(0).exponential(1, 40)
    found = paired_difference([values])
    plain = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=1
    ).confidence_interval
    spread = math.sqrt(40 / 39)
    low, high = widened(float(values.mean()), plain, 0.05, 39)
    noise = 0.05 * float(stats.sem(values))
    expected = [values.mean() + spread * (end - values.mean()) for end in (low, high)]
    assert [found.low, found.high] == pytest.approx(expected, abs=noise)


def test_interval_of_normal_differences_is_that_of_the_t_test() -> None:
    values = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    found = paired_difference([values])
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert [found.low, found.high] == pytest.approx([low, high], rel=0.05)


def test_interval_of_small_folds_is_as_wide_as_their_standard_error() -> None:
    """Cochran's of a stratified mean: resamples of two cases alone have half of the variance."""
    folds = folds_of(*[[-0.1, 0.3]] * 20)
    error = math.sqrt(sum(len(fold) * float(fold.var(ddof=1)) for fold in folds)) / 40
    found = paired_difference(folds)
    # 40 patients less 20 folds.
    assert found.high - found.low == pytest.approx(2 * stats.t.isf(0.025, 20) * error, rel=0.1)


def test_mean_weighs_every_case_equally_across_folds() -> None:
    found = paired_difference(folds_of([0.1, 0.2, 0.3, 0.4], [1.0, 2.0]))
    assert found.mean == pytest.approx(4.0 / 6)
    assert (found.cases, found.folds, found.unequal) == (6, 2, 6)


def test_differences_between_folds_do_not_widen_the_interval() -> None:
    apart = folds_of([0.1, 0.11, 0.12, 0.13], [0.9, 0.91, 0.92, 0.93])
    blocked = paired_difference(apart)
    together = paired_difference([np.concatenate(apart)])
    assert blocked.high - blocked.low < 0.05 < 0.3 < together.high - together.low


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    usual, sure = paired_difference(SKEWED), paired_difference(SKEWED, confidence=0.99)
    assert sure.low < usual.low < usual.mean < usual.high < sure.high


def test_differences_that_are_their_own_mirror_image_have_a_symmetric_interval() -> None:
    found = paired_difference(folds_of([-0.31, -0.17, 0.17, 0.31], [-0.05, 0.05, 0.0]))
    assert found.mean == 0
    assert found.low == -found.high < 0


@pytest.mark.parametrize("shift", [0.1, 0.3, 0.7, 1.1, 1.9])
def test_the_interval_moves_with_the_differences(shift: float) -> None:
    """Resamples as good as the sample are frequent here, and rounding must not judge them."""
    cases = np.array([0.013, 0.1, 0.27, 0.551])
    there, here = paired_difference([cases + shift]), paired_difference([cases])
    assert [there.low, there.high] == pytest.approx([here.low + shift, here.high + shift])


def test_a_tiny_spread_within_folds_that_are_far_apart_has_an_interval() -> None:
    found = paired_difference(folds_of([1.0, 1.0 + 1e-11], [2.0, 2.0 + 1e-11]))
    assert found.low < found.mean < found.high < found.low + 1e-10


def test_equal_differences_leave_an_interval_of_one_point() -> None:
    found = paired_difference(folds_of([0.1] * 3, [0.1] * 4))
    assert found.low == found.high == found.mean == pytest.approx(0.1)
    assert found.p == pytest.approx(2 / 2**7)


def test_models_with_the_same_scores_are_not_different() -> None:
    found = paired_difference(folds_of([0.0] * 5, [-0.0] * 5))
    assert found == Difference(
        0.0, 0.0, 0.0, 1.0, cases=10, folds=2, unequal=0, patients=10, p_interval=1.0
    )


def test_rounding_errors_of_equal_scores_count_as_no_difference() -> None:
    left_over = 0.1 + 0.2 - 0.3
    assert left_over != 0
    assert paired_difference(folds_of([left_over, -left_over, 0.0])).unequal == 0


def test_one_case_has_no_interval() -> None:
    found = paired_difference(folds_of([0.3], []))
    assert (found.mean, found.p, found.cases, found.folds) == (0.3, 1.0, 1, 1)
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("folds", [[], [[]], [[math.nan], [math.nan, math.nan]]])
def test_statistics_without_cases_are_nan(folds: list[list[float]]) -> None:
    found = paired_difference(folds_of(*folds))
    assert np.isnan([found.mean, found.low, found.high, found.p]).all()
    assert (found.cases, found.folds, found.unequal) == (0, 0, 0)


def test_undefined_differences_are_dropped_before_anything_is_counted() -> None:
    gaps = folds_of([math.nan, *SKEWED[0], math.nan], [math.nan], [*SKEWED[1], math.nan])
    assert paired_difference(gaps) == paired_difference(SKEWED)


def test_infinite_differences_are_refused() -> None:
    with pytest.raises(ValueError, match="infinite"):
        paired_difference(folds_of([0.1, math.inf]))


def test_folds_of_one_case_are_one_block_together() -> None:
    alone = [[0.1], [-0.2], [0.4], [0.3]]
    found = paired_difference(folds_of(*alone))
    together = paired_difference(folds_of(list(itertools.chain(*alone))))
    assert (found.low, found.high, found.p) == (together.low, together.high, together.p)
    assert (found.folds, together.folds) == (4, 1)
    assert found.low < found.mean < found.high


def test_the_only_fold_of_one_case_joins_the_smallest_other() -> None:
    found = paired_difference(folds_of([0.1, 0.3, -0.1], [0.2, 0.5], [0.7]))
    joined = paired_difference(folds_of([0.1, 0.3, -0.1], [0.2, 0.5, 0.7]))
    assert (found.low, found.high, found.p) == (joined.low, joined.high, joined.p)


@settings(max_examples=40, deadline=None)
@given(some_folds)
def test_swapping_the_models_gives_the_mirror_image(folds: list[NDArray[np.float64]]) -> None:
    there, back = paired_difference(folds), paired_difference([-fold for fold in folds])
    np.testing.assert_array_equal(
        [there.mean, there.low, there.high, there.p], [-back.mean, -back.high, -back.low, back.p]
    )


@settings(max_examples=40, deadline=None)
@given(some_folds, st.randoms(use_true_random=False))
def test_statistics_do_not_depend_on_the_order_of_cases_and_folds(
    folds: list[NDArray[np.float64]], random: Random
) -> None:
    shuffled = [list(fold) for fold in folds]
    for fold in [*shuffled, shuffled]:
        random.shuffle(fold)
    np.testing.assert_equal(
        vars(paired_difference(folds)), vars(paired_difference(folds_of(*shuffled)))
    )


@settings(max_examples=40, deadline=None)
@given(some_folds.filter(lambda folds: sum(map(len, folds)) > 1))
def test_interval_and_p_value_stay_within_their_bounds(folds: list[NDArray[np.float64]]) -> None:
    found, values = paired_difference(folds), np.concatenate(folds)
    assert 0 < found.p <= 1
    assert found.low <= found.mean <= found.high
    assert found.leaves_out_zero == (found.p_interval < SIGNIFICANT) or found.unequal < 6
    assert found.mean == pytest.approx(values.mean(), abs=1e-9)


# Patients with several cases

# Two folds: the cases of each patient, of whom some have several that are alike.
PATIENTS = [
    [[0.02, 0.03, 0.01], [-0.04], [0.11, 0.09], [0.05], [0.0, 0.02], [0.2], [-0.01], [0.03]],
    [[0.06], [-0.02, -0.03], [0.07, 0.05, 0.06, 0.08], [0.01], [0.12], [-0.05], [0.02], [0.03]],
]


def cases_and_patients(
    folds: Sequence[Sequence[Sequence[float]]],
) -> tuple[list[NDArray[np.float64]], list[list[int]]]:
    cases = folds_of(*[list(itertools.chain(*fold)) for fold in folds])
    whose = [[n for n, patient in enumerate(fold) for _ in patient] for fold in folds]
    return cases, whose


def test_interval_matches_scipys_of_patients_resampled_within_folds() -> None:
    cases, whose = cases_and_patients(PATIENTS)
    # Eight patients of each fold: what their resamples lack of spread.
    spread = math.sqrt(8 / 7)
    mean = float(np.concatenate(cases).mean())
    apart = [
        [[case.mean() + spread * (d - case.mean()) for d in patient] for patient in fold]
        for case, fold in zip(cases, PATIENTS, strict=True)
    ]
    for confidence, ends in zip(
        (0.95, 0.99), percentiles_of_patients(apart, (0.95, 0.99)), strict=True
    ):
        found = paired_difference(cases, confidence, whose)
        assert found.mean == pytest.approx(mean)
        # Degrees of freedom: patients, not cases, less folds.
        low, high = widened(mean, ends, 1 - confidence, 16 - 2)
        assert [found.low, found.high] == pytest.approx([low, high], abs=0.04 * (high - low))
    alone = paired_difference(cases)
    assert found.patients == 16 and alone.patients == alone.cases == found.cases == 24


def test_more_cases_of_the_same_patients_do_not_narrow_the_interval() -> None:
    once = [[[0.1], [-0.05], [0.2], [0.02], [0.07], [-0.1], [0.15], [0.03]]]
    often = [[patient * 5 for patient in fold] for fold in once]
    single = paired_difference(*cases_and_patients(once)[:1])
    several = paired_difference(cases_and_patients(often)[0], patients=cases_and_patients(often)[1])
    assert (several.low, several.high) == pytest.approx((single.low, single.high), abs=1e-9)
    assert several.p == single.p
    assert (several.unequal, several.patients, several.cases) == (8, 8, 40)


@settings(max_examples=30, deadline=None)
@given(some_folds)
def test_patients_of_one_case_each_change_nothing(folds: list[NDArray[np.float64]]) -> None:
    names = [[f"{n}th" for n in range(len(fold))] for fold in folds]
    np.testing.assert_equal(
        vars(paired_difference(folds, patients=names)), vars(paired_difference(folds))
    )


# The level of the interval that is the p value


def test_p_of_the_interval_is_the_level_at_which_scipys_leaves_out_zero() -> None:
    """The oracle makes many intervals and looks for the first that does."""
    values = np.random.default_rng(3).normal(0.35, 1, 40)
    found = paired_difference([values])
    levels = np.geomspace(0.002, 0.5, 120)
    spread = math.sqrt(40 / 39)
    apart = [[[float(values.mean() + spread * (v - values.mean()))] for v in values]]
    intervals = [
        widened(float(values.mean()), ends, level, 39)
        for level, ends in zip(levels, percentiles_of_patients(apart, 1 - levels), strict=True)
    ]
    first = next(level for level, (low, _) in zip(levels, intervals, strict=True) if low > 0)
    assert 0.01 < first < 0.2
    assert found.p_interval == pytest.approx(first, rel=0.12)
    assert found.p_interval == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.15)


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_p_of_the_interval_inverts_the_interval_of_all_resamples(level: float) -> None:
    """An end at 0, moved there by the enumeration, belongs to its level."""
    low, _ = interval_by_enumeration(SKEWED, level)
    found = paired_difference([fold - low for fold in SKEWED])
    assert found.p_interval == pytest.approx(level, rel=0.15)


many_cases = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.tuples(
        st.just(seed),
        st.lists(st.integers(0, 25), min_size=1, max_size=3),
        st.floats(-0.6, 0.6),
        st.sampled_from([0, 1, 2, 6]),
        st.integers(1, 4),
    )
)


@settings(max_examples=80, deadline=None)
@given(many_cases | some_folds, st.sampled_from([0.05, 0.05 / 2, 0.05 / 3, 0.01, 0.2]))
def test_the_interval_of_a_level_leaves_out_zero_if_and_only_if_p_is_below_the_level(
    drawn: object, level: float
) -> None:
    folds, patients = random_folds(drawn)
    found = model_difference(folds, 1 - level, patients)
    assert found.leaves_out_zero == (found.p_interval < level)
    assert found.p_interval >= smallest_p(found.unequal) >= SMALLEST_P or found.patients < 2
    if found.patients >= 2:
        # The same p value whatever the interval is.
        assert model_difference(folds, 0.95, patients).p_interval == found.p_interval


def random_folds(
    drawn: object,
) -> tuple[list[NDArray[np.float64]], list[list[int]] | None]:
    """Folds of random numbers, skewed and rounded to that many digits, of patients with cases."""
    if isinstance(drawn, list):
        return drawn, None
    seed, sizes, shift, digits, cases = drawn  # type: ignore[misc]
    generator = np.random.default_rng(seed)
    folds = [np.round(generator.exponential(1, n) - 1 + shift, digits) for n in sizes]
    return folds, [[n // cases for n in range(len(fold))] for fold in folds]


def test_too_few_patients_that_differ_leave_no_interval_that_could_mislead() -> None:
    five, six = [0.1] * 5 + [0.0] * 20, [0.1] * 6 + [0.0] * 20
    assert paired_difference(folds_of(five)).low > 0
    found = model_difference(folds_of(five))
    assert math.isnan(found.low) and math.isnan(found.high)
    assert found.p_interval >= 2 / 2**5 > SIGNIFICANT
    found = model_difference(folds_of(six))
    assert found.low > 0 and found.p_interval == 2 / 2**6
    assert math.isnan(model_difference(folds_of(six), 1 - SIGNIFICANT / 2).low)
    assert (model_difference(folds_of([0.0] * 3)).low, found.unequal) == (0, 6)


def test_p_of_the_interval_is_not_below_what_the_resamples_can_tell() -> None:
    found = paired_difference(folds_of([0.1, 0.2, 0.3] * 10))
    assert found.p_interval == SMALLEST_P == 2 / (RESAMPLES + 1)


@pytest.mark.parametrize("cases", [9, 15, 60])
def test_the_test_of_the_interval_keeps_its_level(cases: int) -> None:
    """Of 120 studies without a difference six should show one (docs/comparison.md)."""
    generator = np.random.default_rng(cases)
    studies = [[generator.normal(0, 1, cases // 3) for _ in range(3)] for _ in range(120)]
    wrong = sum(model_difference(folds).leaves_out_zero for folds in studies)
    assert 1 <= wrong <= 13


# The p value of the signed-rank test


def one_smallest(folds: Sequence[Sequence[float]]) -> bool:
    """Whether it is plain which fold a single case joins."""
    sizes = sorted(len(fold) for fold in folds if len(fold) > 1)
    return len(sizes) < 2 or sizes[0] < sizes[1]


@settings(max_examples=60, deadline=None)
@given(few_cases.filter(one_smallest))
def test_p_matches_the_enumeration_of_all_signs(
    folds: list[list[float]],
) -> None:
    if any(folds):
        assert paired_difference(folds_of(*folds)).p == pytest.approx(p_by_enumeration(folds))


def test_p_weights_ranks_by_the_size_of_their_fold() -> None:
    folds = [[0.1, 0.2, -0.3, 0.4, 0.5, 0.6], [0.1, 0.9], [-0.05, 0.2, 0.4]]
    found = paired_difference(folds_of(*folds)).p
    assert found == pytest.approx(p_by_enumeration(folds))
    # Ranked as one fold, or with every fold's ranks as they are, it is another number.
    assert found != pytest.approx(p_by_enumeration([list(itertools.chain(*folds))]))


def test_p_matches_the_published_example() -> None:
    """Depression scores before and after treatment (Hollander and Wolfe, 1973, p. 29)."""
    before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    found = paired_difference([np.array(before) - np.array(after)])
    assert found.p == pytest.approx(0.03906, abs=5e-6)


@pytest.mark.parametrize("cases", [2, 7, 25, 60, 150])
def test_p_of_one_fold_matches_scipys_exact_test(cases: int) -> None:
    values = np.random.default_rng(cases).normal(0.2, 1, cases)
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert paired_difference([values]).p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_p_of_one_fold_with_ties_matches_scipys_permutation_test(seed: int) -> None:
    values = np.random.default_rng(seed).integers(-3, 6, 13) / 4
    unequal = values[values != 0]
    expected = stats.wilcoxon(unequal, method=stats.PermutationMethod(n_resamples=2**13)).pvalue
    assert paired_difference([values]).p == pytest.approx(expected, rel=1e-9)


def test_p_of_many_cases_matches_scipys_normal_approximation() -> None:
    values = np.round(np.random.default_rng(0).normal(0.05, 1, 2500), 2)
    expected = stats.wilcoxon(values, method="asymptotic").pvalue
    assert 0.001 < expected < 0.5
    assert paired_difference([values]).p == pytest.approx(expected, rel=1e-9)


# Holm


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        # R: p.adjust(..., "holm")
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.04, 0.001, 0.03], [0.06, 0.003, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        # The example of Holm's procedure in Wikipedia's article: H1 to H4.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([], []),
    ],
)
def test_holm_gives_the_published_values(raw: list[float], adjusted: list[float]) -> None:
    assert holm(raw) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_a_p_value_is_below_its_level_if_and_only_if_the_adjusted_one_is_significant(
    raw: list[float],
) -> None:
    for p, level, adjusted in zip(raw, holm_levels(raw), holm(raw), strict=True):
        assert (p < level) == (adjusted < SIGNIFICANT)


def test_holm_tests_each_p_value_at_its_level_up_to_the_first_that_fails() -> None:
    levels = holm_levels([0.3, 0.001, math.nan, 0.02, 0.04])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 4, 0.05, 0.05 / 3, 0.05 / 3])
    assert holm_levels([0.01]) == [0.05]
    assert holm_levels([]) == []


def test_holm_ignores_comparisons_without_a_p_value() -> None:
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[0] == adjusted[2] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), min_size=1), st.data())
def test_holm_lies_between_the_raw_value_and_bonferroni(raw: list[float], data: st.DataObject):
    adjusted = holm(raw)
    for before, after in zip(raw, adjusted, strict=True):
        assert before <= after <= min(1.0, len(raw) * before)
    ordered = [after for _, after in sorted(zip(raw, adjusted, strict=True))]
    assert ordered == sorted(ordered)
    places = data.draw(st.permutations(range(len(raw))))
    assert holm([raw[place] for place in places]) == [adjusted[place] for place in places]


# Sentences


def apart(
    mean: float, low: float, high: float, cases: int = 100, folds: int = 5, unequal: int = -1
) -> Difference:
    differ = cases if unequal < 0 else unequal
    return Difference(mean, low, high, 0.01, cases, folds, differ, cases, 0.01)


def concluded(difference: Difference, p: float) -> str:
    return conclusion("greedy soup", "best model", difference, p)


@pytest.mark.parametrize(
    ("difference", "p", "sentence"),
    [
        (
            apart(0.004, 0.001, 0.008),
            0.01,
            "greedy soup better than best model by 0.4 Dice points [0.1, 0.8], p = 0.01, "
            "100 cases, 5 folds",
        ),
        (
            apart(-0.004, -0.008, -0.001),
            0.01234,
            "greedy soup worse than best model by 0.4 Dice points [0.1, 0.8], p = 0.012, "
            "100 cases, 5 folds",
        ),
        (
            apart(0.001, -0.002, 0.004, cases=12, folds=2),
            0.4,
            "no difference shown between greedy soup and best model "
            "(+0.1 Dice points [-0.2, 0.4], p = 0.4, 12 cases, 2 folds)",
        ),
        (
            apart(-0.001, -0.004, 0.002, cases=12, folds=1),
            1.0,
            "no difference shown between greedy soup and best model "
            "(-0.1 Dice points [-0.4, 0.2], p = 1, 12 cases, 1 fold)",
        ),
        (
            apart(0.1, math.nan, math.nan, cases=5, folds=1),
            0.0625,
            "no difference shown between greedy soup and best model "
            "(+10.0 Dice points, p = 0.062, 5 cases, 1 fold; too few cases to tell)",
        ),
        (
            replace(apart(0.004, 0.001, 0.008, cases=12, folds=2), patients=9),
            0.03,
            "greedy soup better than best model by 0.4 Dice points [0.1, 0.8], p = 0.03, "
            "12 cases of 9 patients, 2 folds",
        ),
        (
            apart(0.1, math.nan, math.nan, cases=1, folds=1),
            1.0,
            "no difference shown between greedy soup and best model "
            "(+10.0 Dice points, p = 1, 1 case, 1 fold; too few cases to tell)",
        ),
        (
            apart(0.001, -0.002, 0.004, unequal=5),
            0.4,
            "no difference shown between greedy soup and best model "
            "(+0.1 Dice points [-0.2, 0.4], p = 0.4, 100 cases, 5 folds; "
            "too few cases differ to tell)",
        ),
        (
            apart(0, 0, 0, cases=12, folds=2, unequal=0),
            1.0,
            "greedy soup and best model score the same on all 12 cases",
        ),
        (
            apart(0, math.nan, math.nan, cases=1, folds=1, unequal=0),
            1.0,
            "greedy soup and best model score the same on the only case",
        ),
        (
            paired_difference([]),
            math.nan,
            "no case to compare greedy soup and best model on",
        ),
    ],
)
def test_conclusion_says_better_worse_or_undecided(
    difference: Difference, p: float, sentence: str
) -> None:
    assert concluded(difference, p) == sentence


@pytest.mark.parametrize(
    ("difference", "p"),
    [
        (apart(0.004, 0.0, 0.008), 0.05),
        (apart(0.004, -0.001, 0.008), 0.01),
        (apart(-0.004, -0.008, 0.0), 0.01),
        (apart(0.004, math.nan, math.nan), math.nan),
    ],
)
def test_conclusion_better_needs_an_interval_without_zero(difference: Difference, p: float) -> None:
    assert concluded(difference, p).startswith("no difference shown")


def test_conclusion_of_a_wider_interval_names_it_and_says_what_a_narrower_one_would() -> None:
    level, usual = SIGNIFICANT / 4, apart(0.004, 0.001, 0.008)
    found = conclusion("a", "b", apart(0.004, -0.001, 0.009), 0.08, level, usual)
    assert found == (
        "no difference shown between a and b (+0.4 Dice points [-0.1, 0.9] (98.75 % interval), "
        "p = 0.08, 100 cases, 5 folds; the 95 % interval [0.1, 0.8] leaves out 0, but is not "
        "corrected for the others)"
    )
    found = conclusion("a", "b", apart(0.004, 0.002, 0.009), 0.04, level, usual)
    assert found == (
        "a better than b by 0.4 Dice points [0.2, 0.9] (98.75 % interval), p = 0.04, 100 cases, "
        "5 folds"
    )
    both = apart(0.004, -0.001, 0.009)
    assert "leaves out" not in conclusion("a", "b", both, 0.5, level, both)


@pytest.mark.parametrize(
    ("numbers", "amount"),
    [
        ((0.0043, 0.0041, 0.0044), "0.43 Dice points [0.41, 0.44]"),
        ((0.004, 0.0004, 0.008), "0.40 Dice points [0.04, 0.80]"),
        ((0.00004, 0.00002, 0.00008), "0.004 Dice points [0.002, 0.008]"),
        ((0.005, 0.000001, 0.01), "0.500 Dice points [0.000, 1.000]"),
        ((1e-9, 1e-10, 1e-8), "less than 0.001 Dice points"),
        ((0.1234, 0.0512, 0.2), "12.3 Dice points [5.1, 20.0]"),
    ],
)
def test_conclusion_has_as_many_decimals_as_the_interval_needs(
    numbers: tuple[float, float, float], amount: str
) -> None:
    assert f"by {amount}, p" in concluded(apart(*numbers), 0.01)


def test_conclusion_never_prints_minus_zero() -> None:
    assert "-0.0" not in concluded(apart(0.001, -0.000001, 0.004), 0.2)


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.000999, "p < 0.001"),
        (0.001, "p = 0.001"),
        (0.0096, "p = 0.01"),
        (0.0496, "p = 0.0496"),
        (0.04996, "p = 0.04996"),
        (0.0501, "p = 0.05"),
        (0.123, "p = 0.12"),
        (0.999, "p = 1"),
    ],
)
def test_p_is_rounded_but_stays_on_its_side_of_the_limit(p: float, words: str) -> None:
    assert f"{words}, 100 cases" in concluded(apart(0.004, 0.001, 0.008), p)


# Seeds


def test_the_spread_of_seeds_is_pooled_over_the_settings() -> None:
    scores = {
        ("dice", 0.1): {0: 0.80, 1: 0.82},
        ("dice", 0.2): {0: 0.70, 1: 0.74},
        ("focal", 0.1): {0: 0.10},
        ("focal", 0.2): {0: 0.60, 7: math.nan},
    }
    # Variances of two numbers: half the square of their distance.
    deviation = math.sqrt((0.02**2 / 2 + 0.04**2 / 2) / 2)
    found = seed_spread(scores)
    assert found == SeedSpread(2, 2, pytest.approx(deviation), pytest.approx(0.04))


def test_settings_with_more_seeds_weigh_more_in_the_spread() -> None:
    found = seed_spread({("a",): {0: 1.0, 1: 3.0}, ("b",): {2: 0.0, 3: 0.0, 4: 0.0, 5: 0.0}})
    assert found is not None
    assert found.deviation == pytest.approx(math.sqrt((2.0 * 1 + 0.0 * 3) / 4))
    assert found.seeds == 6


@pytest.mark.parametrize("scores", [{}, {("a",): {0: 0.5}, ("b",): {1: 0.7}}])
def test_without_a_second_seed_there_is_no_spread(scores: dict) -> None:
    assert seed_spread(scores) is None


# Hyperparameters


def grid(rates: Sequence[float], losses: Sequence[str]) -> dict[str, dict[str, object]]:
    return {
        f"{rate}{loss}": {"optimizer.lr": rate, "training.loss": loss}
        for rate, loss in itertools.product(rates, losses)
    }


def additive(settings: dict[str, dict[str, object]], effects: dict[object, float]) -> dict:
    """Two folds in which every value adds its own to each case, whatever the others are."""
    base = {0: np.array([0.5, 0.6, 0.7]), 1: np.array([0.2, 0.4, 0.6, 0.8])}
    return {
        fold: {
            trial: cases + sum(effects[value] for value in swept.values())
            for trial, swept in settings.items()
        }
        for fold, cases in base.items()
    }


def by_case(folds: Mapping[int, NDArray[np.float64]]) -> Difference:
    """Each case is a patient's only one."""
    return paired_difference(list(folds.values()))


GAINS = {0.1: 0.0, 0.2: 0.01, 0.4: 0.03, "dice": 0.0, "focal": -0.05}


def test_effect_recovers_what_a_value_adds() -> None:
    trials = grid([0.1, 0.2, 0.4], ["dice", "focal"])
    effects = marginal_effects(additive(trials, GAINS), trials, by_case)
    assert [(effect.key, effect.value, effect.reference) for effect in effects] == [
        ("optimizer.lr", 0.1, 0.1),
        ("optimizer.lr", 0.2, 0.1),
        ("optimizer.lr", 0.4, 0.1),
        ("training.loss", "dice", "dice"),
        ("training.loss", "focal", "dice"),
    ]
    for effect in effects:
        if effect.value == effect.reference:
            assert (effect.difference, effect.pairs) == (None, 0)
        else:
            assert effect.difference is not None
            assert effect.difference.mean == pytest.approx(GAINS[effect.value])
            assert (effect.difference.cases, effect.difference.folds) == (7, 2)
    assert [effect.trials for effect in effects] == [2, 2, 2, 3, 3]
    assert [effect.pairs for effect in effects] == [0, 2, 2, 0, 3]
    assert effects[3].mean - effects[4].mean == pytest.approx(0.05)
    # The mean of the seven cases, and what dice (half of the trials) and 0.2 add to them.
    assert effects[1].mean == pytest.approx(3.8 / 7 + 0.01 - 0.025)


def test_a_case_is_compared_by_its_mean_over_the_pairs() -> None:
    trials = grid([0.1, 0.2], ["dice", "focal"])
    scores = {
        0: {
            "0.1dice": np.array([0.5, 0.5]),
            "0.2dice": np.array([0.6, 0.4]),
            "0.1focal": np.array([0.5, math.nan]),
            "0.2focal": np.array([0.9, 0.9]),
        }
    }
    (_, effect) = effects_of("optimizer.lr", 0.1, scores, trials, by_case)
    assert effect.difference == paired_difference([np.array([(0.1 + 0.4) / 2, -0.1])])


def test_effect_compares_only_trials_that_agree_in_all_other_keys() -> None:
    trials = grid([0.1, 0.2], ["dice", "focal"])
    del trials["0.1focal"]
    effects = marginal_effects(additive(trials, GAINS), trials, by_case)
    rate = next(effect for effect in effects if effect.value == 0.2)
    # The means are of unlike trials, of which half have the worse loss: -0.015.
    assert rate.pairs == 1 and rate.trials == 2
    assert rate.difference is not None
    assert rate.difference.mean == pytest.approx(0.01)


def test_effect_without_matched_trials_is_nan() -> None:
    trials = grid([0.1, 0.2], ["dice", "focal"])
    del trials["0.1focal"], trials["0.2dice"]
    effects = marginal_effects(additive(trials, GAINS), trials, by_case)
    assert [effect.difference for effect in effects] == [None] * 4


def test_a_trial_without_scores_is_left_out_where_they_are_missing() -> None:
    trials = grid([0.1, 0.2], ["dice", "focal"])
    scores = additive(trials, GAINS)
    del scores[0]["0.2dice"], scores[0]["0.2focal"], scores[1]["0.2focal"]
    effects = marginal_effects(scores, trials, by_case)
    rate = next(effect for effect in effects if effect.value == 0.2)
    assert rate.trials == rate.pairs == 1
    assert rate.difference is not None
    assert (rate.difference.folds, rate.difference.cases) == (1, 4)


def test_any_value_can_be_the_reference_and_comes_first() -> None:
    key = "optimizer.schedule"
    trials = {name: {key: name} for name in ["cosine", "schedule-free", "step"]}
    scores = {
        0: {
            "cosine": np.array([0.5, 0.7]),
            "schedule-free": np.array([0.6, 0.9]),
            "step": np.array([0.3, 0.3]),
        }
    }
    effects = effects_of(key, "schedule-free", scores, trials, by_case)
    assert [effect.value for effect in effects] == ["schedule-free", "cosine", "step"]
    assert effects[1].difference == paired_difference([np.array([-0.1, -0.2])])
    assert effects_of(key, "none", scores, trials, by_case)[0].difference is None


def test_effect_compares_values_that_are_lists_by_their_elements() -> None:
    key = "optimizer.betas"
    trials = {"a": {key: [0.9, 0.99]}, "b": {key: [0.9, 0.999]}, "c": {key: [0.9, 0.99]}}
    scores = {0: {trial: np.array([0.5, 0.6]) for trial in trials}}
    first, second = marginal_effects(scores, trials, by_case)
    assert (first.value, first.trials) == ([0.9, 0.99], 2)
    assert (second.value, second.trials, second.pairs) == ([0.9, 0.999], 1, 2)


def test_a_key_with_one_value_has_no_effect() -> None:
    trials = {"a": {"optimizer.lr": 0.1, "training.seed": 0}}
    assert marginal_effects({0: {"a": np.array([0.5, 0.6])}}, trials, by_case) == []


# Published numbers

RANKSEG = Path(__file__).parents[3] / "shared/data/scores/rankseg/evidence"


@pytest.fixture(scope="module")
def rankseg() -> dict[str, NDArray[np.float64]]:
    """Public data set -> differences in Dice of its cases (rankseg-nnunet-benchmark)."""
    if not RANKSEG.is_dir():
        pytest.skip(f"the published scores are not at {RANKSEG}")
    rows = pd.read_csv(RANKSEG / "full16/case_paired_deltas.csv")
    groups = rows.groupby("dataset_id")["delta_dice"]
    return {str(name): values.to_numpy() for name, values in groups}


@pytest.fixture(scope="module")
def rankseg_means(rankseg: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Data set -> published difference of its means, each of which is one over regions."""
    table = pd.read_csv(RANKSEG / "full16/dataset_summary.csv").set_index("dataset_id")
    return {name: float(table["delta_dice"][name]) for name in rankseg}


@pytest.mark.real_data
def test_p_values_are_the_published_ones(rankseg_means: dict[str, float]) -> None:
    published = json.loads((RANKSEG / "full16/aggregate_summary.json").read_text())["dice"]
    deltas = np.array([*rankseg_means.values()])
    found = paired_difference([deltas])
    assert found.cases == 16 and found.mean == pytest.approx(published["mean_delta"], abs=1e-9)
    assert found.p == pytest.approx(published["wilcoxon_two_sided_p"], rel=1e-9)
    # Of differences of one size, the signed-rank test is the sign test.
    signs = paired_difference([np.sign(deltas)])
    assert signs.p == pytest.approx(published["exact_two_sided_sign_test_p"], rel=1e-9)


@pytest.mark.real_data
def test_intervals_are_near_the_published_ones(
    rankseg: dict[str, NDArray[np.float64]], rankseg_means: dict[str, float]
) -> None:
    # Theirs is a mean over regions first, which is another one where a region is missing in some
    # cases.
    compared = 0
    for name, cases in rankseg.items():
        found = paired_difference([cases])
        if len(cases) < 60 or abs(found.mean - rankseg_means[name]) > 1e-9:
            continue
        summary = json.loads((RANKSEG / f"datasets/{name}/summary.json").read_text())
        theirs = summary["metrics"]["paired_case_bootstrap_delta"]["dice"]
        width = theirs["upper"] - theirs["lower"]
        assert found.low == pytest.approx(theirs["lower"], abs=0.2 * width), name
        assert found.high == pytest.approx(theirs["upper"], abs=0.2 * width), name
        compared += 1
    assert compared == 8
