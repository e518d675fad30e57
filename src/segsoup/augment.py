"""Augmentation of whole batches in plain torch, on the device that trains.

Ranges and probabilities follow nnU-Net (Isensee et al. 2021, supplementary note 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional

from segsoup.study import AugmentationPreset


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

# On the CPU grid_sample spreads samples over the threads, but not the voxels of one.
GRID_PARTS = 8


@dataclass(frozen=True)
class Drawn:
    """What is drawn for a batch; each part names the samples that it changes.

    Plain numbers, so that a GPU is handed them with its kernels and waits for nothing.

    Attributes:
        affine: sample -> angles about x, y and z in radians, and zoom.
        flips: sample -> mirrored axes, 0 to 2.
        noise: sample -> standard deviation, and the seed of the noise.
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
) -> None:
    """Change a batch at random, in place; what is drawn hangs on ``generator`` alone.

    Args:
        images: float32 (batch, channel, x, y, z), normalised, on any device.
        labels: (batch, any, x, y, z) of whole numbers up to 2^24 of any type; 0 comes in from
            outside, and no value appears that was not there.
        preset: the study's name for how strongly.
        generator: a generator of the CPU, so that all devices draw the same (but for noise,
            which a GPU draws itself).
    """
    apply(images, labels, draw(len(images), images.shape[1], preset, generator))


def apply(images: torch.Tensor, labels: torch.Tensor, drawn: Drawn) -> None:
    """Change a batch as drawn, in place; images and labels as in ``augment``."""
    for sample, (angles, zoom) in drawn.affine.items():
        _affine(images[sample], labels[sample], angles, zoom)
    for sample, axes in drawn.flips.items():
        for channel in (*images[sample], *labels[sample]):
            channel.copy_(channel.flip(axes))
    for sample, (deviation, seed) in drawn.noise.items():
        _noise(images[sample], deviation, seed)
    for sample, sigma in drawn.blur.items():
        _blur(images[sample], sigma)
    for sample, lines in drawn.intensity.items():
        for channel, (factor, shift) in zip(images[sample], lines, strict=True):
            channel.mul_(factor).add_(shift)
    for sample, factors in drawn.contrast.items():
        for channel, factor in zip(images[sample], factors, strict=True):
            _contrast(channel, factor)
    for sample, share in drawn.low_resolution.items():
        _low_resolution(images[sample], share)
    for sample, exponents in drawn.gamma.items():
        for channel, exponent in zip(images[sample], exponents, strict=True):
            _gamma(channel, exponent)


def draw(
    samples: int, channels: int, preset: AugmentationPreset, generator: torch.Generator
) -> Drawn:
    """Draw how a batch is to be changed.

    Args:
        samples: its size.
        channels: of its images.
        preset: the study's name for how strongly.
        generator: a generator of the CPU.
    """
    strength = PRESETS[preset]

    def uniform(shape: tuple[int, ...], bounds: tuple[float, float]) -> list[Any]:
        low, high = bounds
        numbers: list[Any] = (low + (high - low) * torch.rand(shape, generator=generator)).tolist()
        return numbers

    def chosen(probability: float) -> list[int]:
        if probability == 0:
            return []
        return (torch.rand(samples, generator=generator) < probability).nonzero().flatten().tolist()

    turned = chosen(strength.affine)
    angles = uniform((len(turned), 3), (-ROTATION, ROTATION))
    zooms = uniform((len(turned),), ZOOM)
    flips = _draw_flips(samples, strength.flip, generator)
    noisy = chosen(strength.noise)
    deviations = uniform((len(noisy),), NOISE_DEVIATION)
    seeds = [int(torch.randint(2**62, (), generator=generator)) for _ in noisy]
    blurred = chosen(strength.blur)
    sigmas = uniform((len(blurred),), BLUR_SIGMA)
    scaled = chosen(strength.intensity)
    factors = uniform((len(scaled), channels), INTENSITY_SCALE)
    shifts = uniform((len(scaled), channels), INTENSITY_SHIFT)
    lines = [list(zip(*pair, strict=True)) for pair in zip(factors, shifts, strict=True)]
    contrasted = chosen(strength.contrast)
    contrasts = uniform((len(contrasted), channels), CONTRAST)
    coarse = chosen(strength.low_resolution)
    shares = uniform((len(coarse),), LOW_RESOLUTION)
    bent = chosen(strength.gamma)
    exponents = uniform((len(bent), channels), GAMMA)
    return Drawn(
        affine=dict(zip(turned, zip(angles, zooms, strict=True), strict=True)),
        flips=flips,
        noise=dict(zip(noisy, zip(deviations, seeds, strict=True), strict=True)),
        blur=dict(zip(blurred, sigmas, strict=True)),
        intensity=dict(zip(scaled, lines, strict=True)),
        contrast=dict(zip(contrasted, contrasts, strict=True)),
        low_resolution=dict(zip(coarse, shares, strict=True)),
        gamma=dict(zip(bent, exponents, strict=True)),
    )


