"""Augmentation of whole batches in plain torch, on the device that trains.

Ranges and probabilities follow nnU-Net (Isensee et al. 2021, supplementary note 4).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional

from voxelsoup.models import devices
from voxelsoup.study.sections.training import ALL_AXES, AugmentationPreset, Axis
from voxelsoup.training.affine import rotate


@dataclass(frozen=True)
class Strength:
    """How often (probability per sample) and how far a preset changes its input."""

    flip: float = 0.0
    intensity: float = 0.0
    affine: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    low_resolution: float = 0.0


PRESETS: dict[AugmentationPreset, Strength] = {
    "none": Strength(),
    "flips-intensity": Strength(flip=0.5, intensity=1.0),
    "affine-contrast": Strength(flip=0.5, intensity=1.0, affine=0.3, contrast=0.15, gamma=0.3),
    "full": Strength(
        flip=0.5,
        intensity=1.0,
        affine=0.3,
        contrast=0.15,
        gamma=0.3,
        noise=0.1,
        blur=0.2,
        low_resolution=0.25,
    ),
}

ROTATION = math.radians(30)
ZOOM = (0.7, 1.4)
INTENSITY_SCALE = (0.9, 1.1)
INTENSITY_SHIFT = (-0.1, 0.1)
CONTRAST = (0.75, 1.25)
GAMMA = (0.7, 1.5)
NOISE_DEVIATION = (0.0, 0.3)
BLUR_SIGMA = (0.5, 1.0)
LOW_RESOLUTION = (0.5, 1.0)

# Of a matrix along an axis, that are multiplied together on the CPU.
ROWS_TOGETHER = 16


@dataclass(frozen=True)
class Drawn:
    """What is drawn for a batch; each part names the samples that it changes.

    Plain numbers, so that a GPU is handed them with its kernels and waits for nothing.

    Attributes:
        affine: sample -> angles about x, y and z in radians, and zoom.
        flips: sample -> mirrored axes, 0 to 2.
        noise: sample -> standard deviation, and the seed of the first channel's noise.
        blur: sample -> sigma in voxels.
        intensity: sample -> factor and shift of each channel.
        contrast: sample -> factor of each channel.
        low_resolution: sample -> share of the voxels that is left along each axis.
        gamma: sample -> exponent of each channel.
    """

    affine: dict[int, tuple[list[float], float]]
    flips: dict[int, list[int]]
    noise: dict[int, tuple[float, int]]
    blur: dict[int, float]
    intensity: dict[int, list[tuple[float, float]]]
    contrast: dict[int, list[float]]
    low_resolution: dict[int, float]
    gamma: dict[int, list[float]]


def augment(
    images: torch.Tensor,
    labels: torch.Tensor,
    preset: AugmentationPreset,
    generator: torch.Generator,
    mirror_axes: Collection[Axis] = ALL_AXES,
    rotate_about: Collection[Axis] = ALL_AXES,
) -> None:
    """Change a batch at random, in place; what is drawn depends on ``generator`` alone.

    Args:
        images: float32 (batch, channel, x, y, z), normalised, on any device.
        labels: (batch, any, x, y, z) of whole numbers up to 2^24 of any type; 0 comes in from
            outside, and no value appears that was not there.
        preset: the study's name for how strongly.
        generator: a generator of the CPU, so that all devices draw the same (but for noise,
            which a GPU draws itself).
        mirror_axes: along which images are mirrored, where the preset mirrors.
        rotate_about: about which they are rotated, where it rotates.
    """
    drawn = draw(len(images), images.shape[1], preset, generator, mirror_axes, rotate_about)
    apply(images, labels, drawn)


def apply(images: torch.Tensor, labels: torch.Tensor, drawn: Drawn) -> None:
    """Change a batch as drawn, in place; images and labels as in ``augment``."""
    for sample, (angles, zoom) in drawn.affine.items():
        rotate(images[sample], labels[sample], angles, zoom)
    for sample, axes in drawn.flips.items():
        for label in labels[sample]:
            label.copy_(label.flip(axes))

    def change(place: tuple[int, int]) -> None:
        _change_channel(images[place], drawn, *place)

    places = list(itertools.product(range(images.shape[0]), range(images.shape[1])))
    devices.parallel_map(change, places, images[0, 0].numel(), images.device)


def _change_channel(channel: torch.Tensor, drawn: Drawn, sample: int, number: int) -> None:
    if sample in drawn.flips:
        channel.copy_(channel.flip(drawn.flips[sample]))
    if sample in drawn.noise:
        deviation, seed = drawn.noise[sample]
        _noise(channel, deviation, seed + number)
    if sample in drawn.blur:
        _blur(channel, drawn.blur[sample])
    if sample in drawn.intensity:
        factor, shift = drawn.intensity[sample][number]
        channel.mul_(factor).add_(shift)
    if sample in drawn.contrast:
        _contrast(channel, drawn.contrast[sample][number])
    if sample in drawn.low_resolution:
        _low_resolution(channel, drawn.low_resolution[sample])
    if sample in drawn.gamma:
        _gamma(channel, drawn.gamma[sample][number])


def draw(
    samples: int,
    channels: int,
    preset: AugmentationPreset,
    generator: torch.Generator,
    mirror_axes: Collection[Axis] = ALL_AXES,
    rotate_about: Collection[Axis] = ALL_AXES,
) -> Drawn:
    """Draw how a batch of so many samples is to be changed; ``generator`` is one of the CPU."""
    strength = PRESETS[preset]

    def uniform(shape: tuple[int, ...], bounds: tuple[float, float]) -> list[Any]:
        low, high = bounds
        numbers: list[Any] = (low + (high - low) * torch.rand(shape, generator=generator)).tolist()
        return numbers

    def chosen(probability: float) -> list[int]:
        if probability == 0:
            return []
        return (torch.rand(samples, generator=generator) < probability).nonzero().flatten().tolist()

    def each(
        probability: float, shape: tuple[int, ...], bounds: tuple[float, float]
    ) -> dict[int, Any]:
        changed = chosen(probability)
        return dict(zip(changed, uniform((len(changed), *shape), bounds), strict=True))

    turned = chosen(strength.affine)
    # Drawn for all axes, as flips are.
    about = [float(name in rotate_about) for name in ALL_AXES]
    drawn_angles = uniform((len(turned), 3), (-ROTATION, ROTATION))
    angles = [[a * kept for a, kept in zip(row, about, strict=True)] for row in drawn_angles]
    zooms = uniform((len(turned),), ZOOM)
    flips = _draw_flips(samples, strength.flip, generator, mirror_axes)
    noisy = chosen(strength.noise)
    deviations = uniform((len(noisy),), NOISE_DEVIATION)
    seeds = [int(torch.randint(2**62, (), generator=generator)) for _ in noisy]
    sigmas = each(strength.blur, (), BLUR_SIGMA)
    scaled = chosen(strength.intensity)
    factors = uniform((len(scaled), channels), INTENSITY_SCALE)
    shifts = uniform((len(scaled), channels), INTENSITY_SHIFT)
    lines = [list(zip(*pair, strict=True)) for pair in zip(factors, shifts, strict=True)]
    contrasts = each(strength.contrast, (channels,), CONTRAST)
    shares = each(strength.low_resolution, (), LOW_RESOLUTION)
    exponents = each(strength.gamma, (channels,), GAMMA)
    return Drawn(
        affine=dict(zip(turned, zip(angles, zooms, strict=True), strict=True)),
        flips=flips,
        noise=dict(zip(noisy, zip(deviations, seeds, strict=True), strict=True)),
        blur=sigmas,
        intensity=dict(zip(scaled, lines, strict=True)),
        contrast=contrasts,
        low_resolution=shares,
        gamma=exponents,
    )


def _draw_flips(
    samples: int, probability: float, generator: torch.Generator, mirror_axes: Collection[Axis]
) -> dict[int, list[int]]:
    if probability == 0:
        return {}
    # Drawn for all axes, so that nothing else is drawn differently where some are left out.
    rows = (torch.rand((samples, 3), generator=generator) < probability).tolist()
    kept = [name in mirror_axes for name in ALL_AXES]
    axes = [[n for n, flipped in enumerate(row) if flipped and kept[n]] for row in rows]
    return {sample: mirrored for sample, mirrored in enumerate(axes) if mirrored}


def _noise(channel: torch.Tensor, deviation: float, seed: int) -> None:
    """Add Gaussian noise to (x, y, z), drawn where it is."""
    generator = torch.Generator(channel.device).manual_seed(seed)
    noise = torch.randn(channel.shape, generator=generator, device=channel.device)
    channel.add_(noise, alpha=deviation)


def _blur(channel: torch.Tensor, sigma: float) -> None:
    """Smooth (x, y, z) with a Gaussian, as if the outermost voxels continued for ever."""
    matrices = [_smoothing(side, sigma, channel.device) for side in channel.shape]
    channel.copy_(_along_all(matrices, channel))


@dataclass(frozen=True)
class _Band:
    """A matrix along an axis of a volume, (side, side before).

    ``taken`` maps the first and the last + 1 of some rows to those of the columns that are not 0
    in them.
    """

    matrix: torch.Tensor
    taken: Callable[[int, int], tuple[int, int]]


def _along_all(matrices: Sequence[_Band], volume: torch.Tensor) -> torch.Tensor:
    """The products of matrices with a volume (x, y, z), one along each axis.

    With kernels so small it is several times faster than torch's convolutions and interpolation.
    A CPU takes few rows at once, which share few columns; a GPU, where small products wait, all.
    """
    for axis, band in enumerate(matrices):
        side = len(band.matrix)
        together = ROWS_TOGETHER if volume.device.type == "cpu" else side
        shape = [*volume.shape[:axis], side, *volume.shape[axis + 1 :]]
        result = volume.new_empty(shape)
        for low in range(0, side, together):
            rows = slice(low, min(low + together, side))
            columns = slice(*band.taken(rows.start, rows.stop))
            piece = band.matrix[rows, columns]
            if axis == 0:
                torch.mm(piece, volume[columns].flatten(1), out=result[rows].flatten(1))
            elif axis == 1:
                result[:, rows] = piece @ volume[:, columns]
            else:
                result[..., rows] = volume[..., columns] @ piece.T
        volume = result
    return volume


def _smoothing(side: int, sigma: float, device: torch.device) -> _Band:
    """Smooths along an axis of so many voxels."""
    radius = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    places = torch.arange(side, device=device)
    matrix = torch.zeros((side, side), device=device)
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        taken = (places + offset).clamp(0, side - 1)
        matrix += (taken[:, None] == places) * (weight / sum(weights))
    return _Band(matrix, lambda low, high: (max(0, low - radius), min(side, high + radius)))


def _stretching(few: int, side: int, device: torch.device) -> _Band:
    """Interpolates ``few`` voxels along an axis linearly to ``side``, as torch does it."""
    scale = few / side
    place = ((torch.arange(side, device=device) + 0.5) * scale - 0.5).clamp_min(0)
    low = place.floor().clamp_max(few - 1)
    share, voxels = (place - low)[:, None], torch.arange(few, device=device)
    high = (low + 1).clamp_max(few - 1)[:, None]
    matrix = (low[:, None] == voxels) * (1 - share) + (high == voxels) * share

    def taken(first: int, stop: int) -> tuple[int, int]:
        # A voxel more on both sides, for rounding.
        return max(0, int(first * scale) - 2), min(few, int(stop * scale) + 2)

    return _Band(matrix, taken)


def _contrast(channel: torch.Tensor, factor: float) -> None:
    """Stretch (x, y, z) about its mean, within its range."""
    low, high = torch.aminmax(channel)
    rest = channel.mean() * (1 - factor)
    channel.mul_(factor).add_(rest).clamp_(low, high)


def _low_resolution(channel: torch.Tensor, share: float) -> None:
    """As if (x, y, z) had been taken with larger voxels."""
    size = [max(1, round(side * share)) for side in channel.shape]
    matrices = [
        _stretching(few, side, channel.device)
        for few, side in zip(size, channel.shape, strict=True)
    ]
    small = functional.interpolate(channel[None, None], size, mode="nearest-exact")
    channel.copy_(_along_all(matrices, small[0, 0]))


def _gamma(channel: torch.Tensor, exponent: float) -> None:
    """Bend (x, y, z) by a power within its range; mean and spread stay, others change them."""
    low, high = torch.aminmax(channel)
    mean, span = channel.mean(), (high - low).clamp_min(1e-7)
    # Norms take a hundredth of the time of torch's std.
    deviation = torch.linalg.vector_norm(channel.sub_(mean))
    # Rounded, the lowest voxel may lie below its own value, and have no power.
    channel.add_(mean - low).div_(span).clamp_min_(0)
    # A power, in two thirds of its time.
    channel.log2_().mul_(exponent).exp2_()
    channel.sub_(channel.mean())
    bent_deviation = torch.linalg.vector_norm(channel)
    least = 1e-7 * math.sqrt(channel.numel())
    channel.mul_(deviation / (bent_deviation * span).clamp_min(least) * span).add_(mean)
