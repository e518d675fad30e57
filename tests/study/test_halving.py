"""Successive halving: how many trials continue, what that saves, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.runs import small_study
from voxelsoup.common.errors import InputError
from voxelsoup.study.halving import (
    kept_of,
    rung_epochs,
    share_of_epochs,
    trials_at_rungs,
)
from voxelsoup.study.sections.sweep import Halving
from voxelsoup.study.trials import trials

halvings = st.builds(Halving, rungs=st.integers(2, 5), keep=st.floats(0.05, 0.95))


def test_a_third_of_the_trials_continues_at_each_of_three_rungs() -> None:
    halving = Halving(rungs=3, keep=0.33)
    assert rung_epochs(halving, 90) == [10, 30, 90]
    assert trials_at_rungs(halving, 100) == [100, 33, 11]
    # 100 x 10 + 33 x 20 + 11 x 60 epochs instead of 100 x 90.
    assert share_of_epochs(halving, 90, 100) == pytest.approx(2320 / 9000)


@given(halvings, st.integers(1, 2000))
def test_at_least_one_trial_continues_and_never_more_than_before(
    halving: Halving, count: int
) -> None:
    counts = trials_at_rungs(halving, count)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 1
    assert all(now >= halving.keep * before - 1e-6 for before, now in pairwise(counts))


@given(halvings, st.integers(1, 1000), st.integers(1, 500))
def test_halving_never_costs_more_than_the_full_grid(
    halving: Halving, epochs: int, count: int
) -> None:
    assert rung_epochs(halving, epochs)[-1] == epochs
    assert share_of_epochs(halving, epochs, count) <= 1 + 1e-12


def test_a_share_that_is_a_whole_number_is_not_rounded_up() -> None:
    # In binary, 0.07 x 100 is a little more than 7.
    assert kept_of(Halving(rungs=2, keep=0.07), 100) == 7


@pytest.mark.parametrize(
    ("grid", "epochs", "said"),
    [
        (
            {"optimizer.schedule": ["schedule-free", "cosine"]},
            9,
            "learning rates depend on its len",
        ),
        ({"training.epochs": [9, 18]}, 9, "trials of one length"),
        ({"optimizer.lr": [0.01, 0.02]}, 2, "end after epochs 1, 1, 2"),
    ],
)
def test_trials_that_cannot_be_halved_are_refused_with_the_reason(
    grid: dict[str, list[Any]], epochs: int, said: str
) -> None:
    halving = {"rungs": 3, "keep": 0.33}
    study = small_study(training={"epochs": epochs}, sweep={"grid": grid, "halving": halving})
    with pytest.raises(InputError, match=said):
        trials(study)