def _draw_flips(
    samples: int, probability: float, generator: torch.Generator
) -> dict[int, list[int]]:
    if probability == 0:
        return {}
    rows = (torch.rand((samples, 3), generator=generator) < probability).tolist()
    axes = [[axis for axis, flipped in enumerate(row) if flipped] for row in rows]
    return {sample: mirrored for sample, mirrored in enumerate(axes) if mirrored}


def _affine(image: torch.Tensor, label: torch.Tensor, angles: list[float], zoom: float) -> None:
    """Rotate and zoom about the centre: image (channel, x, y, z), label likewise, in place."""
    theta = affine_matrices(torch.tensor([angles]), torch.tensor([zoom]), image.shape[1:])[0]
    grid = sampling_grid(theta, image.shape[1:], image.device)
    image.copy_(sample_along(grid, image, "bilinear"))
    label.copy_(sample_along(grid, label.float(), "nearest"))


def sampling_grid(
    theta: torch.Tensor, shape: tuple[int, ...] | torch.Size, device: torch.device
) -> torch.Tensor:
    """What ``torch.nn.functional.affine_grid`` gives for one sample, in a tenth of its time.

    Args:
        theta: (3, 4) from ``affine_matrices``, on the CPU; it moves nothing off the centre.
        shape: volume (x, y, z).
        device: where the grid is to be.

    Returns:
        (x, y, z, 3) in torch's coordinates, whose first is that of the last axis.
    """
    x, y, z = (torch.arange(1 - n, n, 2, dtype=torch.float32, device=device) / n for n in shape)
    rows = theta.tolist()
    plane = torch.stack([row[1] * y[:, None] + row[0] * z for row in rows], dim=-1)
    slope = torch.stack([torch.full_like(plane[..., 0], row[2]) for row in rows], dim=-1)
    # One product of a column and a row, for the grid is linear in x.
    grid = torch.addmm(plane.view(1, -1), x[:, None], slope.view(1, -1))
    return grid.view(*shape, 3)


