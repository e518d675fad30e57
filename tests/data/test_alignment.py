"""Volumes on one grid: turned where they are stored in another order, refused where they moved."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from voxelsoup.common.errors import InputError
from voxelsoup.data.volumes.alignment import align
from voxelsoup.data.volumes.volume import Volume

FILES = (Path("t1c.mha"), Path("t1n.mha"))
CODES = [
    "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(["RL", "AP", "SI"])
    for flips in itertools.product([0, 1], repeat=3)
]


def volume(affine: np.ndarray | None = None) -> Volume:
    data = np.random.default_rng(0).integers(0, 900, (7, 6, 5)).astype(np.int16)
    return Volume(data, np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine)


def moved(by: float) -> Volume:
    affine = volume().affine.copy()
    affine[0, 3] += by
    return volume(affine)


@pytest.mark.parametrize("codes", CODES)
def test_any_axis_order_of_one_grid_is_turned(codes: str) -> None:
    reference = volume()
    image = nib.Nifti1Image(reference.data, reference.affine)
    stored = image.as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
        )
    )
    turned, note = align(Volume(np.asarray(stored.dataobj), stored.affine), reference, *FILES)
    np.testing.assert_array_equal(turned.data, reference.data)
    np.testing.assert_array_equal(turned.affine, reference.affine)
    assert (note is None) == (codes == "RAS")
    assert note is None or f"orientation {codes}, turned to RAS" in note


def test_align_accepts_rounding_and_refuses_a_shift() -> None:
    assert align(moved(5e-4), volume(), *FILES)[1] is None
    _, note = align(moved(0.04), volume(), *FILES)
    assert note is not None and "differs by up to 0.04 mm (0.04 voxels)" in note
    with pytest.raises(InputError, match=r"0\.06 mm.*, compared with t1n\.mha") as caught:
        align(moved(0.06), volume(), *FILES)
    assert caught.value.where == "t1c.mha"


def test_volumes_of_different_shapes_are_not_aligned() -> None:
    with pytest.raises(InputError, match="shape 6x6x5 instead of 7x6x5"):
        align(Volume(volume().data[1:], volume().affine), volume(), *FILES)


def test_align_turns_nothing_at_45_degrees() -> None:
    for angle in (44.9999, 45.0, 45.0001):
        turn = Rotation.from_euler("z", angle, degrees=True).as_matrix()
        other = Rotation.from_euler("z", 90 - angle, degrees=True).as_matrix()
        one, same = (volume(nib.affines.from_matvec(m, [0, 0, 0])) for m in (turn, other))
        aligned, _ = align(one, same, *FILES)
        np.testing.assert_array_equal(aligned.data, one.data)
