"""Patches for training: every patch is a function of the run's seed and its own number."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch

from voxelsoup.data.preprocessing.intensities import rescale
from voxelsoup.data.preprocessing.store import PreprocessedCase, load_case
from voxelsoup.data.regions import UNKNOWN
from voxelsoup.models import devices
from voxelsoup.study.sections.data import Intensities
from voxelsoup.study.sections.training import Training
from voxelsoup.study.study import Study
from voxelsoup.training.augment import augment
from voxelsoup.training.data_workers import read_batches
from voxelsoup.training.targets import CERTAIN, EnsembleTargets

# Of the random numbers that choose channels to drop.
DROPOUT = 1


@dataclass(frozen=True)
class PatchSource:
    """What the patches of a run are drawn from: sorted ``cases`` of a ``folder``.

    ``ignored`` is the label value of voxels that nobody annotated, ``dropout`` the share of patches
    of which one channel is filled with zeros; ``constants`` are what a channel's voxels are
    normalised by when they are read, if it has any. ``not_annotated`` are the regions that nobody
    annotated in a case, of the cases that have such regions.
    """

    folder: Path
    cases: list[str]
    regions: dict[str, list[int]]
    training: Training
    seed: tuple[int, ...]
    ignored: int | None = None
    dropout: float = 0.0
    constants: tuple[Intensities | None, ...] = ()
    not_annotated: Mapping[str, Sequence[str]] = field(default_factory=dict)
    targets: EnsembleTargets | None = None

    @classmethod
    def of(
        cls,
        study: Study,
        cases: Iterable[str],
        folder: Path,
        seed: tuple[int, ...],
        targets: EnsembleTargets | None = None,
    ) -> Self:
        """What a fold's patches of some cases are drawn from (``with_intensities``)."""
        ignored = study.dataset.ignore_label
        dropout = study.dataset.accept.dropout
        constants = tuple(study.preprocess.constants(study.dataset.channels))
        drawn = cls(folder, sorted(cases), study.regions, study.training, seed)
        hidden = {case: study.not_annotated_in(case) for case in drawn.cases}
        return replace(
            drawn,
            ignored=ignored,
            dropout=dropout,
            constants=constants,
            not_annotated={case: regions for case, regions in hidden.items() if regions},
            targets=targets,
        )

    def case_of(self, number: int) -> tuple[str, np.random.Generator]:
        """The case of a patch, and what the rest of the patch is drawn with."""
        random = np.random.default_rng([*self.seed, number])
        return self.cases[random.integers(len(self.cases))], random