def sample_along(grid: torch.Tensor, volume: torch.Tensor, mode: str) -> torch.Tensor:
    """A volume (channel, x, y, z) at the places of a grid; zeros from outside."""
    if volume.is_cuda or len(grid) % GRID_PARTS:
        parts = grid[None]
    else:
        parts = grid.view(GRID_PARTS, -1, *grid.shape[1:])
    sampled = functional.grid_sample(
        volume.expand(len(parts), *volume.shape),
        parts,
        mode=mode,
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled.transpose(0, 1).reshape(volume.shape)


def affine_matrices(
    angles: torch.Tensor, zooms: torch.Tensor, shape: tuple[int, ...] | torch.Size
) -> torch.Tensor:
    """Matrices for ``torch.nn.functional.affine_grid`` that rotate and zoom about the centre.

    Args:
        angles: radians about the x, y and z axes, (sample, 3).
        zooms: above 1 makes things larger, (sample,).
        shape: volume (x, y, z) in voxels; rotations are rigid in voxels whatever its sides.

    Returns:
        (sample, 3, 4), in torch's order, whose first coordinate is the last axis.
    """
    cosines, sines = angles.cos(), angles.sin()
    zero, one = torch.zeros_like(zooms), torch.ones_like(zooms)
    about_x, about_y, about_z = (
        [one, zero, zero, zero, cosines[:, 0], -sines[:, 0], zero, sines[:, 0], cosines[:, 0]],
        [cosines[:, 1], zero, sines[:, 1], zero, one, zero, -sines[:, 1], zero, cosines[:, 1]],
        [cosines[:, 2], -sines[:, 2], zero, sines[:, 2], cosines[:, 2], zero, zero, zero, one],
    )
    rotations = [
        torch.stack(entries, dim=1).view(-1, 3, 3) for entries in (about_x, about_y, about_z)
    ]
    rotation = rotations[0] @ rotations[1] @ rotations[2]
    half = torch.tensor(list(shape), dtype=rotation.dtype) / 2
    # affine_grid works in coordinates from -1 to 1 along each side: to voxels, rotate, and back.
    linear = rotation * half[None, None, :] / half[None, :, None] / zooms[:, None, None]
    linear = linear.flip(1, 2)
    return torch.cat([linear, torch.zeros(len(zooms), 3, 1)], dim=2)


def _noise(image: torch.Tensor, deviation: float, seed: int) -> None:
    """Add Gaussian noise to (channel, x, y, z), drawn where the image is."""
    generator = torch.Generator(image.device).manual_seed(seed)
    for channel in image:
        noise = torch.randn(channel.shape, generator=generator, device=image.device)
        channel.add_(noise, alpha=deviation)


def _blur(image: torch.Tensor, sigma: float) -> None:
    """Smooth (channel, x, y, z) with a Gaussian, as if the outermost voxels went on for ever.

    Along each axis one matrix product: for so small kernels several times faster than torch's
    convolutions, on CPUs by far.
    """
    matrices = [_smoothing(side, sigma, image.device) for side in image.shape[1:]]
    for channel in image:
        along_x = matrices[0] @ channel.flatten(1)
        along_xy = matrices[1] @ along_x.view(channel.shape)
        torch.matmul(along_xy, matrices[2].T, out=channel)


def _smoothing(side: int, sigma: float, device: torch.device) -> torch.Tensor:
    """The matrix (side, side) that smooths along an axis of so many voxels."""
    radius = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    places = torch.arange(side, device=device)
    matrix = torch.zeros((side, side), device=device)
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        taken = (places + offset).clamp(0, side - 1)
        matrix += (taken[:, None] == places) * (weight / sum(weights))
    return matrix


def _contrast(channel: torch.Tensor, factor: float) -> None:
    """Stretch (x, y, z) about its mean, within its range."""
    low, high = torch.aminmax(channel)
    rest = channel.mean() * (1 - factor)
    channel.mul_(factor).add_(rest).clamp_(low, high)


def _low_resolution(image: torch.Tensor, share: float) -> None:
    """As if (channel, x, y, z) had been taken with larger voxels."""
    size = [max(1, round(side * share)) for side in image.shape[1:]]
    for channel in image:
        small = functional.interpolate(channel[None, None], size, mode="nearest-exact")
        channel.copy_(
            functional.interpolate(
                small, list(channel.shape), mode="trilinear", align_corners=False
            )[0, 0]
        )


def _gamma(channel: torch.Tensor, exponent: float) -> None:
    """Bend (x, y, z) by a power within its range; mean and spread stay, others change them."""
    low, high = torch.aminmax(channel)
    mean, span = channel.mean(), (high - low).clamp_min(1e-7)
    # Norms take a hundredth of the time of torch's std.
    deviation = torch.linalg.vector_norm(channel.sub_(mean))
    # Rounded, the lowest voxel may lie below its own value, and have no power.
    channel.add_(mean - low).div_(span).clamp_min_(0).pow_(exponent)
    channel.sub_(channel.mean())
    bent_deviation = torch.linalg.vector_norm(channel)
    least = 1e-7 * math.sqrt(channel.numel())
    channel.mul_(deviation / (bent_deviation * span).clamp_min(least) * span).add_(mean)
