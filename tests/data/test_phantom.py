"""The phantom: the properties that a workflow relies on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.phantom import case_names, make_case, write_phantom
from voxelsoup.study.sections.data import Dataset, Phantom

CHANNELS = ["t1n", "t1c", "t2w", "t2f"]
TINY = Phantom(cases=4, shape=[32, 32, 24], seed=3)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.rglob("*.nii.gz"))}


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write_phantom(tmp_path / name, TINY.model_copy(update={"seed": seed}))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert set(hashes(tmp_path / "one").values()).isdisjoint(hashes(tmp_path / "other").values())


def test_more_cases_leave_the_first_ones_alone(tmp_path: Path) -> None:
    write_phantom(tmp_path / "few", TINY)
    write_phantom(tmp_path / "more", TINY.model_copy(update={"cases": 5}))
    assert hashes(tmp_path / "few").items() <= hashes(tmp_path / "more").items()


def test_the_phantom_is_a_brats_data_set(phantom_folder: Path) -> None:
    cases = find_cases(Dataset(layout="phantom", channels=CHANNELS), phantom_folder)
    assert [case.name for case in cases] == case_names(6)
    for case in cases:
        assert case.label is not None
        label = nib.load(case.label.file)
        assert nib.aff2axcodes(label.affine) == ("L", "P", "S")
        assert set(np.unique(label.dataobj)) <= {0, 1, 2, 3}
        for source in case.channels.values():
            image = nib.load(source.file)
            assert image.get_data_dtype() == np.int16
            assert image.shape == label.shape
            np.testing.assert_array_equal(image.affine, label.affine)


def test_some_patients_of_the_phantom_have_two_visits() -> None:
    names = case_names(24)
    assert len(set(names)) == 24
    assert "Phantom-0003-000" in names
    assert "Phantom-0003-001" in names
    assert 2 <= sum(name.endswith("-001") for name in names) <= 8


def test_the_phantom_looks_like_a_skull_stripped_brain_with_nested_lesions() -> None:
    cases = [make_case(np.random.default_rng(seed), [48, 56, 40]) for seed in range(12)]
    assert len({label.shape for _, label in cases}) > 6
    enhancing = []
    for channels, label in cases:
        assert all(side <= most for side, most in zip(label.shape, [48, 56, 40], strict=True))
        brain = channels["t1n"] > 0
        assert 0.2 < brain.mean() < 0.6
        assert not (label[~brain]).any()
        assert all(((volume > 0) == brain).all() for volume in channels.values())
        assert (label > 0).any()
        enhancing.append(bool((label == 3).any()))
        healthy = brain & (label == 0)
        # Hard: the lesion's mean lies within the spread of the healthy tissue.
        lesion, tissue = channels["t2f"][label > 0], channels["t2f"][healthy]
        assert 0 < lesion.mean() - tissue.mean() < 2.5 * tissue.std()
    assert any(enhancing)


def test_a_phantom_without_room_for_a_lesion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves no room") as caught:
        write_phantom(tmp_path, Phantom(cases=4, shape=[12, 12, 12]))
    assert caught.value.where == "dataset.phantom.shape"
    assert "larger" in caught.value.fix
    write_phantom(tmp_path, Phantom(cases=4, shape=[16, 16, 16]))


def test_some_lesions_do_not_enhance() -> None:
    cases = [make_case(np.random.default_rng(seed), [32, 32, 24]) for seed in range(40)]
    without = sum(not (label == 3).any() for _, label in cases)
    assert 1 <= without <= 20