class Patches:
    """Patches by number. Number 17 is the same patch in any process and in any order."""

    def __init__(self, source: PatchSource) -> None:
        self.source = source
        self._opened: dict[str, PreprocessedCase] = {}
        self._targets: dict[str, np.ndarray] = {}

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image, float32 (channel, x, y, z), and label values, uint8 (1, x, y, z).

        With an ensemble's targets its probabilities follow the label values: (1 + region, x, y, z).
        """
        images, labels = self.__getitems__([number])
        return images[0], labels[0]

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch, which the loader asks for at once: images and labels, with the batch first.

        Patches go from the disk's cache straight to their place in the batch. NumPy's memory
        comes in huge pages, which for batches costs a fraction of torch's. Labels become regions
        on the device that trains: until then they are a twelfth of the bytes.
        """
        drawn = [self._drawn(number) for number in numbers]
        patch, channels = self.source.training.patch, len(drawn[0][0].image)
        images = np.empty((len(drawn), channels, *patch), np.float32)
        asked, regions = self.source.targets, self.source.regions
        maps = 1 if asked is None else 1 + len(regions)
        labels = np.empty((len(drawn), maps, *patch), np.uint8)

        def read(place: int) -> None:
            case, window = drawn[place]
            read_patch(case.image, window, images[place])
            rescale(images[place], self.source.constants)
            labels[place, 0] = case.label[window]
            if asked is not None:
                labels[place, 1:] = self._target(case.name)[(slice(None), *window)]

        devices.parallel_map(read, range(len(drawn)), images[0].size, torch.device("cpu"))
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _drawn(self, number: int) -> tuple[PreprocessedCase, tuple[slice, ...]]:
        name, random = self.source.case_of(number)
        case = self._case(name)
        return case, self._window(case, random)

    def _case(self, name: str) -> PreprocessedCase:
        # Opened when first drawn: the first step need not wait for hundreds of files.
        if name not in self._opened:
            case = load_case(self.source.folder, name)
            # Values that are ignored or declared background are no foreground, nor are those that
            # only regions that nobody annotated in this case have.
            hidden, regions = self.source.not_annotated.get(name, ()), self.source.regions.items()
            named = sorted({value for n, values in regions if n not in hidden for value in values})
            case.foreground = case.foreground[np.isin(case.foreground[:, 0], named)]
            self._opened[name] = case
        return self._opened[name]

    def _target(self, name: str) -> np.ndarray:
        assert self.source.targets is not None
        if name not in self._targets:
            self._targets[name] = self.source.targets.of(name)
        return self._targets[name]

    def _window(self, case: PreprocessedCase, random: np.random.Generator) -> tuple[slice, ...]:
        patch = np.array(self.source.training.patch)
        room = np.array(case.label.shape) - patch
        start = random.integers(0, room + 1)
        if random.random() < self.source.training.foreground_share and len(case.foreground):
            # A label value first, so that small structures are seen as often as large ones.
            values = case.foreground[:, 0]
            value = random.choice(np.unique(values))
            voxel = random.choice(case.foreground[values == value])[1:]
            start = np.clip(voxel - patch // 2, 0, room)
        return tuple(slice(int(a), int(a + b)) for a, b in zip(start, patch, strict=True))


def batches(
    source: PatchSource,
    first_step: int,
    last_step: int,
    device: torch.device,
    share: range | None = None,
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    """Augmented batches of steps ``first_step`` to ``last_step`` - 1; to be exhausted, or closed.

    The batch of a step depends on the seed and the step's number alone: not on the workers, nor
    on where the run began. ``share`` names the places of each batch that are read and given.

    Yields:
        Images (batch, channel, x, y, z) and regions (batch, region, x, y, z) on ``device``: 0, 1,
        and ``UNKNOWN`` where nobody annotated; with an ensemble's targets any number from 0 to 1.

    Raises:
        InputError, WorkerLost: as ``data_workers.read_batches``.
    """
    size = source.training.batch_size
    own = range(size) if share is None else share
    numbers = _numbers(range(first_step, last_step), size, own)
    pinned, workers = device.type == "cuda", source.training.workers
    stream = read_batches(Patches(source), numbers, len(own), workers, pinned)
    with closing(stream):
        for step, (images, labels) in enumerate(stream, start=first_step):
            batch = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            yield _prepared(source, step, *batch, own)


def _prepared(
    source: PatchSource, step: int, images: torch.Tensor, labels: torch.Tensor, own: range
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augmented images, and regions, of what was read for these places of a step's batch."""
    training, size = source.training, source.training.batch_size
    generator = torch.Generator()
    generator.manual_seed(mixed_seed([*source.seed, step]))
    if len(own) < size:
        images, labels = _in_place(images, own, size), _in_place(labels, own, size)
    preset, mirrored = training.augmentation, training.mirror_axes
    augment(images, labels, preset, generator, mirrored, training.rotate_about)
    if source.dropout:
        drop_channels(images, source.dropout, [*source.seed, step])
    kept = slice(own.start, own.stop)
    regions = regions_of(labels[kept], list(source.regions.values()))
    numbers = [step * size + place for place in own]
    if source.targets is not None:
        mix_targets(regions, labels[kept, 1:], source, numbers)
    if source.ignored is not None:
        regions.masked_fill_(labels[kept, :1] == source.ignored, UNKNOWN)
    if source.not_annotated:
        hide_regions(regions, source, numbers)
    return images[kept], regions


def mix_targets(
    regions: torch.Tensor,
    probabilities: torch.Tensor,
    source: PatchSource,
    numbers: Iterable[int],
) -> None:
    """Bring the ensemble's probabilities into the regions of the patches of some numbers, in place.

    ``regions`` are float32 and ``probabilities`` uint8 up to ``CERTAIN``, both
    (batch, region, x, y, z).
    """
    targets = source.targets
    assert targets is not None
    for sample, number in enumerate(numbers):
        case, _ = source.case_of(number)
        share = 1.0 if case in targets.unlabelled else targets.share
        regions[sample].mul_(1 - share).add_(probabilities[sample], alpha=share / CERTAIN)


def hide_regions(regions: torch.Tensor, source: PatchSource, numbers: Iterable[int]) -> None:
    """Make regions that nobody annotated ``UNKNOWN`` in all of their case's patches, in place.

    ``regions`` (batch, region, x, y, z) are those of the patches of these ``numbers``.
    """
    places = {region: place for place, region in enumerate(source.regions)}
    for sample, number in enumerate(numbers):
        case, _ = source.case_of(number)
        for region in source.not_annotated.get(case, ()):
            regions[sample, places[region]] = UNKNOWN


def drop_channels(images: torch.Tensor, share: float, seed: Sequence[int]) -> None:
    """Fill one channel of a share of the samples (batch, channel, x, y, z) with zeros, in place.

    Random by ``seed`` alone, so that what else is drawn for a step stays as it was.
    """
    random = np.random.default_rng([*seed, DROPOUT])
    dropped = random.random(len(images)) < share
    channels = random.integers(0, images.shape[1], len(images))
    for sample in np.flatnonzero(dropped).tolist():
        images[sample, channels[sample]] = 0


def regions_of(labels: torch.Tensor, regions: Sequence[Sequence[int]]) -> torch.Tensor:
    """Regions of label maps, on their device, each by its label values.

    From uint8 (batch, 1, x, y, z) to zeros and ones, float32 (batch, region, x, y, z).
    """
    result = labels.new_empty((len(labels), len(regions), *labels.shape[2:]), dtype=torch.float32)

    def fill(place: tuple[int, int]) -> None:
        sample, region = place
        label, (first, *others) = labels[sample, 0], regions[region]
        # Comparing bytes is faster than looking them up in a table of 256, and into bytes ten
        # times as fast as into booleans.
        inside, has_value = torch.empty_like(label), torch.empty_like(label)
        torch.eq(label, first, out=inside)
        for value in others:
            inside |= torch.eq(label, value, out=has_value)
        result[place] = inside

    places = list(itertools.product(range(len(labels)), range(len(regions))))
    devices.parallel_map(fill, places, labels[0].numel(), labels.device)
    return result


def _numbers(steps: range, size: int, places: range) -> Sequence[int]:
    if len(places) == size:
        return range(steps.start * size, steps.stop * size)
    return [step * size + place for step in steps for place in places]


def _in_place(own: torch.Tensor, places: range, size: int) -> torch.Tensor:
    """A batch of (batch, ...) with samples at their places, and zeros at those of others.

    What augmentation draws for a sample depends on its place among all of them.
    """
    batch = own.new_zeros((size, *own.shape[1:]))
    batch[places.start : places.stop] = own
    return batch


def read_patch(image: np.ndarray, window: tuple[slice, ...], place: np.ndarray) -> None:
    """Read a patch of a stored image, float32 or float16 (channel, x, y, z), into ``place``."""
    voxels = image[(slice(None), *window)]
    if voxels.dtype == np.float32:
        np.copyto(place, voxels)
    else:
        # Torch converts float16 with the processor's own instructions, NumPy without.
        torch.from_numpy(place).copy_(torch.from_numpy(np.array(voxels)))


def mixed_seed(numbers: Sequence[int]) -> int:
    """One seed out of several numbers, mixed so that neighbours share nothing."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
