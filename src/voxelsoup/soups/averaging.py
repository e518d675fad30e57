"""Averages of models: exact, in float64, and one file at a time.

A `WeightedAverage` says which model files take part with which weight: what every recipe of a soup
comes down to, and enough to make the soup again, bit-identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from voxelsoup.models import weight_files
from voxelsoup.models.weight_files import Weights


@dataclass(frozen=True)
class WeightedModel:
    """One model of a weighted average.

    Attributes:
        weight: its share of the average; all shares sum to 1.
    """

    path: Path
    sha256: str
    weight: float


WeightedAverage = Sequence[WeightedModel]


def equal_parts(files: Sequence[tuple[Path, str]]) -> list[WeightedModel]:
    """The plain average of files (path, hash)."""
    return [WeightedModel(path, digest, 1 / len(files)) for path, digest in files]


class RunningSum:
    """Sum of models, one at a time: float64, so that order and number do not show.

    Integer buffers (step counters) cannot be averaged; the first model's are kept.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: Weights = {}
        self._kept: Weights = {}

    def add(self, path: Path, factor: float = 1.0) -> None:
        """Add one model file times a factor."""
        for name, value in weight_files.stream(path):
            if not value.is_floating_point():
                self._kept.setdefault(name, value.clone())
            elif name in self._sums:
                # The product is taken in the type of the sum.
                self._sums[name].add_(value, alpha=factor)
            else:
                self._kept[name] = torch.empty(0, dtype=value.dtype)
                self._sums[name] = value.double() * factor
        self.count += 1

    def average_with(self, path: Path | None = None) -> Weights:
        """The mean of what was added, and of a further file if one is given, as stored."""
        result = {n: v.clone() for n, v in self._kept.items() if n not in self._sums}
        if path is None:
            means = ((name, total / self.count) for name, total in self._sums.items())
        else:
            means = (
                (name, self._sums[name].add(value).div_(self.count + 1))
                for name, value in weight_files.stream(path)
                if name in self._sums
            )
        result |= {name: mean.to(self._kept[name].dtype) for name, mean in means}
        return result

    def total(self) -> Weights:
        """The sum of what was added, in the stored types."""
        return {
            name: self._sums[name].to(kept.dtype) if name in self._sums else kept.clone()
            for name, kept in self._kept.items()
        }


def average(parts: WeightedAverage) -> Weights:
    """The average itself, in the stored types; reads every file once.

    Equal weights are summed before they are divided, so that the average of equal models is
    that model, bit-identical.
    """
    total = RunningSum()
    if len({part.weight for part in parts}) == 1:
        for part in parts:
            total.add(part.path)
        return total.average_with()
    for part in parts:
        total.add(part.path, part.weight)
    return total.total()
