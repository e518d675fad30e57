"""Augmentation of whole batches in plain torch, on the device that trains.

Ranges and probabilities follow nnU-Net (Isensee et al. 2021, supplementary note 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def augment(
    images: torch.Tensor,
    labels: torch.Tensor,
    preset: AugmentationPreset,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch at random; what is drawn hangs on ``generator`` alone.

    Args:
        images: (batch, channel, x, y, z), normalised, on any device.
        labels: zeros and ones, (batch, region, x, y, z).
        preset: the study's name for how strongly.
        generator: a generator of the CPU, so that all devices draw the same.

    Returns:
        New images and labels; labels stay zeros and ones.
    """
    strength = PRESETS[preset]
    images, labels = _affine(images, labels, strength.affine, generator)
    images, labels = _flip(images, labels, strength.flip, generator)
    images = _noise(images, strength.noise, generator)
    images = _blur(images, strength.blur, generator)
    images = _scale_and_shift(images, strength.intensity, generator)
    images = _contrast(images, strength.contrast, generator)
    images = _low_resolution(images, strength.low_resolution, generator)
    images = _gamma(images, strength.gamma, generator)
    return images, labels


def _chosen(count: int, probability: float, generator: torch.Generator) -> list[int]:
    """Which samples a transform changes."""
    if probability == 0:
        return []
    return (torch.rand(count, generator=generator) < probability).nonzero().flatten().tolist()


def _uniform(
    shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)


def _flip(
    images: torch.Tensor, labels: torch.Tensor, probability: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    if probability == 0:
        return images, labels
    drawn = torch.rand((len(images), 3), generator=generator) < probability
    image_parts, label_parts = [], []
    for sample, row in enumerate(drawn.tolist()):
        axes = [axis + 1 for axis, flipped in enumerate(row) if flipped]
        image_parts.append(images[sample].flip(axes))
        label_parts.append(labels[sample].flip(axes))
    return torch.stack(image_parts), torch.stack(label_parts)


def _affine(
    images: torch.Tensor, labels: torch.Tensor, probability: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = _chosen(len(images), probability, generator)
    if not chosen:
        return images, labels
    angles = _uniform((len(chosen), 3), (-ROTATION, ROTATION), generator)
    zooms = _uniform((len(chosen),), ZOOM, generator)
    theta = affine_matrices(angles, zooms, images.shape[2:]).to(images)
    size = [len(chosen), 1, *images.shape[2:]]
    grid = functional.affine_grid(theta, size, align_corners=False)
    images, labels = images.clone(), labels.clone()
    images[chosen] = functional.grid_sample(
        images[chosen], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    labels[chosen] = functional.grid_sample(
        labels[chosen], grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return images, labels


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


def _scale_and_shift(
    images: torch.Tensor, probability: float, generator: torch.Generator
) -> torch.Tensor:
    chosen = _chosen(len(images), probability, generator)
    if not chosen:
        return images
    shape = (len(chosen), images.shape[1], 1, 1, 1)
    scale = _uniform(shape, INTENSITY_SCALE, generator).to(images)
    shift = _uniform(shape, INTENSITY_SHIFT, generator).to(images)
    images = images.clone()
    images[chosen] = images[chosen] * scale + shift
    return images


def _contrast(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    chosen = _chosen(len(images), probability, generator)
    if not chosen:
        return images
    part = images[chosen]
    factor = _uniform((*part.shape[:2], 1, 1, 1), CONTRAST, generator).to(images)
    mean = part.mean(dim=(2, 3, 4), keepdim=True)
    low, high = part.amin(dim=(2, 3, 4), keepdim=True), part.amax(dim=(2, 3, 4), keepdim=True)
    images = images.clone()
    images[chosen] = ((part - mean) * factor + mean).clamp(low, high)
    return images


def _gamma(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    chosen = _chosen(len(images), probability, generator)
    if not chosen:
        return images
    part = images[chosen]
    gamma = _uniform((*part.shape[:2], 1, 1, 1), GAMMA, generator).to(images)
    low, high = part.amin(dim=(2, 3, 4), keepdim=True), part.amax(dim=(2, 3, 4), keepdim=True)
    span = (high - low).clamp_min(1e-7)
    bent = ((part - low) / span).pow(gamma) * span + low
    # Gamma moves mean and spread, which other transforms are there for.
    deviation = part.std(dim=(2, 3, 4), keepdim=True)
    bent = bent - bent.mean(dim=(2, 3, 4), keepdim=True)
    bent = bent / bent.std(dim=(2, 3, 4), keepdim=True).clamp_min(1e-7) * deviation
    images = images.clone()
    images[chosen] = bent + part.mean(dim=(2, 3, 4), keepdim=True)
    return images


def _noise(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    chosen = _chosen(len(images), probability, generator)
    if not chosen:
        return images
    deviation = _uniform((len(chosen), 1, 1, 1, 1), NOISE_DEVIATION, generator)
    noise = torch.randn((len(chosen), *images.shape[1:]), generator=generator) * deviation
    images = images.clone()
    images[chosen] = images[chosen] + noise.to(images)
    return images


def _blur(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    chosen = _chosen(len(images), probability, generator)
    if not chosen:
        return images
    images = images.clone()
    sigmas = _uniform((len(chosen),), BLUR_SIGMA, generator).tolist()
    for sample, sigma in zip(chosen, sigmas, strict=True):
        images[sample] = _gaussian(images[sample], sigma)
    return images


def _gaussian(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian smoothing of (channel, x, y, z)."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    smoothed = image[:, None]
    for axis in range(3):
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]
        shape[axis + 2] = len(kernel)
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = radius
        padded = functional.pad(smoothed, padding, mode="replicate")
        smoothed = functional.conv3d(padded, kernel.view(shape))
    return smoothed[:, 0]


def _low_resolution(
    images: torch.Tensor, probability: float, generator: torch.Generator
) -> torch.Tensor:
    chosen = _chosen(len(images), probability, generator)
    if not chosen:
        return images
    images = images.clone()
    shares = _uniform((len(chosen),), LOW_RESOLUTION, generator).tolist()
    for sample, share in zip(chosen, shares, strict=True):
        size = [max(1, round(side * share)) for side in images.shape[2:]]
        small = functional.interpolate(images[sample : sample + 1], size, mode="nearest-exact")
        images[sample] = functional.interpolate(
            small, images.shape[2:], mode="trilinear", align_corners=False
        )[0]
    return images
