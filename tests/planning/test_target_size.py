"""What is said beforehand of the disk that the ensemble's probabilities take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from support.runs import small_study
from voxelsoup.planning.target_size import notes_on_targets

# Large enough for two digits of a GB.
SIDES = [(400, 500, 300), (600, 500, 300)]
# Their mean, three regions, a byte each.
GIGABYTES = (400 + 600) / 2 * 500 * 300 * 3 / 1e9


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases, two of them unlabelled, of which nothing but the headers is read."""
    folder = tmp_path_factory.mktemp("scans")
    for number in range(12):
        case = f"BraTS-GLI-{number:05}-000"
        for part in ("t1n", "t1c", "t2w", "t2f", *(["seg"] if number < 10 else [])):
            path = folder / case / f"{case}-{part}.nii"
            path.parent.mkdir(exist_ok=True)
            header = nibabel.Nifti1Header()
            header.set_data_shape(SIDES[number % 2])
            header.set_data_dtype(np.uint8)
            header.set_zooms((1.0, 1.0, 2.0))
            header["vox_offset"], header["magic"] = 352, b"n+1"
            path.write_bytes(header.binaryblock + bytes(4))
    return folder


def note(scans: Path, finish: dict[str, Any], final: bool = False, **changes: Any) -> str:
    dataset = {"root": str(scans), "layout": "brats"}
    folds = {"count": 5, "run": [0, 1]}
    study = small_study(dataset=dataset, folds=folds, soup={"finish": finish}, **changes)
    return " ".join(notes_on_targets(study.model_copy(update={"final": final})))


def test_the_probabilities_take_a_byte_per_voxel_and_region_of_each_training_case(
    scans: Path,
) -> None:
    of_fold = 10 * 4 / 5 * GIGABYTES
    found = note(scans, {})
    assert f"{of_fold:.2g} GB of disk per fold, {2 * of_fold:.2g} GB for 2 folds" in found
    assert "10 headers read" in found


def test_unlabelled_cases_and_the_final_model_take_their_own(scans: Path) -> None:
    found = note(scans, {"unlabelled": True}, final=True)
    total = (2 * 4 / 5 + 1) * 12 * GIGABYTES
    assert f"{total:.2g} GB for 2 folds and the final model" in found


def test_scans_are_counted_as_they_are_resampled(scans: Path) -> None:
    found = note(scans, {}, preprocess={"spacing": [2.0, 2.0, 2.0]})
    assert f"{10 * 4 / 5 * GIGABYTES / 4:.2g} GB of disk per fold" in found


def test_nothing_is_said_where_nothing_is_kept(scans: Path, tmp_path: Path) -> None:
    assert note(scans, {"ensemble_share": 0}) == ""
    assert note(tmp_path, {}) == ""
    assert notes_on_targets(small_study()) == []
