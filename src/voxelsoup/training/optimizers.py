"""Optimizers and learning-rate schedules, and the one place where averaged weights come out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import schedulefree
import torch
from torch import nn
from torch.optim import lr_scheduler

from voxelsoup.study.sections.training import Optimizer

# On their first call torch imports its compiler, which takes longer than torch itself, only to
# exclude these methods from compilation. Nothing here compiles an optimizer. (torch's own
# optimizers import it nevertheless, in their first step.)
for method in ("add_param_group", "state_dict", "load_state_dict"):
    plain = inspect.unwrap(getattr(torch.optim.Optimizer, method))
    vars(plain).setdefault("__dynamo_disable", plain)


class RunOptimizer:
    """An optimizer with its schedule, over the weights of one model.

    A schedule-free optimizer holds two sets of weights: the ones it takes gradients at and
    their running average, which is the one to evaluate and to save (Defazio et al., The Road
    Less Scheduled, 2024). Nothing outside this class switches between them.
    """

    def __init__(self, model: nn.Module, settings: Optimizer, steps: int) -> None:
        """Set up for a run of so many steps, which a schedule-free optimizer does not need."""
        self.model = model
        self.is_schedule_free = settings.schedule == "schedule-free"
        self.optimizer = make_optimizer(model.parameters(), settings)
        self.schedule = None
        if self.is_schedule_free:
            self._switch(to_average=False)
        else:
            self.schedule = make_schedule(self.optimizer, settings, steps)

    @property
    def lr(self) -> float:
        """Learning rate of the next step (of the last one, if schedule-free, for its warm-up)."""
        group = self.optimizer.param_groups[0]
        return float(group["scheduled_lr"] if self.is_schedule_free else group["lr"])

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """One step along the (scaled) gradients, and one of the schedule."""
        scaler.step(self.optimizer)
        scaler.update()
        if self.schedule is not None:
            self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the model's weights; not a copy."""
        schedule = None if self.schedule is None else self.schedule.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from what ``state`` returned; the model must hold the weights of that moment."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within the block the model holds the weights to evaluate and to save.

        Afterwards the trained ones are bit-identical again, which switching back by arithmetic
        would not give: a run must not depend on how often it was looked at.
        """
        if not self.is_schedule_free:
            yield
            return
        trained = [parameter.detach().clone() for parameter in self.model.parameters()]
        self._switch(to_average=True)
        try:
            yield
        finally:
            self._switch(to_average=False)
            with torch.no_grad():
                for parameter, value in zip(self.model.parameters(), trained, strict=True):
                    parameter.copy_(value)

    def _switch(self, to_average: bool) -> None:
        if to_average:
            self.optimizer.eval()  # type: ignore[attr-defined]
        else:
            self.optimizer.train()  # type: ignore[attr-defined]


def make_optimizer(
    parameters: Iterable[nn.Parameter], settings: Optimizer
) -> torch.optim.Optimizer:
    """The optimizer alone: from ``schedulefree``, or from torch for the scheduled baselines."""
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    betas = (settings.momentum, settings.second_beta)
    warmup: dict[str, Any] = {"warmup_steps": settings.warmup_steps}
    if settings.schedule == "schedule-free":
        if settings.name == "adamw":
            return schedulefree.AdamWScheduleFree(parameters, betas=betas, **warmup, **common)
        if settings.name == "radam":
            return schedulefree.RAdamScheduleFree(parameters, betas=betas, **common)
        return schedulefree.SGDScheduleFree(
            parameters, momentum=settings.momentum, **warmup, **common
        )
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, betas=betas, **common)
    if settings.name == "radam":
        return torch.optim.RAdam(parameters, betas=betas, decoupled_weight_decay=True, **common)
    return torch.optim.SGD(
        parameters, momentum=settings.momentum, nesterov=settings.momentum > 0, **common
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: Optimizer, steps: int
) -> lr_scheduler.LRScheduler:
    """A scheduled baseline's learning-rate schedule over ``steps`` steps, all of them torch's."""
    warmup = min(settings.warmup_steps, steps - 1) if "warmup" in settings.schedule else 0
    after = steps - warmup
    if settings.schedule == "constant":
        main: lr_scheduler.LRScheduler = lr_scheduler.ConstantLR(optimizer, factor=1.0)
    elif settings.schedule == "polynomial":
        main = lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=settings.power)
    elif settings.schedule == "multi-step":
        milestones = [round(share * steps) for share in settings.milestones]
        main = lr_scheduler.MultiStepLR(optimizer, milestones, gamma=settings.gamma)
    elif settings.schedule == "cosine-warmup-restarts":
        period = max(1, -(-after // settings.restarts))
        main = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=period)
    else:
        main = lr_scheduler.CosineAnnealingLR(optimizer, T_max=after)
    if not warmup:
        return main
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup])
