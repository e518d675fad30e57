"""From a sweep to trials with ids that stay."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from voxelsoup.common.errors import InputError
from voxelsoup.study.loading import load
from voxelsoup.study.study import Study
from voxelsoup.study.trials import (
    model_labels,
    parameters_of,
    readable,
    swept_keys,
    trial_id,
    trial_label,
    trial_labels,
    trials,
)

DOCS = Path(__file__).parents[2] / "docs"
VALUES: dict[str, list[Any]] = {
    "optimizer.lr": [0.001, 0.01, 0.1],
    "optimizer.weight_decay": [0.0, 0.5],
    "training.seed": [0, 1, 2],
    "training.loss": ["dice", "dice-bce"],
}
AXES: dict[str, dict[str, list[Any]]] = {
    "optimizer.lr": {"log-uniform": [1e-4, 1e-1]},
    "optimizer.momentum": {"uniform": [0.1, 0.99]},
    "training.epochs": {"uniform": [10, 500]},
    "training.loss": {"choice": ["dice", "dice-bce", "dice-focal"]},
}


def grids_of(keys: list[str]) -> st.SearchStrategy[dict[str, list[Any]]]:
    return st.dictionaries(st.sampled_from(keys), st.none(), min_size=1).flatmap(
        lambda chosen: st.fixed_dictionaries(
            {key: st.lists(st.sampled_from(VALUES[key]), min_size=1, unique=True) for key in chosen}
        )
    )


grids = grids_of(sorted(VALUES))
# One more way to name each kind of trial; all keys differ, so that any two of them go together.
blocks = st.fixed_dictionaries(
    {},
    optional={
        "grid": grids_of(["optimizer.lr", "training.loss"]),
        "zip": st.just({"optimizer.weight_decay": [0.1, 0.2], "optimizer.gamma": [0.3, 0.4]}),
        "random": st.fixed_dictionaries(
            {
                "count": st.integers(1, 4),
                "seed": st.integers(0, 3),
                "axes": st.just({"optimizer.momentum": {"uniform": [0.1, 0.99]}}),
            }
        ),
        "trials": st.just([{"training.epochs": 7}, {"optimizer.power": 2, "training.epochs": 7}]),
        "repeats": st.integers(1, 3),
    },
)


def study(grid: dict[str, list[Any]] | None = None, **sections: Any) -> Study:
    """A study with a grid, or another sweep, and other sections."""
    sweep = {"grid": grid} if grid is not None else {}
    return load(
        {
            "dataset": {"channels": ["t1n"]},
            "regions": {"WT": [1]},
            "results": "there is no such folder",
            "sweep": sweep,
            **sections,
        }
    )


def ids(grid: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    return ids_of({"grid": grid})


def ids_of(sweep: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trial.id: trial.parameters for trial in trials(study(sweep=sweep))}


def sampled(count: int, axes: dict[str, Any] = AXES, seed: int = 0) -> list[dict[str, Any]]:
    sweep = {"random": {"count": count, "seed": seed, "axes": axes}}
    return [trial.parameters for trial in trials(study(sweep=sweep))]


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


@given(grids, st.data())
def test_a_grid_split_into_blocks_names_the_same_trials(
    grid: dict[str, list[Any]], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(grid)))
    middle = data.draw(st.integers(1, len(grid[key])))
    # The parts may overlap: what both name is one trial.
    parts = [grid | {key: part} for part in (grid[key][:middle], grid[key][middle - 1 :])]
    assert ids_of({"also": [{"grid": part} for part in parts]}) == ids(grid)
    assert ids_of({"grid": parts[0], "also": [{"grid": parts[1]}]}) == ids(grid)
    single = [{"trials": [values]} for values in ids(grid).values()]
    assert ids_of({"also": single}) == ids(grid)


@given(st.lists(blocks, min_size=1, max_size=4), st.randoms())
def test_the_order_of_blocks_renames_nothing(found: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(found, len(found))
    assert ids_of({**found[0], "also": found[1:]}) == ids_of({"also": shuffled})


@given(blocks)
def test_further_samples_trials_and_blocks_keep_trial_ids(block: dict[str, Any]) -> None:
    before = ids_of(block).items()
    repeats = block.get("repeats", 1)
    assert before <= ids_of({**block, "repeats": repeats + 2}).items()
    if "random" in block:
        more = block["random"] | {"count": block["random"]["count"] + 3}
        assert before <= ids_of({**block, "random": more}).items()
    # Without any other trial the study's own settings are one, and only then.
    if block.keys() - {"repeats"}:
        singles = [*block.get("trials", []), {"optimizer.second_beta": 0.5}]
        assert before <= ids_of({**block, "trials": singles}).items()
        further = {"grid": {"training.batch_size": [3, 4]}}
        assert before <= ids_of({**block, "also": [further]}).items()


@given(grids, st.data())
def test_an_exclusion_removes_only_its_matches(
    grid: dict[str, list[Any]], data: st.DataObject
) -> None:
    entry = {
        key: data.draw(st.sampled_from(values))
        for key, values in grid.items()
        if data.draw(st.booleans())
    }
    left = {
        trial: values
        for trial, values in ids(grid).items()
        if not entry or any(values[key] != value for key, value in entry.items())
    }
    if entry and left:
        assert ids_of({"grid": grid, "exclude": [entry]}) == left


EXCLUSIONS: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    ({"optimizer.lr": {"above": "1e-2"}}, lambda values: values["optimizer.lr"] > 0.01),
    ({"optimizer.lr": {"below": 0.01}}, lambda values: values["optimizer.lr"] < 0.01),
    ({"optimizer.lr": {"above": 0.005, "below": 0.05}}, lambda v: v["optimizer.lr"] == 0.01),
    ({"optimizer.lr": [0.1, "1e-3"]}, lambda values: values["optimizer.lr"] != 0.01),
    ({"optimizer.lr": 0.1, "training.loss": "dice"}, lambda v: (*v.values(),) == (0.1, "dice")),
    # No trial names the seed, but all have one.
    ({"optimizer.lr": 0.1, "training.seed": 0}, lambda values: values["optimizer.lr"] == 0.1),
]


@pytest.mark.parametrize(("entry", "matches"), EXCLUSIONS)
def test_exclusions_know_values_lists_and_ranges(
    entry: dict[str, Any], matches: Callable[[dict[str, Any]], bool]
) -> None:
    grid = {key: VALUES[key] for key in ("optimizer.lr", "training.loss")}
    kept = [values for values in ids(grid).values() if not matches(values)]
    assert list(ids_of({"grid": grid, "exclude": [entry]}).values()) == kept


def test_an_exclusion_may_name_values_that_are_not_allowed() -> None:
    grid = {"optimizer.schedule": ["schedule-free", "constant"], "optimizer.momentum": [0, 0.9]}
    with pytest.raises(InputError, match="needs a `momentum` above 0"):
        ids(grid)
    excluded = {"optimizer.schedule": "schedule-free", "optimizer.momentum": 0}
    assert len(ids_of({"grid": grid, "exclude": [excluded]})) == 3


def test_keys_of_a_zip_move_together() -> None:
    together = {"optimizer.lr": [0.1, 0.2], "training.epochs": [3, 4]}
    sweep = {"grid": {"training.loss": ["dice", "dice-bce"]}, "zip": together}
    found = [tuple(values.values()) for values in ids_of(sweep).values()]
    assert found == [("dice", 0.1, 3), ("dice", 0.2, 4), ("dice-bce", 0.1, 3), ("dice-bce", 0.2, 4)]
    assert ids_of(sweep | {"zip": [together]}) == ids_of(sweep)
    two = [{key: values} for key, values in together.items()]
    assert ids_of({"zip": two}) == ids(together)


def test_repeats_are_seeds_and_the_first_is_the_trial_without_repeats() -> None:
    base = {"seed": 5}
    found = trials(study(sweep={"grid": {"optimizer.lr": [0.5]}, "repeats": 3}, training=base))
    assert [trial.parameters for trial in found] == [
        {"optimizer.lr": 0.5},
        {"optimizer.lr": 0.5, "training.seed": 6},
        {"optimizer.lr": 0.5, "training.seed": 7},
    ]
    assert [trial.study.training.seed for trial in found] == [5, 6, 7]
    assert [trial.study.training.seed for trial in trials(study(sweep={"repeats": 2}))] == [0, 1]


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 9), st.randoms())
def test_more_samples_begin_with_the_same_in_any_order_of_the_axes(
    count: int, further: int, seed: int, random: Any
) -> None:
    shuffled = dict(random.sample(list(AXES.items()), len(AXES)))
    assert sampled(count + further, shuffled, seed)[:count] == sampled(count, AXES, seed)


def test_samples_of_another_axis_do_not_move_those_of_the_first() -> None:
    alone = sampled(20, {"optimizer.lr": AXES["optimizer.lr"]})
    assert [{"optimizer.lr": s["optimizer.lr"]} for s in sampled(20)] == alone
    assert sampled(20, seed=1) != sampled(20)


def test_the_samples_of_a_seed_never_change() -> None:
    # Trained models depend on these ids: a change here would retrain what exists.
    assert [list(sample.values()) for sample in sampled(3)] == [
        [0.0004475, 0.397, 146, "dice"],
        [0.0005529, 0.9037, 167, "dice"],
        [0.001172, 0.522, 374, "dice-focal"],
    ]


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.sampled_from(["uniform", "log-uniform"]))
def test_samples_lie_in_their_range_with_four_digits(
    low: float, factor: float, distribution: str
) -> None:
    axes = {"optimizer.power": {distribution: [low, low * factor]}}
    for sample in sampled(3, axes):
        value = sample["optimizer.power"]
        assert low <= value <= low * factor
        assert value in (low, low * factor) or value == float(f"{value:.4g}")


def test_samples_have_the_distribution_that_they_name() -> None:
    found = sampled(3000)
    rates = [math.log(sample["optimizer.lr"]) for sample in found]
    width = math.log(1e-1) - math.log(1e-4)
    assert kstest(rates, "uniform", args=(math.log(1e-4), width)).pvalue > 0.01
    momenta = [sample["optimizer.momentum"] for sample in found]
    assert kstest(momenta, "uniform", args=(0.1, 0.89)).pvalue > 0.01
    losses = [sample["training.loss"] for sample in found]
    for loss in set(losses):
        assert 900 < losses.count(loss) < 1100
    epochs = [sample["training.epochs"] for sample in found]
    assert all(isinstance(number, int) for number in epochs)
    assert kstest([number + 0.5 for number in epochs], "uniform", args=(10, 491)).pvalue > 0.01
    # Whole numbers at the ends are as likely as others.
    few = sampled(
        3000, {"training.epochs": {"uniform": [1, 3]}, "optimizer.lr": {"uniform": [1, 2]}}
    )
    ends = [sample["training.epochs"] for sample in few]
    assert all(900 < ends.count(number) < 1100 for number in (1, 2, 3))


def test_samples_differ_also_where_there_are_few() -> None:
    losses = {"training.loss": AXES["training.loss"]}
    assert len(sampled(3, losses)) == 3
    with pytest.raises(InputError, match="only 3 different ones were found"):
        sampled(4, losses)


def test_another_choice_changes_only_the_samples_that_take_it() -> None:
    rates = {"optimizer.lr": AXES["optimizer.lr"]}
    two = sampled(50, rates | {"training.loss": {"choice": ["dice", "dice-bce"]}})
    three = sampled(50, rates | {"training.loss": {"choice": ["dice-focal", "dice-bce", "dice"]}})
    for before, after in zip(two, three, strict=True):
        assert after in (before, before | {"training.loss": "dice-focal"})


def test_trials_of_the_same_settings_are_one() -> None:
    base = {"optimizer": {"lr": 0.1}}
    sweep: dict[str, Any] = {
        "grid": {"optimizer.lr": [0.1, 0.2], "optimizer.weight_decay": [0.0, 0.5]},
        "also": [{"grid": {"optimizer.lr": [0.1, 0.3]}}, {"trials": [{}]}],
    }
    found = [trial.parameters for trial in trials(study(sweep=sweep, **base))]
    # The fewest keys stand for all: of (0.1, 0) the study itself.
    assert found == [
        {},
        {"optimizer.lr": 0.1, "optimizer.weight_decay": 0.5},
        {"optimizer.lr": 0.2, "optimizer.weight_decay": 0.0},
        {"optimizer.lr": 0.2, "optimizer.weight_decay": 0.5},
        {"optimizer.lr": 0.3},
    ]


def test_a_further_block_adds_an_axis_and_renames_nothing() -> None:
    finished = {"optimizer.lr": [0.1, 0.2]}
    wider = {"grid": finished | {"optimizer.weight_decay": [0.0, 0.5]}}
    added = ids_of({"grid": finished, "also": [wider]})
    assert ids(finished).items() <= added.items()
    assert len(added) == 4


@pytest.mark.parametrize("place", ["fold1/trials", ".state/fold0/trials"])
def test_a_begun_trial_is_kept_among_trials_of_the_same_settings(
    tmp_path: Path, place: str
) -> None:
    begun = {"optimizer.lr": 0.0027, "optimizer.weight_decay": 0.0}
    sweep = {"trials": [begun, {}], "also": [{"grid": {"optimizer.lr": [0.0027]}}]}
    (trial,) = trials(study(sweep=sweep, results=str(tmp_path)))
    assert trial.parameters == {}
    (tmp_path / place / trial_id(begun)).mkdir(parents=True)
    (trial,) = trials(study(sweep=sweep, results=str(tmp_path)))
    assert trial.parameters == begun


def test_the_same_number_written_otherwise_is_the_same_trial() -> None:
    assert ids({"optimizer.lr": ["1e-3"]}) == ids({"optimizer.lr": [0.001]})


def test_trial_ids_are_those_of_earlier_versions() -> None:
    assert list(
        ids({"optimizer.schedule": ["schedule-free", "constant"], "training.seed": [0]})
    ) == [
        "c06bf016",
        "0fcb7fe5",
    ]


def test_a_trial_s_study_has_its_values_in_place() -> None:
    (trial,) = trials(study({"optimizer.lr": [0.5], "training.loss": ["dice"]}))
    assert trial.study.optimizer.lr == 0.5
    assert trial.study.training.loss == "dice"
    assert readable(trial.parameters) == "lr=0.5,loss=dice"


def test_a_label_names_what_distinguishes_a_trial_by_the_shortest_key_that_is_unambiguous() -> None:
    grid = {"optimizer.lr": [0.03], "training.seed": [0, 1]}
    assert [*trial_labels(trials(study(grid))).values()] == ["seed 0", "seed 1"]
    # Of two keys with one last part, neither is shortened.
    keys = ["training.loss", "a.loss"]
    assert trial_label({"a.loss": None, "training.loss": True}, keys) == (
        "training.loss true, a.loss none"
    )
    assert trial_label({"training.loss": "dice"}, ["training.loss"]) == "loss dice"
    # A value that names its key needs no other name.
    schedules = {"optimizer.schedule": "schedule-free", "training.seed": 1}
    assert trial_label(schedules, [*schedules]) == "schedule-free, seed 1"
    assert [*trial_labels(trials(study({}))).values()] == ["base"]


def test_without_a_sweep_there_is_one_trial() -> None:
    assert len(trials(study({}))) == 1
    # A block without trials adds none to those of the others.
    assert len(ids_of({"also": [{"grid": {"optimizer.lr": [0.1, 0.2]}}, {}]})) == 2


def test_trials_with_other_keys_have_the_values_of_their_own_study() -> None:
    sweep = {
        "grid": {"optimizer.lr": [0.1, 0.2]},
        "also": [{"trials": [{"training.loss": "dice"}]}],
    }
    of_study = study(sweep=sweep, optimizer={"lr": 0.3})
    found = trials(of_study)
    assert swept_keys(found) == ["optimizer.lr", "training.loss"]
    assert [tuple(values.values()) for values in parameters_of(found).values()] == [
        (0.1, "dice-bce"),
        (0.2, "dice-bce"),
        (0.3, "dice"),
    ]
    last = found[-1].id
    labels = model_labels(of_study, [last, f"{last}/raw-1"])
    assert labels == {last: "lr 0.3, loss dice", f"{last}/raw-1": "lr 0.3, loss dice, raw-1"}


BOTH = {"optimizer.lr": [0.1]}
RANGE = {"training.loss": {"uniform": [0, 1]}}


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"grid": {"network.size": ["S", "B"]}}, "models of different networks cannot be averaged"),
        ({"grid": {"training.patch": [[32, 32, 32]]}}, "are padded to it"),
        ({"grid": {"optimizer.rate": [1]}}, "cannot be swept"),
        ({"grid": {"optimizer.lr": [0.1, "0.1"]}}, "`sweep.grid` names the combination"),
        ({"grid": {"optimizer.lr": [-1]}}, r"\(sweep.grid\).*`optimizer.lr`: .*greater than 0"),
        ({"grid": {"training.loss": ["dise"]}}, "did you mean `dice`"),
        ({"also": [{}, {"grid": {"optimizer.lr": [-1]}}]}, r"\(sweep.also\[1\].grid\)"),
        ({"also": [{"gird": {}}]}, r"`sweep.also\[0\].gird`: .*did you mean `grid`"),
        ({"zip": {"optimizer.lr": [1, 2], "training.seed": [1]}}, "need as many values"),
        ({"zip": {"optimizer.lr": []}}, "has no values"),
        ({"zip": {"optimizer.lr": [0.1, 0.1]}}, "`sweep.zip` names the combination"),
        ({"grid": BOTH, "zip": BOTH}, "`optimizer.lr` has two axes"),
        ({"trials": [{}, {}]}, "`sweep.trials` names the combination {} twice"),
        ({"trials": [{"optimizer.lr": [0.1]}]}, r"\(sweep.trials\).*valid number"),
        ({"trials": [{"optimizer.momentum": 0}]}, "`optimizer.momentum: 0.0`.*needs a `momentum`"),
        ({"grid": {"training.seed": [0, 1]}, "repeats": 2}, "`repeats` gives the seeds"),
        ({"trials": [{"training.seed": 1}], "repeats": 2}, "`repeats` gives the seeds"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"exclude": [BOTH]}, "has no trials to leave out"),
        ({"grid": BOTH, "exclude": [{}]}, "would leave out everything"),
        ({"grid": BOTH, "exclude": [{"optimizer.lr": 1}]}, r"`sweep.exclude\[0\]` matches no tr"),
        ({"grid": BOTH, "exclude": [{"optimizer.lr": 0.1}]}, "leaves out all 1 trials"),
        ({"grid": BOTH, "exclude": [{"optimizer.lr": {"over": 1}}]}, "gives `optimizer.lr` as"),
        ({"grid": BOTH, "exclude": [{"training.loss": {"above": 1}}]}, "gives `training.loss` as"),
        ({"grid": BOTH, "exclude": [{"optimizer.rate": 1}]}, "cannot be swept"),
        ({"random": {"axes": RANGE}}, "`sweep.random.count`: is missing"),
        ({"random": {"count": 2, "axes": {}}}, "at least 1 item"),
        ({"random": {"count": 2, "axes": RANGE}}, "`training.loss`.*but it is not a number"),
        ({"random": {"count": 2, "axes": {"optimizer.lr": {}}}}, "needs one of `uniform`"),
        ({"random": {"count": 2, "axes": {"optimizer.lr": {"choice": []}}}}, "to choose from"),
        ({"random": {"count": 2, "axes": {"optimizer.lr": {"uniform": [1]}}}}, "needs two numbers"),
        ({"random": {"count": 2, "axes": {"optimizer.lr": {"uniform": [2, 1]}}}}, "must be lower"),
        ({"random": {"count": 2, "axes": {"optimizer.lr": {"log-uniform": [0, 1]}}}}, "above 0"),
        ({"random": {"count": 2, "axes": {"optimizer.lr": {"uniform": [-1, 1]}}}}, "sweep.random"),
        (
            {"random": {"count": 1, "axes": {"training.epochs": {"uniform": [1.2, 1.8]}}}},
            "no integer",
        ),
        ({"random": {"count": 2, "axes": {"optimizer.lr": {"normal": [0, 1]}}}}, "'log-uniform'"),
    ],
)
def test_keys_that_cannot_be_swept_are_refused_with_the_reason(
    sweep: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        trials(study(sweep=sweep))
    assert re.search(said, str(refused.value), re.S), refused.value


@pytest.mark.parametrize(
    "example", re.findall(r"```yaml\n(.*?)```", (DOCS / "sweeps.md").read_text(), re.S)
)
def test_every_example_of_the_documentation_is_part_of_a_study(example: str) -> None:
    assert trials(study(**yaml.safe_load(example)))
