"""Augmentation: the same draw gives the same batch, and labels stay with their image."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from monai import transforms as monai
from scipy.stats import ks_2samp

from references import augmentation as reference
from voxelsoup.models import devices
from voxelsoup.study.sections.training import Axis
from voxelsoup.training import affine
from voxelsoup.training.affine import affine_matrices, places, rotate
from voxelsoup.training.augment import (
    PRESETS,
    ROTATION,
    Drawn,
    apply,
    augment,
    draw,
)

SHAPE = (12, 14, 10)
CPU = torch.device("cpu")


def batch(samples: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(samples, 2, *SHAPE, generator=generator)
    labels = torch.randint(0, 4, (samples, 1, *SHAPE), generator=generator)
    return images, labels.to(torch.uint8)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augmented(
    images: torch.Tensor, labels: torch.Tensor, preset: str, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Changed copies."""
    changed = images.clone(), labels.clone()
    augment(*changed, preset, generator)  # type: ignore[arg-type]
    return changed


def transformed(volume: torch.Tensor, angles: list[float], zoom: float) -> torch.Tensor:
    """A rotated copy of a volume (x, y, z)."""
    image = volume[None].float().clone()
    rotate(image, torch.zeros_like(image), angles, zoom)
    return image[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_augmentation_repeats_itself_and_keeps_labels_integers(preset: str) -> None:
    images, labels = batch()
    torch.manual_seed(0)
    one = augmented(images, labels, preset, drawn(3))
    torch.manual_seed(99)
    two = augmented(images, labels, preset, drawn(3))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert one[1].dtype == torch.uint8
    assert set(one[1].unique().tolist()) <= {0, 1, 2, 3}
    assert torch.isfinite(one[0]).all()
    other = augmented(images, labels, preset, drawn(4))[0]
    assert torch.equal(other, one[0]) == (preset == "none")


@pytest.mark.parametrize("axes", [["y", "z"], ["x"], []])
def test_only_the_axes_that_the_study_names_are_mirrored(axes: list[Axis]) -> None:
    every = draw(200, 1, "flips-intensity", drawn(5))
    some = draw(200, 1, "flips-intensity", drawn(5), axes)
    kept = {"xyz".index(axis) for axis in axes}
    assert {axis for flipped in some.flips.values() for axis in flipped} == kept
    # All else is drawn as ever: the axes are taken out of the same draw.
    assert dataclasses.replace(some, flips=every.flips) == every
    left = {n: [axis for axis in flipped if axis in kept] for n, flipped in every.flips.items()}
    assert some.flips == {n: flipped for n, flipped in left.items() if flipped}


def test_slices_are_turned_in_their_planes_alone_where_the_study_says_so() -> None:
    every = draw(200, 1, "affine-contrast", drawn(5))
    some = draw(200, 1, "affine-contrast", drawn(5), rotate_about=["z"])
    turned = {n: ([0.0, 0.0, angles[2]], zoom) for n, (angles, zoom) in every.affine.items()}
    assert some.affine == turned and len(turned) > 20
    assert dataclasses.replace(some, affine=every.affine) == every


def test_a_rotation_about_z_moves_nothing_from_slice_to_slice() -> None:
    images, labels = batch(1)
    labels[0, 0] = torch.arange(1, SHAPE[2] + 1)
    rotate(images[0], labels[0], [0.0, 0.0, 0.4], zoom=1.0)
    for z in range(SHAPE[2]):
        assert set(labels[0, 0, :, :, z].unique().tolist()) <= {0, z + 1}


def test_a_preset_includes_the_weaker_one() -> None:
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
    new_images, new_labels = augmented(images, labels, "flips-intensity", drawn(seed))
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
    torch.testing.assert_close(transformed(volume, [0, 0, 0], 1), volume, atol=2e-4, rtol=0)


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
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in (16, 24, 12)), indexing="ij")
    volume = np.exp(-3 * (x**2 + 2 * y**2 + z**2) - x * y)
    angles = [0.3, -0.2, 0.4]
    expected = reference.rotated(volume, angles, zoom)
    found = transformed(torch.tensor(volume), angles, zoom).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_labels_turn_with_their_image() -> None:
    """A ball off the centre, as image and as label: after any draw they still cover each other."""
    axes = torch.meshgrid(*(torch.arange(24.0) for _ in range(3)), indexing="ij")
    centre = zip(axes, (8, 13, 11), strict=True)
    ball = (sum((axis - middle) ** 2 for axis, middle in centre) < 36).float()
    images = ball[None, None].repeat(40, 1, 1, 1, 1)
    new_images, new_labels = augmented(images, images.to(torch.uint8), "affine-contrast", drawn(5))
    moved = 0
    for image, label in zip(new_images[:, 0], new_labels[:, 0].float(), strict=True):
        # Contrast, gamma and brightness keep the order of the values: half way is the edge.
        inside = image > (image.min() + image.max()) / 2
        overlap = 2 * (inside & (label == 1)).sum() / (inside.sum() + label.sum())
        assert overlap > 0.9
        moved += int(label.sum() != ball.sum())
    assert 4 <= moved <= 24


