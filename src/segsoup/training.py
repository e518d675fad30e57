"""One run: a model trained on the training cases of one fold."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from segsoup import checkpoints, devices, networks
from segsoup.batches import Draw, batches
from segsoup.errors import InputError
from segsoup.losses import training_loss
from segsoup.optimizers import RunOptimizer
from segsoup.study import Optimizer, Study

log = logging.getLogger(__name__)

# Batches over which running statistics are taken anew for the averaged weights.
BATCH_NORM_BATCHES = 20


@dataclass(frozen=True)
class Run:
    """What one run trains.

    Attributes:
        study: the study with the run's own settings in place.
        optimizer: its optimizer (a stem may have another one than the trials).
        epochs: its length.
        seed: seeds of its patches and augmentation; the first also of its initial weights.
        cases: names of its training cases.
        folder: the preprocessed cases.
        initial: model file to start from, or None for random weights.
    """

    study: Study
    optimizer: Optimizer
    epochs: int
    seed: tuple[int, ...]
    cases: list[str]
    folder: Path
    initial: Path | None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.study.training.steps_per_epoch

    def settings(self) -> dict[str, Any]:
        """The settings that its result hangs on, with all defaults."""
        study = self.study.model_dump(mode="json")
        kept = {key: study[key] for key in ("regions", "preprocess", "network", "training")}
        return {**kept, "optimizer": self.optimizer.model_dump(mode="json")}

    @property
    def draw(self) -> Draw:
        """What its patches are drawn from."""
        return Draw(
            self.folder, sorted(self.cases), self.study.regions, self.study.training, self.seed
        )


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind: the weights to evaluate, and one row per epoch."""

    weights: checkpoints.Weights
    history: pd.DataFrame
    parameter_count: int


def initial_model(run: Run, device: torch.device) -> nn.Module:
    """The model that a run starts from: random by its seed, or a given model file.

    Raises:
        InputError: if the file does not fit the network.
    """
    study = run.study
    with networks.seeded(run.seed[0]):
        model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
    if run.initial is not None:
        weights, _ = checkpoints.load(run.initial)
        checkpoints.fit(model, weights, run.initial)
    return model.to(device)


def train(run: Run, device: torch.device) -> Trained:
    """Train a run from start to end.

    Raises:
        InputError: if the loss is no number any more, or the initial weights do not fit.
    """
    settings = run.study.training
    model = initial_model(run, device).train()
    optimizer = RunOptimizer(model, run.optimizer, run.steps)
    step = _make_step(run, model, optimizer, device)
    stream = batches(run.draw, 0, run.steps, device)
    rows = []
    for epoch in range(1, run.epochs + 1):
        rows.append(_epoch(epoch, settings.steps_per_epoch, stream, step, optimizer))
        log.info("epoch %d of %d: loss %.4f", epoch, run.epochs, rows[-1]["training_loss"])
    with optimizer.averaged_weights():
        estimate_batch_norm(model, run.draw, device)
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return Trained(weights, pd.DataFrame(rows), networks.count_parameters(model))


def estimate_batch_norm(model: nn.Module, draw: Draw, device: torch.device) -> None:
    """Take a network's running statistics anew for the weights it holds now, if it has any."""
    if networks.has_batch_norm(model):
        update_bn((images for images, _ in batches(draw, 0, BATCH_NORM_BATCHES, device)), model)


def _epoch(
    epoch: int,
    steps: int,
    stream: Iterator[tuple[torch.Tensor, torch.Tensor]],
    step: Any,
    optimizer: RunOptimizer,
) -> dict[str, float]:
    lr = optimizer.lr
    # Losses stay on the device until the epoch ends: fetching one waits for the device.
    losses = torch.stack([step(*next(stream)) for _ in range(steps)])
    mean = float(losses.double().mean())
    if not math.isfinite(mean):
        raise InputError(
            f"epoch {epoch}",
            "the training loss is no number any more",
            "a finite loss",
            "lower `optimizer.lr`, set `training.gradient_clip`, or add `optimizer.warmup_steps`",
        )
    return {"epoch": epoch, "step": epoch * steps, "training_loss": mean, "lr": lr}


def _make_step(run: Run, model: nn.Module, optimizer: RunOptimizer, device: torch.device) -> Any:
    """A function that takes one optimizer step on a batch and returns its loss."""
    settings = run.study.training
    loss_function = training_loss(settings)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")

    def step(images: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        optimizer.optimizer.zero_grad(set_to_none=True)
        with devices.autocast(device, settings.precision):
            logits = model(images)
        loss: torch.Tensor = loss_function(logits, regions)
        scaler.scale(loss).backward()
        if settings.gradient_clip is not None:
            scaler.unscale_(optimizer.optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizer.step(scaler)
        return loss.detach()

    return step
