"""Sliding windows over a volume, blended, with memory bounded by the patch.

The windows, their Gaussian weights and the blending of logits are those of MONAI's
``sliding_window_inference`` (mode `gaussian`, sigma 0.125 of the patch). What differs is what is
held: windows march along x, and rows of voxels that no later window reaches are handed on at once,
so that sums and weights are held for one patch's depth only, and the image may be read row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import nn
from torch.nn import functional

Start = tuple[int, int, int]
# From windows (window, channel, x, y, z) to logits (window, region, x, y, z).
Network = Callable[[torch.Tensor], torch.Tensor]
# Rows (channel, stop - start, y, z) of an image along x, float32, on the device to compute on.
ReadRows = Callable[[int, int], torch.Tensor]
# Rows that are handed on at once, so that what is made of them takes little memory as well.
ROWS = 8
# Of the Gaussian, as a share of the patch.
SIGMA = 0.125


@dataclass(frozen=True)
class Windows:
    """How a volume is covered.

    Attributes:
        patch: window size in voxels (x, y, z).
        overlap: of neighbouring windows, as a share of the patch.
        every: also those in which the image is 0 everywhere; else their logits are -inf where no
            other window reaches.
    """

    patch: Sequence[int]
    overlap: float
    at_once: int
    every: bool = True

    def starts(self, shape: Sequence[int]) -> list[Start]:
        """First voxels (x, y, z) of all windows over a volume of at least the patch's size."""
        interval = [
            side if side == whole else max(1, int(side * (1 - self.overlap)))
            for side, whole in zip(self.patch, shape, strict=True)
        ]
        return [
            (int(x.start), int(y.start), int(z.start))
            for x, y, z in dense_patch_slices(list(shape), list(self.patch), interval)
        ]


class Covered(NamedTuple):
    """How far a volume is: windows that are behind, the empty ones of them, and all windows."""

    windows: int
    skipped: int
    total: int