ANGLES, ZOOM = [0.3, -0.2, 0.4], 0.9


def by_torch(volume: torch.Tensor, mode: str, angles: list[float], zoom: float) -> torch.Tensor:
    """A volume (channel, x, y, z), rotated by what torch has for volumes."""
    theta = affine_matrices(torch.tensor([angles]), torch.tensor([zoom]), volume.shape[1:])
    grid = functional.affine_grid(theta, [1, 1, *volume.shape[1:]], align_corners=False)
    return functional.grid_sample(volume[None], grid, mode=mode, align_corners=False)[0]


@pytest.mark.parametrize("shape", [(40, 33, 20), (16, 16, 16), (13, 24, 50), (1, 9, 8)])
@pytest.mark.parametrize(
    ("angles", "zoom"), [(ANGLES, 0.9), ([-0.5, 0.5, -0.5], 0.7), ([0.1, 0.5, 0.2], 1.4)]
)
def test_a_rotation_is_that_of_torch(
    shape: tuple[int, ...], angles: list[float], zoom: float
) -> None:
    image, label = torch.randn(3, *shape), torch.randint(0, 5, (1, *shape)).to(torch.uint8)
    expected = by_torch(image, "bilinear", angles, zoom)
    expected_label = by_torch(label.float(), "nearest", angles, zoom)
    rotate(image, label, angles, zoom)
    torch.testing.assert_close(image, expected, rtol=0, atol=2e-3)
    # Beside it where a voxel lies right between two.
    assert (label != expected_label).float().mean() < 1e-3
    # What comes from outside is nothing at all.
    assert torch.equal(image == 0, expected == 0)


def test_a_rotation_of_full_size_is_that_of_torch_to_a_small_part_of_a_voxel() -> None:
    side = 128
    ramp = torch.arange(float(side)).expand(side, side, side)
    image = torch.stack([ramp, ramp.transpose(1, 2), ramp.transpose(0, 2)])
    expected = by_torch(image, "bilinear", ANGLES, ZOOM)
    rotate(image, torch.zeros(1, side, side, side), ANGLES, ZOOM)
    core = functional.pad(torch.ones(1, *[side - 4] * 3), [2] * 6)
    inside = by_torch(core, "bilinear", ANGLES, ZOOM)[0] == 1
    # A ramp's value is its place.
    assert (image - expected)[:, inside].abs().max() < 2e-3


def test_places_are_those_of_torch() -> None:
    """They are for GPUs, whose rotation is torch's ``grid_sample`` over the whole volume."""
    theta = affine_matrices(torch.tensor([ANGLES]), torch.tensor([ZOOM]), SHAPE)
    grid = functional.affine_grid(theta, [1, 1, *SHAPE], align_corners=False)[0]
    x, y, z = places(theta[0], SHAPE, CPU)
    torch.testing.assert_close(torch.stack([z, y, x], dim=-1), grid)
    volume = torch.randn(2, *SHAPE)
    expected = by_torch(volume, "bilinear", ANGLES, ZOOM)
    torch.testing.assert_close(affine.sample(volume, grid, "bilinear"), expected)
    part = places(theta[0], SHAPE, CPU, slice(3, 5))
    assert all(torch.equal(one, whole[3:5]) for one, whole in zip(part, (x, y, z), strict=True))


@pytest.mark.parametrize("least", [0, devices.PARALLEL_ABOVE])
@pytest.mark.parametrize("threads", [2, 3])
def test_an_augmented_batch_does_not_depend_on_the_number_of_threads(
    threads: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "PARALLEL_ABOVE", least)
    before = torch.get_num_threads()
    results = []
    for count in (1, threads):
        torch.set_num_threads(count)
        results.append(augmented(*batch(), "full", drawn(11)))
        assert torch.get_num_threads() == count
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def changed_by(**parts: object) -> Drawn:
    nothing: dict[str, object] = {field.name: {} for field in dataclasses.fields(Drawn)}
    return Drawn(**(nothing | parts))  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    images, labels = batch(2)
    before = images.clone()
    apply(images, labels, changed_by(blur={1: sigma}))
    for old, new in zip(before[1].double(), images[1], strict=True):
        np.testing.assert_allclose(new, reference.blurred(old.numpy(), sigma), atol=1e-5)
    assert torch.equal(images[0], before[0])


@pytest.mark.parametrize("share", [0.5, 0.63, 0.99, 1.0])
def test_low_resolution_is_that_of_larger_voxels(share: float) -> None:
    images, labels = batch(2)
    before = images.clone()
    apply(images, labels, changed_by(low_resolution={1: share}))
    for old, new in zip(before[1].double(), images[1], strict=True):
        np.testing.assert_allclose(new, reference.low_resolution(old.numpy(), share), atol=1e-5)
    assert torch.equal(images[0], before[0])


