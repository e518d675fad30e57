"""Volumes are cropped to their content, and none of it is lost."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voxelsoup.data.preprocessing.crop import common_box, cropped, everything, uncropped

SHAPE = (5, 4, 6)
VOLUMES = st.lists(
    arrays(np.int16, SHAPE, elements=st.sampled_from([0] * 30 + [1, -7]), fill=st.just(0)),
    min_size=1,
    max_size=3,
)


@given(VOLUMES)
def test_crops_put_back_are_the_volumes(volumes: list[np.ndarray]) -> None:
    found = [cropped(volume) for volume in volumes]
    for crop, volume in zip(found, volumes, strict=True):
        np.testing.assert_array_equal(crop.within(everything(SHAPE)), volume)


@given(VOLUMES)
def test_the_common_box_is_the_smallest_around_all(volumes: list[np.ndarray]) -> None:
    places = np.argwhere(np.any(volumes, axis=0))
    box = common_box(cropped(volume).box for volume in volumes)
    if not len(places):
        assert box is None
        return
    assert box is not None
    assert [start for start, _ in box] == places.min(axis=0).tolist()
    assert [stop for _, stop in box] == (places.max(axis=0) + 1).tolist()
    window = tuple(slice(*side) for side in box)
    for volume in volumes:
        np.testing.assert_array_equal(cropped(volume).within(box), volume[window])


def test_a_crop_is_a_copy_that_releases_the_volume_and_an_uncropped_volume_is_not() -> None:
    volume = np.ones(SHAPE, np.int16)
    assert not np.shares_memory(cropped(volume).voxels, volume)
    assert uncropped(volume).voxels is volume


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_crop_waits_on_the_disk(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.arange(120, dtype=np.int16).reshape(SHAPE, order=order)
    crop = cropped(volume)
    assert crop.parked(tmp_path) is crop
    monkeypatch.setattr("voxelsoup.data.preprocessing.crop.PARKED_BYTES", 1)
    parked = crop.parked(tmp_path)
    assert isinstance(parked.voxels, np.memmap) and parked.box == crop.box
    np.testing.assert_array_equal(parked.voxels, crop.voxels)
    assert list(tmp_path.iterdir()) == []
