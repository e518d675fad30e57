"""Augmentation: the same draw gives the same batch, and labels stay with their image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from segsoup.augment import PRESETS, affine_matrices, augment

SHAPE = (12, 14, 10)


def batch(samples: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(samples, 2, *SHAPE, generator=generator)
    return images, (torch.rand(samples, 3, *SHAPE, generator=generator) < 0.3).float()


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transformed(volume: torch.Tensor, angles: list[float], zoom: float) -> torch.Tensor:
    """A volume (x, y, z) through the matrix, the way that ``augment`` does it."""
    theta = affine_matrices(torch.tensor([angles]), torch.tensor([zoom]), volume.shape)
    grid = functional.affine_grid(theta, [1, 1, *volume.shape], align_corners=False)
    return functional.grid_sample(volume[None, None].float(), grid, align_corners=False)[0, 0]


@pytest.mark.parametrize("preset", PRESETS)
def test_it_repeats_itself_and_keeps_labels_whole(preset: str) -> None:
    images, labels = batch()
    before = images.clone(), labels.clone()
    torch.manual_seed(0)
    one = augment(images, labels, preset, drawn(3))  # type: ignore[arg-type]
    torch.manual_seed(99)
    two = augment(images, labels, preset, drawn(3))  # type: ignore[arg-type]
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert set(one[1].unique().tolist()) <= {0.0, 1.0}
    assert one[0].shape == images.shape and one[1].shape == labels.shape
    assert torch.isfinite(one[0]).all()
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])
    other = augment(images, labels, preset, drawn(4))[0]  # type: ignore[arg-type]
    assert torch.equal(other, one[0]) == (preset == "none")


def test_a_preset_does_what_the_weaker_one_does_and_more() -> None:
    order = ["none", "flips-intensity", "affine-contrast", "full"]
    assert list(PRESETS) == order
    for weak, strong in itertools.pairwise(order):
        pairs = list(zip(vars(PRESETS[weak]).values(), vars(PRESETS[strong]).values(), strict=True))  # type: ignore[index]
        assert all(less <= more for less, more in pairs)
        assert any(less < more for less, more in pairs)
    assert all(0 < probability <= 1 for probability in vars(PRESETS["full"]).values())


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_mirroring_moves_image_and_labels_alike(seed: int) -> None:
    """Undoing one of the eight mirrorings gives the labels back, and the image but for its
    brightness."""
    images, labels = batch(4)
    new_images, new_labels = augment(images, labels, "flips-intensity", drawn(seed))
    for sample in range(4):
        found = False
        for number in range(8):
            axes = [axis + 1 for axis in range(3) if number >> axis & 1]
            if not torch.equal(new_labels[sample].flip(axes), labels[sample]):
                continue
            found = True
            for old, new in zip(images[sample], new_images[sample].flip(axes), strict=True):
                line = np.polyfit(old.flatten().double(), new.flatten().double(), 1)
                torch.testing.assert_close(
                    new, (line[0] * old + line[1]).float(), atol=1e-4, rtol=0
                )
                assert 0.89 < line[0] < 1.11 and abs(line[1]) < 0.11
        assert found


def test_without_angle_and_zoom_nothing_moves() -> None:
    volume = torch.randn(SHAPE)
    torch.testing.assert_close(transformed(volume, [0, 0, 0], 1), volume, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_is_the_one_of_torch(axis: int, plane: tuple[int, int]) -> None:
    volume = torch.randn(9, 9, 9)
    angles = [0.0, 0.0, 0.0]
    angles[axis] = math.pi / 2
    turned = transformed(volume, angles, 1)
    # The matrix says where a voxel is taken from, so that the content turns the other way.
    torch.testing.assert_close(turned, torch.rot90(volume, -1, plane), atol=1e-4, rtol=0)


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.3])
def test_rotation_and_zoom_are_rigid_in_voxels_also_in_boxes_that_are_no_cubes(zoom: float) -> None:
    """scipy's affine_transform, in plain voxels about the centre, is the oracle."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in (16, 24, 12)), indexing="ij")
    volume = np.exp(-3 * (x**2 + 2 * y**2 + z**2) - x * y)
    angles = [0.3, -0.2, 0.4]
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    rotation = (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    )
    centre = (np.array(volume.shape) - 1) / 2
    matrix = rotation / zoom
    expected = affine_transform(
        volume, matrix, centre - matrix @ centre, order=1, mode="grid-constant"
    )
    found = transformed(torch.tensor(volume), angles, zoom).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_labels_turn_with_their_image() -> None:
    """A ball off the centre, as image and as label: after any draw they still cover each other."""
    axes = torch.meshgrid(*(torch.arange(24.0) for _ in range(3)), indexing="ij")
    centre = zip(axes, (8, 13, 11), strict=True)
    ball = (sum((axis - middle) ** 2 for axis, middle in centre) < 36).float()
    images = ball[None, None].repeat(40, 1, 1, 1, 1)
    new_images, new_labels = augment(images, images.clone(), "affine-contrast", drawn(5))
    moved = 0
    for image, label in zip(new_images[:, 0], new_labels[:, 0], strict=True):
        # Contrast, gamma and brightness keep the order of the values: half way is the edge.
        inside = image > (image.min() + image.max()) / 2
        overlap = 2 * (inside & (label == 1)).sum() / (inside.sum() + label.sum())
        assert overlap > 0.9
        moved += int(label.sum() != ball.sum())
    assert 4 <= moved <= 24