def test_contrast_and_gamma_are_those_of_nnunet() -> None:
    images, labels = batch(2)
    stretched, bent = images.clone(), images.clone()
    apply(stretched, labels, changed_by(contrast={0: [1.2, 0.8]}))
    apply(bent, labels, changed_by(gamma={0: [1.4, 0.7]}))
    for channel, (factor, exponent) in enumerate([(1.2, 1.4), (0.8, 0.7)]):
        old = images[0, channel].double().numpy()
        expected = reference.contrast(old, factor)
        np.testing.assert_allclose(stretched[0, channel].numpy(), expected, atol=1e-5)
        expected = reference.gamma(old, exponent)
        np.testing.assert_allclose(bent[0, channel].numpy(), expected, atol=1e-5)


def test_an_empty_channel_stays_finite() -> None:
    images, labels = torch.zeros(1, 2, *SHAPE), torch.zeros(1, 1, *SHAPE)
    apply(images, labels, changed_by(contrast={0: [1.2, 0.8]}, gamma={0: [1.4, 0.7]}))
    assert torch.equal(images, torch.zeros_like(images))


def test_noise_has_its_deviation() -> None:
    images, labels = torch.zeros(2, 2, 32, 32, 32), torch.zeros(2, 1, 32, 32, 32)
    apply(images, labels, changed_by(noise={1: (0.2, 7)}))
    assert abs(float(images[1].std()) - 0.2) < 0.004 and abs(float(images[1].mean())) < 0.004
    assert not torch.equal(images[1, 0], images[1, 1])
    assert not images[0].any()


def drawn_by(peer: monai.RandomizableTransform, name: str, count: int) -> np.ndarray:
    """What MONAI's transform draws for the samples that it changes, out of so many."""
    peer.set_random_state(5)
    image, values = torch.zeros(1, 2, 2, 2), []
    for _ in range(count):
        peer.randomize(*([image] if name == "flips" else []))
        if peer._do_transform:
            values.append(float(np.ravel(getattr(peer, name))[0]))
    return np.array(values)


def test_parameters_are_drawn_as_monai_draws_them() -> None:
    """Kolmogorov and Smirnov's test distinguishes them only if a range is a fifth too wide."""
    count, strength = 8000, PRESETS["full"]
    ours = draw(count, 1, "full", drawn(11))
    affine = monai.RandAffineGrid(rotate_range=(ROTATION,) * 3, scale_range=(1 / 1.4 - 1, 3 / 7))
    affine.set_random_state(5)
    turns = []
    for _ in range(count):
        affine.randomize()
        turns.append(affine.rotate_params[0])
    smooth = monai.RandGaussianSmooth(sigma_x=(0.5, 1.0), prob=strength.blur)
    scale = monai.RandScaleIntensity(factors=0.1, prob=strength.intensity)
    shift = monai.RandShiftIntensity(offsets=0.1, prob=strength.intensity)
    gamma = monai.RandAdjustContrast(gamma=(0.7, 1.5), prob=strength.gamma)
    coarse = monai.RandSimulateLowResolution(zoom_range=(0.5, 1.0), prob=strength.low_resolution)
    pairs: dict[str, tuple[list[float], np.ndarray]] = {
        "angle": ([angles[0] for angles, _ in ours.affine.values()], np.array(turns)),
        "blur": (list(ours.blur.values()), drawn_by(smooth, "x", count)),
        "factor": (
            [row[0][0] - 1 for row in ours.intensity.values()],
            drawn_by(scale, "factor", count),
        ),
        "shift": (
            [row[0][1] for row in ours.intensity.values()],
            drawn_by(shift, "_offset", count),
        ),
        "gamma": ([row[0] for row in ours.gamma.values()], drawn_by(gamma, "gamma_value", count)),
        "coarse": (list(ours.low_resolution.values()), drawn_by(coarse, "zoom_factor", count)),
    }
    for name, (own, theirs) in pairs.items():
        assert ks_2samp(own, theirs).pvalue > 1e-3, name
        wider = np.mean(own) + 1.2 * (np.array(own) - np.mean(own))
        assert ks_2samp(wider, theirs).pvalue < 1e-3, name
        if name != "angle":
            assert abs(len(own) - len(theirs)) < 5 * math.sqrt(count / 2), name
    # MONAI draws each axis by itself, and so do we; nor is one sample mirrored with another.
    mirrored = np.array(
        [[axis in ours.flips.get(k, []) for axis in range(3)] for k in range(count)]
    )
    assert np.abs(mirrored.mean(axis=0) - 0.5).max() < 0.04
    assert np.abs(np.corrcoef(mirrored.T) - np.eye(3)).max() < 0.08
