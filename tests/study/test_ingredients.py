"""Which weights of a run are ingredients: their names, and that a crash does not change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support.runs import preprocess_phantom, small_run, small_study
from voxelsoup.common.errors import InputError
from voxelsoup.runs.resume_state import State
from voxelsoup.study.ingredients import (
    averaged_already,
    checkpoint_steps,
    ingredients_of,
    models_of,
    written_beside,
)
from voxelsoup.study.trials import trials
from voxelsoup.training.run import stem_run
from voxelsoup.training.train import train

CPU = torch.device("cpu")
BOTH = {"weights": ["averaged", "raw"]}


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)


class Memory:
    """Keeps the state after one step, and may begin with one."""

    def __init__(self, at: int = 0, state: State | None = None) -> None:
        self.at, self.state = at, state

    def newest(self) -> State | None:
        return self.state

    def after_epoch(self, rows: list[dict[str, float]]) -> None:
        pass

    def after_step(self, step: int, capture: Callable[[], State]) -> None:
        if step == self.at:
            self.state = {**capture(), "step": step}

    def save(self, step: int, capture: Callable[[], State]) -> None:
        pass


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_checkpoints_lie_at_equal_distances_and_the_last_at_the_end() -> None:
    assert checkpoint_steps(100, 4) == [25, 50, 75, 100]
    assert checkpoint_steps(7, 2) == [3, 7]


def test_by_default_the_only_ingredient_of_a_trial_is_its_model() -> None:
    study = small_study()
    (trial,) = trials(study)
    assert written_beside(study) == []
    assert ingredients_of(trial) == models_of(trial) == [trial.id]


def test_the_model_of_a_trial_may_be_the_best_one_even_where_it_is_no_ingredient() -> None:
    study = small_study(training={"checkpoints": 2}, soup={"weights": ["raw"]})
    (trial,) = trials(study)
    assert ingredients_of(trial) == [f"{trial.id}/raw-1", f"{trial.id}/raw-2"]
    assert models_of(trial) == [trial.id, f"{trial.id}/raw-1", f"{trial.id}/raw-2"]


@pytest.mark.parametrize("weights", [["averaged"], ["raw"], ["averaged", "raw"]])
def test_no_weights_of_a_scheduled_run_count_twice(weights: list[str]) -> None:
    optimizer = {"lr": 0.01, "schedule": "constant"}
    study = small_study(optimizer=optimizer, training={"checkpoints": 2}, soup={"weights": weights})
    (trial,) = trials(study)
    assert ingredients_of(trial) == [trial.id, f"{trial.id}/{weights[0]}-1"]
    beside = {f"{trial.id}/{name}" for name in written_beside(study)}
    assert set(ingredients_of(trial)) - {trial.id} <= beside


@pytest.mark.parametrize(
    ("schedule", "weights", "averaged"),
    [
        ("schedule-free", ["averaged"], True),
        ("schedule-free", ["averaged", "raw"], False),
        ("cosine", ["averaged"], False),
    ],
)
def test_only_schedule_free_weights_are_averages_already(
    schedule: str, weights: list[str], averaged: bool
) -> None:
    (trial,) = trials(small_study(optimizer={"schedule": schedule}, soup={"weights": weights}))
    assert averaged_already(trial) == averaged


def test_files_of_a_run_have_the_names_of_the_plan(
    cases: tuple[Path, list[str]],
) -> None:
    for weights in (["averaged"], ["raw"], ["averaged", "raw"]):
        study = small_study(training={"checkpoints": 2}, soup={"weights": weights})
        trained = train(small_run(study, *cases), CPU)
        assert sorted(trained.beside) == sorted(written_beside(study))


def test_an_intermediate_average_is_that_of_a_shorter_run(cases: tuple[Path, list[str]]) -> None:
    long = train(small_run(small_study(training={"checkpoints": 2}, soup=BOTH), *cases), CPU)
    plain = train(small_run(small_study(), *cases), CPU)
    short = train(small_run(small_study(training={"epochs": 1}, soup=BOTH), *cases), CPU)
    assert equal(long.beside["averaged-1"], short.weights)
    assert equal(long.beside["raw-1"], short.beside["raw-1"])
    assert not equal(short.beside["raw-1"], short.weights)
    # A run does not depend on how often it was looked at.
    assert equal(long.weights, plain.weights)


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("killed_after", [2, 3, 5])
def test_a_resumed_run_leaves_the_same_ingredients(
    cases: tuple[Path, list[str]], killed_after: int, norm: str | None
) -> None:
    changes: dict[str, Any] = {"training": {"checkpoints": 2}, "soup": BOTH}
    if norm:
        arguments = {"channels": [4, 8], "strides": [2], "norm": norm, "dropout": 0.2}
        changes["network"] = {"size": "S", "name": "UNet", "arguments": arguments}
    run = small_run(small_study(**changes), *cases)
    memory = Memory(at=killed_after)
    whole = train(run, CPU, memory)
    resumed = train(run, CPU, Memory(state=memory.state))
    assert list(resumed.beside) == list(whole.beside) != []
    for name, weights in whole.beside.items():
        assert equal(resumed.beside[name], weights)
    assert equal(resumed.weights, whole.weights)


def test_running_statistics_belong_to_each_checkpoint(cases: tuple[Path, list[str]]) -> None:
    arguments = {"channels": [4, 8], "strides": [2], "norm": "batch"}
    study = small_study(
        network={"size": "S", "name": "UNet", "arguments": arguments},
        training={"checkpoints": 2},
        soup=BOTH,
    )
    trained = train(small_run(study, *cases), CPU)
    name = next(name for name in trained.weights if name.endswith("running_mean"))
    means = [weights[name] for weights in [trained.weights, *trained.beside.values()]]
    assert all(not torch.equal(one, other) for i, one in enumerate(means) for other in means[:i])


def test_only_passed_checkpoints_belong_to_a_runs_identity(
    cases: tuple[Path, list[str]],
) -> None:
    folder, names = cases
    plain = small_run(small_study(), *cases).settings()
    assert small_run(small_study(soup=BOTH), *cases).settings() == plain
    study = small_study(training={"checkpoints": 2})
    assert small_run(study, *cases).settings() != plain
    assert (
        stem_run(study, 0, names, folder).settings()
        == stem_run(small_study(), 0, names, folder).settings()
    )


def test_more_checkpoints_than_steps_are_refused() -> None:
    with pytest.raises(InputError, match="checkpoints"):
        small_study(training={"checkpoints": 7})
