"""Schedule-free optimizers: Defazio et al., The Road Less Scheduled, NeurIPS 2024, eqs. 1 to 3."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from voxelsoup.study.sections.training import Optimizer

Vector = NDArray[np.float64]


def schedule_free(
    settings: Optimizer, steps: int, start: Vector, slope: Callable[[Vector], Vector]
) -> tuple[Vector, Vector]:
    """x, y and z apart, as printed; the library keeps y and z only, and works x out of them.

    RAdam's rate follows Liu et al., On the variance of the adaptive learning rate, ICLR 2020.

    Args:
        settings: of a schedule-free optimizer.
        steps: optimizer steps.
        start: weights before the first step.
        slope: from weights to the gradient of the loss.

    Returns:
        The average x, and the point y at which gradients are taken, after the last step.
    """
    beta, second = settings.momentum, settings.second_beta
    x, z = start.copy(), start.copy()
    squares, largest, weight_sum = np.zeros_like(z), 0.0, 0.0
    for t in range(1, steps + 1):
        y = (1 - beta) * z + beta * x
        gradient = slope(y)
        lr = settings.lr
        if settings.name == "radam":
            longest = 2 / (1 - second) - 1
            length = longest - 2 * t * second**t / (1 - second**t)
            ratio = (length - 4) * (length - 2) * longest
            ratio /= (longest - 4) * (longest - 2) * length
            lr *= math.sqrt(ratio) if length > 4 else 0.0
        elif t <= settings.warmup_steps:
            lr *= t / settings.warmup_steps
        if settings.name != "sgd":
            squares = second * squares + (1 - second) * gradient**2
            if lr > 0:
                gradient = gradient / (np.sqrt(squares / (1 - second**t)) + 1e-8)
        z = z - lr * (gradient + settings.weight_decay * y)
        largest = max(largest, lr)
        weight_sum += largest**2
        share = largest**2 / weight_sum if weight_sum else 0.0
        x = (1 - share) * x + share * z
    return x, (1 - beta) * z + beta * x
