"""Optimizers, schedules, and which weights are evaluated and saved."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from segsoup.optimizers import RunOptimizer
from segsoup.study import Optimizer

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


@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])
def test_averaged_weights_are_the_running_average(name: str) -> None:
    """An oracle from the paper: with a constant rate, x is the plain mean of all z."""
    settings = Optimizer(name=name, lr=LR)
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False)
    optimizer, points = RunOptimizer(model, settings, STEPS), []
    for _ in range(STEPS):
        model.zero_grad()
        model(torch.randn(8, 4)).pow(2).mean().backward()
        optimizer.step(SCALER)
        points.append(optimizer.optimizer.state[model.weight]["z"].clone().double())
    weights = [g["weight_sum"] for g in optimizer.optimizer.param_groups]
    trained = model.weight.detach().clone()
    with optimizer.averaged_weights():
        averaged = model.weight.detach().clone()
    assert weights[0] > 0
    if name != "radam":
        mean = torch.stack(points).mean(dim=0)
        torch.testing.assert_close(averaged.double(), mean, rtol=1e-4, atol=1e-5)
    assert not torch.equal(averaged, trained)
    assert torch.equal(model.weight, trained)


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
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_schedules_follow_their_formulas(name: str, schedule: str) -> None:
    settings = Optimizer(name=name, schedule=schedule, lr=LR, warmup_steps=10)
    _, _, rates = run(settings)
    assert rates == pytest.approx([LR * EXPECTED[schedule](t) for t in range(STEPS)], rel=1e-6)
