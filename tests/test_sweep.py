"""From a sweep to trials with ids that stay."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segsoup.errors import InputError
from segsoup.study import Study, load
from segsoup.sweep import readable, trials

VALUES = {
    "optimizer.lr": [0.001, 0.01, 0.1],
    "optimizer.weight_decay": [0.0, 0.5],
    "training.seed": [0, 1, 2],
    "training.loss": ["dice", "dice-bce"],
}
grids = st.dictionaries(st.sampled_from(sorted(VALUES)), st.none(), min_size=1).flatmap(
    lambda keys: st.fixed_dictionaries(
        {key: st.lists(st.sampled_from(VALUES[key]), min_size=1, unique=True) for key in keys}
    )
)


def study(grid: dict[str, list[Any]]) -> Study:
    return load(
        {
            "dataset": {"channels": ["t1n"]},
            "regions": {"WT": [1]},
            "sweep": {"grid": grid},
        }
    )


def ids(grid: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    return {trial.id: trial.parameters for trial in trials(study(grid))}


@given(grids)
def test_every_combination_is_one_trial(grid: dict[str, list[Any]]) -> None:
    found = [tuple(trial.parameters.values()) for trial in trials(study(grid))]
    assert found == list(itertools.product(*grid.values()))


@given(grids, st.randoms())
def test_order_does_not_rename_trials(grid: dict[str, list[Any]], random: Any) -> None:
    keys = list(grid)
    random.shuffle(keys)
    shuffled = {key: random.sample(grid[key], len(grid[key])) for key in keys}
    assert ids(shuffled) == ids(grid)


@given(grids)
def test_new_values_do_not_rename_trials(grid: dict[str, list[Any]]) -> None:
    more = {key: VALUES[key] for key in grid}
    assert ids(grid).items() <= ids(more).items()


def test_the_same_number_written_otherwise_is_the_same_trial() -> None:
    assert ids({"optimizer.lr": ["1e-3"]}) == ids({"optimizer.lr": [0.001]})


def test_the_values_are_put_in_place() -> None:
    (trial,) = trials(study({"optimizer.lr": [0.5], "training.loss": ["dice"]}))
    assert trial.study.optimizer.lr == 0.5
    assert trial.study.training.loss == "dice"
    assert readable(trial.parameters) == "lr=0.5,loss=dice"


def test_without_a_sweep_there_is_one_trial() -> None:
    assert len(trials(study({}))) == 1


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"network.size": ["S", "B"]}, "models of different networks cannot be averaged"),
        ({"training.patch": [[32, 32, 32]]}, "are padded to it"),
        ({"optimizer.rate": [1]}, "cannot be swept"),
        ({"optimizer.lr": [0.1, "0.1"]}, "twice"),
        ({"optimizer.lr": [-1]}, "greater than 0"),
    ],
)
def test_what_cannot_be_swept_is_refused_with_the_reason(
    grid: dict[str, list[Any]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        trials(study(grid))
