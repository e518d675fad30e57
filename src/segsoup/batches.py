"""Patches for training: every patch is a function of the run's seed and its own number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from segsoup.augment import augment
from segsoup.interruption import ignore_signals
from segsoup.preprocessed import PreprocessedCase, load_case
from segsoup.regions import label_table, to_regions
from segsoup.study import Training


@dataclass(frozen=True)
class Draw:
    """What the patches of a run are drawn from.

    Attributes:
        folder: where the preprocessed cases lie.
        cases: names of the training cases, sorted.
        regions: region name -> label values.
        training: patch, batch size, foreground share, augmentation and workers.
        seed: seeds of the run (any number of whole numbers).
    """

    folder: Path
    cases: list[str]
    regions: dict[str, list[int]]
    training: Training
    seed: tuple[int, ...]


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patches by number. Number 17 is the same patch in any process and in any order."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.table = label_table(draw.regions)
        self._opened: dict[str, PreprocessedCase] = {}

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (channel, x, y, z) and regions (region, x, y, z), both float32."""
        images, regions = self.__getitems__([number])
        return images[0], regions[0]

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch, which the loader asks for at once: images and regions, with the batch first.

        Patches go from the disk's cache straight to their place in the batch. NumPy's memory
        comes in huge pages, which for batches costs a fraction of torch's.
        """
        drawn = [self._drawn(number) for number in numbers]
        patch, channels = self.draw.training.patch, len(drawn[0][0].image)
        images = np.empty((len(drawn), channels, *patch), np.float32)
        regions = np.empty((len(drawn), len(self.table), *patch), np.float32)
        for place, (case, window) in enumerate(drawn):
            read_patch(case.image, window, images[place])
            regions[place] = to_regions(np.asarray(case.label[window]), self.table)
        return torch.from_numpy(images), torch.from_numpy(regions)

    def _drawn(self, number: int) -> tuple[PreprocessedCase, tuple[slice, ...]]:
        random = np.random.default_rng([*self.draw.seed, number])
        case = self._case(self.draw.cases[random.integers(len(self.draw.cases))])
        return case, self._window(case, random)

    def _case(self, name: str) -> PreprocessedCase:
        # Opened when first drawn: the first step need not wait for hundreds of files.
        if name not in self._opened:
            self._opened[name] = load_case(self.draw.folder, name)
        return self._opened[name]

    def _window(self, case: PreprocessedCase, random: np.random.Generator) -> tuple[slice, ...]:
        patch = np.array(self.draw.training.patch)
        room = np.array(case.label.shape) - patch
        start = random.integers(0, room + 1)
        if random.random() < self.draw.training.foreground_share and len(case.foreground):
            # A label value first, so that small structures are seen as often as large ones.
            values = case.foreground[:, 0]
            value = random.choice(np.unique(values))
            voxel = random.choice(case.foreground[values == value])[1:]
            start = np.clip(voxel - patch // 2, 0, room)
        return tuple(slice(int(a), int(a + b)) for a, b in zip(start, patch, strict=True))


def batches(
    draw: Draw,
    first_step: int,
    last_step: int,
    device: torch.device,
    share: range | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented batches of steps ``first_step`` to ``last_step`` - 1.

    The batch of a step hangs on the seed and the step's number alone: not on the workers, nor
    on where the run began.

    Args:
        draw: what patches are drawn from.
        first_step: the first step's number.
        last_step: the number of the one after the last.
        device: where batches are augmented and given.
        share: which places of each batch are read and given; None: all.

    Yields:
        Images (batch, channel, x, y, z) and regions (batch, region, x, y, z) on ``device``.
    """
    size = draw.training.batch_size
    own = range(size) if share is None else share
    loader = DataLoader(
        Patches(draw),
        # Without one of its own the loader draws from torch's global random state.
        generator=torch.Generator(),
        worker_init_fn=_prepare_worker,
        batch_size=len(own),
        sampler=_numbers(range(first_step, last_step), size, own),
        collate_fn=_as_it_is,
        num_workers=draw.training.workers,
        pin_memory=device.type == "cuda",
        persistent_workers=draw.training.workers > 0,
    )
    for step, (images, regions) in enumerate(loader, start=first_step):
        generator = torch.Generator()
        generator.manual_seed(mixed_seed([*draw.seed, step]))
        images = images.to(device, non_blocking=True)
        regions = regions.to(device, non_blocking=True)
        if share is not None:
            images, regions = _in_place(images, own, size), _in_place(regions, own, size)
        images, regions = augment(images, regions, draw.training.augmentation, generator)
        kept = slice(own.start, own.stop)
        yield (images, regions) if share is None else (images[kept], regions[kept])


def _numbers(steps: range, size: int, places: range) -> Sequence[int]:
    """Numbers of the patches at some places of the batches of some steps."""
    if len(places) == size:
        return range(steps.start * size, steps.stop * size)
    return [step * size + place for step in steps for place in places]


def _in_place(own: torch.Tensor, places: range, size: int) -> torch.Tensor:
    """A batch of (batch, ...) with samples at their places, and zeros at those of others.

    What augmentation draws for a sample hangs on its place among all of them.
    """
    whole = own.new_zeros((size, *own.shape[1:]))
    whole[places.start : places.stop] = own
    return whole


def read_patch(image: np.ndarray, window: tuple[slice, ...], place: np.ndarray) -> None:
    """Read a patch of a stored image.

    Args:
        image: float32 or float16 (channel, x, y, z), on the disk.
        window: the patch's place in it (x, y, z).
        place: float32 (channel, x, y, z) of the patch's size, to be filled.
    """
    voxels = image[(slice(None), *window)]
    if voxels.dtype == np.float32:
        np.copyto(place, voxels)
    else:
        # Torch converts float16 with the processor's own instructions, NumPy without.
        torch.from_numpy(place).copy_(torch.from_numpy(np.array(voxels)))


def _as_it_is(batch: Any) -> Any:
    return batch


def _prepare_worker(_: int) -> None:
    ignore_signals()


def mixed_seed(numbers: Sequence[int]) -> int:
    """One seed out of several numbers, mixed so that neighbours share nothing."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
