"""Rotation and zoom of an image and its label map about their centre.

On a GPU that is torch's ``grid_sample``. On a CPU torch samples volumes voxel by voxel, but planes
with the processor's vector instructions, in a third of the time. There a volume is read as one
plane, its slices one below the other, and what two neighbouring slices say is interpolated.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from voxelsoup.models import devices

# Slices along x that are computed together on a CPU: what they need stays in its caches.
SLICES = 16


def rotate(image: torch.Tensor, label: torch.Tensor, angles: list[float], zoom: float) -> None:
    """Rotate and zoom a volume about its centre, in place; zeros come in from outside.

    Args:
        image: float32 (channel, x, y, z); sampled linearly, on a CPU to some 0.003 of a voxel in
            patches of 128^3, and less exactly the larger x times y is (512 x 512: 0.02).
        label: (any, x, y, z) of whole numbers up to 2^24; every voxel takes the nearest one's.
        angles: radians about x, y and z; rotations are rigid in voxels whatever the sides.
        zoom: above 1 makes things larger.
    """
    shape = image.shape[1:]
    theta = affine_matrices(torch.tensor([angles]), torch.tensor([zoom]), shape)[0]
    if image.device.type == "cpu":
        _rotate_by_planes(image, label, theta)
        return
    x, y, z = places(theta, shape, image.device)
    grid = torch.stack([z, y, x], dim=-1)
    image.copy_(sample(image, grid, "bilinear"))
    label.copy_(sample(label.float(), grid, "nearest"))


def affine_matrices(
    angles: torch.Tensor, zooms: torch.Tensor, shape: tuple[int, ...] | torch.Size
) -> torch.Tensor:
    """Matrices for ``torch.nn.functional.affine_grid`` that rotate and zoom about the centre.

    Args:
        angles: radians about the x, y and z axes, (sample, 3).
        zooms: above 1 makes things larger, (sample,).
        shape: volume (x, y, z) in voxels.

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


def places(
    theta: torch.Tensor,
    shape: tuple[int, ...] | torch.Size,
    device: torch.device,
    slices: slice = slice(None),
) -> list[torch.Tensor]:
    """What ``torch.nn.functional.affine_grid`` gives for one sample, in a tenth of its time.

    ``theta`` is a matrix of ``affine_matrices``, (3, 4), on the CPU, which moves nothing off the
    centre; ``slices`` are those along x that are wanted.

    Returns:
        For each voxel, where it takes its value from along x, y and z, from -1 to 1 along each
        side of the volume; three of (x, y, z).
    """
    x, y, z = (torch.arange(1 - n, n, 2, dtype=torch.float32, device=device) / n for n in shape)
    x = x[slices, None]
    found = []
    # Numbers, so that a GPU is handed them with its kernels.
    for of_z, of_y, of_x, _ in reversed(theta.tolist()):
        plane = (of_y * y[:, None] + of_z * z).view(1, -1)
        # One product of a column and a row, for places are linear in x.
        product = torch.addmm(plane, x, torch.full_like(plane, of_x))
        found.append(product.view(len(x), *shape[1:]))
    return found


def sample(volume: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    """A volume (channel, ...) at the places of a grid (..., axis); zeros from outside."""
    return functional.grid_sample(
        volume[None], grid[None], mode=mode, padding_mode="zeros", align_corners=False
    )[0]


def _rotate_by_planes(image: torch.Tensor, label: torch.Tensor, theta: torch.Tensor) -> None:
    x_side, y_side, z_side = shape = image.shape[1:]
    plane, label_plane = _as_plane(image), _as_plane(label.float())
    # All but the last slice, and all but the first.
    lower, upper = plane[:, : -(y_side + 2)], plane[:, y_side + 2 :]

    def rotate_slices(first: int) -> None:
        slices = slice(first, first + SLICES)
        x, y, z = places(theta, shape, image.device, slices)
        # To voxels, and no further out than zeros are.
        x.add_(1 - 1 / x_side).mul_(x_side / 2).clamp_(-1, x_side)
        y.add_(1 - 1 / y_side).mul_(y_side / 2).clamp_(-1.5, y_side + 0.5)
        nearest = _in_plane(x.round(), y, z, shape)
        label[:, slices] = sample(label_plane[:, : lower.shape[1]], nearest, "nearest").view(
            len(label), *x.shape
        )
        below = x.floor()
        grid, share = _in_plane(below, y, z, shape), (x - below).view(-1, z_side)
        image[:, slices] = torch.lerp(
            sample(lower, grid, "bilinear"), sample(upper, grid, "bilinear"), share
        ).view(len(image), *x.shape)

    numbers = (len(image) + len(label)) * SLICES * y_side * z_side
    devices.parallel_map(rotate_slices, range(0, x_side, SLICES), numbers, image.device)


def _as_plane(volume: torch.Tensor) -> torch.Tensor:
    """A volume (channel, x, y, z) as (channel, row, z).

    The first slice, the last two, and the first and the last row of each are zeros.
    """
    return functional.pad(volume, (0, 0, 1, 1, 1, 2)).flatten(1, 2)


def _in_plane(
    slices: torch.Tensor, y: torch.Tensor, z: torch.Tensor, shape: torch.Size
) -> torch.Tensor:
    """Places in ``_as_plane`` without its last slice, for ``grid_sample``: (row, column, 2).

    ``slices`` are integers from -1 to the side along x, y is in voxels, z from -1 to 1.
    """
    per_slice = shape[1] + 2
    rows = (shape[0] + 2) * per_slice
    grid = torch.empty(len(slices) * shape[1], shape[2], 2)
    row = torch.add(y, slices, alpha=per_slice).mul_(2 / rows)
    grid[..., 1] = row.add_((2 * (per_slice + 1) + 1) / rows - 1).view(-1, shape[2])
    grid[..., 0] = z.view(-1, shape[2])
    return grid
