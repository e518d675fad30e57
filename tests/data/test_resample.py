"""Thick slices resampled apart, against nnU-Net's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from voxelsoup.data.preprocessing.resample import (
    Across,
    across_slices,
    resample_image,
    resample_label,
    resampled_shape,
)


@pytest.mark.parametrize(
    ("before", "after", "axis"),
    [
        ((1, 1, 6), (1, 1, 3), 2),
        ((1, 1, 3), (2, 2, 2), None),
        ((1, 1, 3.1), (2, 2, 2), 2),
        ((7, 1, 1), (1, 1, 1), 0),
        # Not the scan's, but the study's.
        ((1, 1, 2), (0.5, 0.5, 2), 2),
        # nnU-Net: two coarse axes are no slices, whatever the study says.
        ((0.24, 1.25, 1.25), (1, 1, 5), None),
        ((1, 1, 1), (1, 1, 1), None),
    ],
)
def test_slices_are_thick_by_nnunets_rule(before: Any, after: Any, axis: int | None) -> None:
    assert across_slices("nearest", before, after) == (None if axis is None else Across(axis, 0))
    assert across_slices("linear", before, after) == (None if axis is None else Across(axis, 1))
    assert across_slices("cubic", before, after) is None
    assert across_slices("nearest", before, None) is None


def nnunets(volume: np.ndarray, shape: list[int], axis: int, order: int, order_z: int) -> Any:
    """nnU-Net's ``resample_data_or_seg``: slices one by one, then places in the stack of them."""

    def places(new: list[int], old: tuple[int, ...]) -> np.ndarray:
        grid = np.mgrid[tuple(slice(side) for side in new)].astype(float)
        for along, (n, o) in enumerate(zip(new, old, strict=True)):
            grid[along] = o / n * (grid[along] + 0.5) - 0.5
        return grid

    plane = [side for along, side in enumerate(shape) if along != axis]
    slices = [
        map_coordinates(one, places(plane, one.shape), order=order, mode="nearest")
        for one in np.moveaxis(volume, axis, 0)
    ]
    stack = np.stack(slices, axis)
    return map_coordinates(stack, places(shape, stack.shape), order=order_z, mode="nearest")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("how", ["linear", "nearest"])
@pytest.mark.parametrize("slices", [(5, 10), (10, 4), (7, 7), (1, 2)])
def test_each_slice_is_resampled_by_itself_as_in_nnunet(
    axis: int, how: Any, slices: tuple[int, int]
) -> None:
    sides, new = [12, 15], [17, 11]
    sides.insert(axis, slices[0])
    new.insert(axis, slices[1])
    volume = np.random.default_rng(axis).normal(size=sides).astype(np.float32)
    across = Across(axis, {"nearest": 0, "linear": 1}[how])
    found = resample_image(volume, new, False, across)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, nnunets(volume, new, axis, 3, across.order), atol=1e-5)


def test_no_value_comes_in_from_another_slice() -> None:
    """A cubic spline over all axes rings from one bright slice into the next."""
    volume = np.zeros((8, 8, 6), np.float32)
    volume[..., 3] = 100
    spacing = ((1, 1, 6), (1, 1, 2))
    shape = resampled_shape(spacing[1], spacing[0], volume.shape)
    apart = resample_image(volume, shape, False, across_slices("nearest", *spacing))
    assert set(np.unique(apart)) == {0, 100}
    assert resample_image(volume, shape, False).min() < -5


def test_labels_of_a_slice_are_those_of_the_nearest_one() -> None:
    label = np.random.default_rng(1).integers(0, 3, (9, 9, 4)).astype(np.uint8)
    found = resample_label(label, [9, 9, 8], Across(2, 0))
    assert np.array_equal(found, np.repeat(label, 2, axis=2))
    finer = resample_label(label, [18, 18, 4], Across(2, 0))
    slices = [resample_label(label[..., [z]], [18, 18, 1]) for z in range(4)]
    assert np.array_equal(finer, np.concatenate(slices, axis=2))


def test_the_background_stays_zero_slice_by_slice() -> None:
    volume = np.zeros((10, 10, 4), np.float32)
    volume[3:7, 3:7, 1] = 50
    found = resample_image(volume, [20, 20, 8], True, Across(2, 0))
    assert not found[..., [0, 1, 4, 5, 6, 7]].any()
    assert not found[:5].any() and (found[7:13, 7:13, 2:4] > 40).all()
