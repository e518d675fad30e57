"""Optimizers, schedules, and which weights are evaluated and saved."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from references.schedule_free import schedule_free
from voxelsoup.study.sections.training import Optimizer, ScheduleName
from voxelsoup.training.optimizers import RunOptimizer

STEPS, LR = 40, 0.1
SCALER = torch.amp.GradScaler("cpu", enabled=False)


def run(settings: Optimizer, steps: int = STEPS) -> tuple[nn.Module, RunOptimizer, list[float]]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer, rates = RunOptimizer(model, settings, steps), []
    for _ in range(steps):
        rates.append(optimizer.lr)
        model.zero_grad()
        model(torch.randn(8, 4)).pow(2).mean().backward()
        optimizer.step(SCALER)
    return model, optimizer, rates


DATA = np.random.default_rng(0).normal(size=(8, 4))


def slope(weights: np.ndarray) -> np.ndarray:
    """Gradient of the mean squared distance of ``DATA @ weights`` from 1."""
    return 2 / len(DATA) * (DATA @ weights - 1) @ DATA


def descend(settings: Optimizer, steps: int, start: np.ndarray) -> tuple[nn.Linear, RunOptimizer]:
    model = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(start)[None])
    optimizer = RunOptimizer(model, settings, steps)
    for _ in range(steps):
        optimizer.optimizer.zero_grad()
        (model(torch.tensor(DATA)) - 1).pow(2).mean().backward()
        optimizer.step(SCALER)
    return model, optimizer


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("momentum", [0.9, 0.5])
@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])
def test_averaged_weights_are_those_of_the_paper(
    name: str, momentum: float, warmup: int, decay: float
) -> None:
    settings = Optimizer(  # type: ignore[call-arg]
        name=name, lr=0.05, momentum=momentum, warmup_steps=warmup, weight_decay=decay
    )
    start = np.array([0.5, -1.0, 2.0, 0.0])
    average, point = schedule_free(settings, STEPS, start, slope)
    model, optimizer = descend(settings, STEPS, start)
    trained = model.weight.detach().clone()
    np.testing.assert_allclose(trained[0].numpy(), point, rtol=1e-9, atol=1e-12)
    with optimizer.averaged_weights():
        np.testing.assert_allclose(model.weight[0].detach().numpy(), average, rtol=1e-9, atol=1e-12)
        z = optimizer.optimizer.state[model.weight]["z"]
        expected = trained + (z - trained) * (1 - 1 / momentum)
        torch.testing.assert_close(model.weight.detach(), expected)
    assert not np.allclose(average, point)
    assert torch.equal(model.weight, trained)


def test_before_the_first_step_the_average_is_the_start() -> None:
    model, optimizer = descend(Optimizer(), 0, np.arange(4.0))
    with optimizer.averaged_weights():
        assert model.weight[0].tolist() == [0, 1, 2, 3]


def test_an_error_inside_the_block_puts_the_trained_weights_back() -> None:
    model, optimizer = descend(Optimizer(lr=LR), 3, np.arange(4.0))
    trained = model.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), optimizer.averaged_weights():
        raise KeyboardInterrupt
    assert torch.equal(model.weight, trained)
    optimizer.step(SCALER)


def test_looking_at_the_average_changes_nothing() -> None:
    settings = Optimizer(name="adamw", lr=LR)
    looked, optimizer, _ = run(settings)
    for _ in range(5):
        with optimizer.averaged_weights():
            pass
    plain, _, _ = run(settings)
    assert torch.equal(looked.weight, plain.weight)


def test_without_schedule_free_the_trained_weights_are_the_ones() -> None:
    model, optimizer, _ = run(Optimizer(name="adamw", schedule="cosine", lr=LR))
    before = model.weight.detach().clone()
    with optimizer.averaged_weights():
        assert torch.equal(model.weight, before)


EXPECTED = {
    "constant": lambda t: 1.0,
    "cosine": lambda t: (1 + math.cos(math.pi * t / STEPS)) / 2,
    "polynomial": lambda t: (1 - t / STEPS) ** 0.9,
    "multi-step": lambda t: 0.1 ** ((t >= 20) + (t >= 30)),
    "cosine-warmup": lambda t: (
        (t + 1) / 11 if t < 10 else (1 + math.cos(math.pi * (t - 10) / 30)) / 2
    ),
    "cosine-warmup-restarts": lambda t: (
        (t + 1) / 11 if t < 10 else (1 + math.cos(math.pi * ((t - 10) % 10) / 10)) / 2
    ),
}


@pytest.mark.parametrize("schedule", EXPECTED)
@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])
def test_schedules_follow_their_formulas(name: str, schedule: str) -> None:
    settings = Optimizer(name=name, schedule=schedule, lr=LR, warmup_steps=10)
    _, _, rates = run(settings)
    assert rates == pytest.approx([LR * EXPECTED[schedule](t) for t in range(STEPS)], rel=1e-6)


def test_every_schedule_of_the_study_is_tested() -> None:
    assert {"schedule-free", *EXPECTED} == set(get_args(ScheduleName))


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("schedule", get_args(ScheduleName))
@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])
def test_runs_shorter_than_their_warm_up_still_train(name: str, schedule: str, steps: int) -> None:
    settings = Optimizer(name=name, schedule=schedule, lr=LR, warmup_steps=10)  # type: ignore[arg-type]
    model, _, rates = run(settings, steps)
    assert all(0 <= rate <= LR for rate in rates)
    assert torch.isfinite(model.weight).all()


@pytest.mark.parametrize("milestones", [[0.25], [0.1, 0.5, 0.9]])
def test_multi_step_lowers_the_rate_at_its_milestones(milestones: list[float]) -> None:
    settings = Optimizer(schedule="multi-step", lr=LR, milestones=milestones, gamma=0.5)
    _, _, rates = run(settings)
    expected = [LR * 0.5 ** sum(t >= share * STEPS for share in milestones) for t in range(STEPS)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("restarts", [1, 2, 4])
def test_restarts_are_periods_of_equal_length(restarts: int) -> None:
    settings = Optimizer(schedule="cosine-warmup-restarts", lr=LR, restarts=restarts)
    _, _, rates = run(settings)
    assert [t for t, rate in enumerate(rates) if rate == pytest.approx(LR)] == list(
        range(0, STEPS, STEPS // restarts)
    )


def test_a_schedule_free_run_does_not_wait_for_torch_s_compiler() -> None:
    code = """
import sys, torch
from voxelsoup.training.optimizers import RunOptimizer
from voxelsoup.study.sections.training import Optimizer
model = torch.nn.Linear(2, 1)
run = RunOptimizer(model, Optimizer(), 5)
model(torch.ones(1, 2)).sum().backward()
run.step(torch.amp.GradScaler("cpu", enabled=False))
run.restore(run.state())
sys.exit("torch._dynamo" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