def predict_rows(
    network: Network,
    regions: int,
    read: ReadRows,
    shape: Sequence[int],
    windows: Windows,
    report: Callable[[Covered], object] = lambda covered: None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Blended logits of a volume, a few rows along x after the other.

    Args:
        shape: voxels of the image (x, y, z), no side below the patch's.

    Yields:
        The first row, and logits (region, rows, y, z), float32; they may be changed, and hold
        until the next ones are asked for.
    """
    blend: _Blend | None = None
    for start, logits in _each_window(network, read, shape, windows, report):
        blend = blend or _Blend(regions, shape, windows, logits.device)
        # Windows come in the order of their first rows.
        yield from blend.finished(start[0])
        blend.add(start, logits)
    if blend is None:
        # Nothing was not 0.
        blend = _Blend(regions, shape, windows, read(0, 1).device)
    yield from blend.finished(shape[0])


def _each_window(
    network: Network,
    read: ReadRows,
    shape: Sequence[int],
    windows: Windows,
    report: Callable[[Covered], object] = lambda covered: None,
) -> Iterator[tuple[Start, torch.Tensor]]:
    """First voxels and logits (region, x, y, z) of the windows, which hold until the next ones.

    What is full of windows goes through the network, wherever along y and x they come from.
    """
    starts = windows.starts(shape)
    first, slab, batch = -1, torch.empty(0), torch.empty(0)
    skipped, waiting = 0, list[Start]()
    for number, start in enumerate(starts, 1):
        if start[0] != first:
            first = start[0]
            slab = read(first, first + windows.patch[0])
        window = slab[_place((0, *start[1:]), windows.patch)]
        if windows.every or bool(window.any()):
            waiting.append(start)
            if windows.at_once == 1:
                # Where it lies: to copy it would take as long as all the rest beside the network.
                batch = window[None].float()
            else:
                if not batch.numel():
                    # Once: to ask for new memory takes longer than to fill it.
                    most = min(windows.at_once, len(starts))
                    batch = window.new_empty((most, *window.shape), dtype=torch.float32)
                batch[len(waiting) - 1] = window
        else:
            skipped += 1
        if len(waiting) == windows.at_once or (waiting and number == len(starts)):
            with torch.inference_mode():
                logits = network(batch[: len(waiting)]).float()
            yield from zip(waiting, logits, strict=True)
            waiting.clear()
        report(Covered(number, skipped, len(starts)))


# The same for all cases of a study.
@lru_cache(maxsize=2)
def _importance(patch: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """MONAI's weights of a window's voxels (x, y, z)."""
    importance = compute_importance_map(patch, mode="gaussian", sigma_scale=SIGMA, device=device)
    assert isinstance(importance, torch.Tensor)
    return importance


def _place(start: Start, patch: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(s, s + side) for s, side in zip(start, patch, strict=True)))


class _Blend:
    """Weighted sums of logits, of the rows from ``row`` on that windows may still reach."""

    def __init__(
        self,
        regions: int,
        shape: Sequence[int],
        windows: Windows,
        device: torch.device,
        depth: int = 0,
    ) -> None:
        self.windows, self.row, self.depth = windows, 0, depth or windows.patch[0]
        self.sums = torch.zeros((regions, self.depth, *shape[1:]), device=device)
        self.weights = torch.zeros((1, self.depth, *shape[1:]), device=device)
        self.importance = _importance(tuple(windows.patch), device)

    def add(self, start: Start, logits: torch.Tensor) -> None:
        """Add a window's logits (region, x, y, z); it begins at or behind ``row``."""
        place = _place((start[0] - self.row, *start[1:]), self.windows.patch)
        self.sums[place].addcmul_(logits, self.importance)
        self.weights[place] += self.importance

    def finished(self, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Hand on the rows before ``stop``, which no window is going to reach any more."""
        row = self.row
        while row < stop:
            # Where windows were skipped, rows may lie behind all that was summed.
            if row - self.row == self.depth:
                self._move(self.depth)
            begin = row - self.row
            end = min(begin + ROWS, stop - self.row, self.depth)
            yield row, self._mean((slice(None), slice(begin, end)))
            row += end - begin
        if stop > self.row:
            self._move(stop - self.row)

    def _mean(self, place: tuple[slice, ...]) -> torch.Tensor:
        mean = self.sums[place].div_(self.weights[place])
        if not self.windows.every:
            mean.masked_fill_(self.weights[place] == 0, -torch.inf)
        return mean

    def _move(self, rows: int) -> None:
        """Let the sums begin so many rows later."""
        self.row += rows
        kept = max(0, self.depth - rows)
        for kind in (self.sums, self.weights):
            # By steps that do not overlap: a copy onto itself would need a copy of all.
            for low in range(0, kept, rows):
                high = min(low + rows, kept)
                kind[:, low:high] = kind[:, low + rows : high + rows]
            kind[:, kept:] = 0


def predict_logits(
    model: nn.Module,
    image: torch.Tensor,
    regions: int,
    patch: list[int],
    overlap: float,
    window_batch: int,
) -> torch.Tensor:
    """Blended logits (region, x, y, z), float32, of a volume (channel, x, y, z) in memory.

    ``overlap``: of neighbouring windows, as a share of the patch (x, y, z).
    """
    missing = [max(0, side - have) for side, have in zip(patch, image.shape[1:], strict=True)]
    before = [side // 2 for side in missing]
    pads = [pad for side, half in zip(missing, before, strict=True) for pad in (side - half, half)]
    padded = functional.pad(image, pads[::-1]) if any(missing) else image
    shape = padded.shape[1:]
    windows = Windows(patch, overlap, window_batch)
    # All rows are held anyway: sums become logits where they are.
    blend = _Blend(regions, shape, windows, image.device, shape[0])
    for start, one in _each_window(
        model, lambda start, stop: padded[:, start:stop], shape, windows
    ):
        blend.add(start, one)
    logits = blend.sums.div_(blend.weights)
    return logits[_place((before[0], before[1], before[2]), image.shape[1:])]
