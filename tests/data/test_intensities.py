"""Normalisation by constants of a fold, against nnU-Net's formulas written down again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import ScaleIntensityRangePercentiles
from scipy import ndimage

from support.scans import write_nnunet
from voxelsoup.common.errors import InputError
from voxelsoup.data.index.index import index_cases
from voxelsoup.data.preprocessing.intensities import measure, rescale, with_intensities
from voxelsoup.data.preprocessing.normalise import normalise
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.models import weight_files
from voxelsoup.study.loading import load
from voxelsoup.study.sections.data import Intensities
from voxelsoup.study.study import Study
from voxelsoup.training.patches import Patches, PatchSource
from voxelsoup.training.run import run_settings

SIDE = 12


def scans() -> tuple[list[np.ndarray], np.ndarray]:
    """CT of three patients who differ, and the label map of all: 1, 2, and 9, which is ignored."""
    random = np.random.default_rng(0)
    label = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    label[2:6, 2:9, 3:9], label[7:10, 2:9, 3:9], label[:, :, -1] = 1, 2, 9
    images = []
    for patient in range(3):
        image = random.normal(-900, 30, label.shape)
        image[label == 1] = random.normal(60 + 40 * patient, 25, (label == 1).sum())
        image[label == 2] = random.normal(300, 90, (label == 2).sum())
        image[label == 9] = 3000
        images.append(image.round().astype(np.int16))
    return images, label


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    root, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("preprocessed")
    images, label = scans()
    write_nnunet(root, {"background": 0, "a": 1, "b": 2, "ignore": 9}, label, "CT", images)
    study = load(
        {
            "dataset": {
                "layout": "nnunet",
                "root": str(root),
                "channels": ["CT"],
                "ignore_label": 9,
            },
            "regions": {"a": [1], "b": [2]},
            "preprocess": {"normalisation": "ct"},
            "training": {"patch": [16, 16, 16], "batch_size": 2},
        }
    )
    found, _ = index_cases(study.dataset, study.regions, root, workers=1)
    preprocess_all(
        found, root, study.preprocess, [16, 16, 16], folder, folder / "manifest.tsv", 1, ignored=9
    )
    return folder, study


def nnunet(cases: list[int]) -> dict[str, float]:
    """The properties that nnU-Net's fingerprint has of the foreground of these cases."""
    images, label = scans()
    voxels = np.concatenate([images[case][(label == 1) | (label == 2)] for case in cases])
    return {
        "lower": np.percentile(voxels, 0.5),
        "upper": np.percentile(voxels, 99.5),
        "mean": voxels.mean(dtype=np.float64),
        "deviation": voxels.std(dtype=np.float64),
    }


@pytest.mark.parametrize("cases", [[0, 1], [1, 2], [0, 1, 2]])
def test_constants_are_those_of_nnunet_over_the_training_cases(
    prepared: tuple[Path, Study], cases: list[int]
) -> None:
    folder, study = prepared
    fold = with_intensities(study, [f"c{case}" for case in cases], folder)
    assert fold.preprocess.intensities is not None
    found = fold.preprocess.intensities["CT"].model_dump()
    assert found == {name: pytest.approx(value) for name, value in nnunet(cases).items()}
    # The model says them; the run is known by its cases, and by them alone.
    assert weight_files.describe(fold)["preprocess"]["intensities"] == {"CT": found}
    assert run_settings(fold, fold.optimizer, 1) == run_settings(study, study.optimizer, 1)


def test_a_patch_is_normalised_by_nnunets_formula_and_the_store_is_not(
    prepared: tuple[Path, Study],
) -> None:
    folder, study = prepared
    images, _ = scans()
    source = PatchSource.of(with_intensities(study, ["c0", "c1"], folder), ["c2"], folder, (0,))
    constants = nnunet([0, 1])
    stored = load_case(folder, "c2").image[0]
    inner = (slice(2, 2 + SIDE),) * 3
    np.testing.assert_array_equal(stored[inner], images[2])
    image = stored.astype(np.float32)
    image = np.clip(image, constants["lower"], constants["upper"])
    image = (image - constants["mean"]) / max(constants["deviation"], 1e-8)
    patch, _ = Patches(source)[0]
    np.testing.assert_allclose(patch[0].numpy(), image, rtol=0, atol=1e-5)


def test_stated_constants_hold_for_all_folds(prepared: tuple[Path, Study]) -> None:
    folder, study = prepared
    constants = {"CT": {"lower": -160, "upper": 240, "mean": 40, "deviation": 100}}
    settings = study.model_dump(exclude_unset=True)
    stated = load(settings | {"preprocess": {"normalisation": "ct", "intensities": constants}})
    assert with_intensities(stated, ["c0"], folder) is stated
    with pytest.raises(InputError, match="has constants of `CT`"):
        load(settings | {"preprocess": {"normalisation": "zscore", "intensities": constants}})


def test_a_patch_of_zeros_is_rescaled_like_any_other() -> None:
    # A window of a scan that is 0 there: the network must not see it otherwise than in the whole.
    own = Intensities(lower=-100, upper=300, mean=50, deviation=20)
    image = np.zeros((2, 3, 3, 3), np.float32)
    rescale(image, [own, None])
    assert (image[0] == -2.5).all() and (image[1] == 0).all()


def test_a_channel_that_cases_may_lack_is_not_normalised_by_constants(
    prepared: tuple[Path, Study],
) -> None:
    settings = prepared[1].model_dump(exclude_unset=True)
    dataset = settings["dataset"] | {"accept": {"missing_channels": "zeros"}}
    assert load(settings | {"dataset": dataset, "preprocess": {"normalisation": "zscore"}})
    with pytest.raises(InputError, match="`CT` normalised by `ct`") as caught:
        load(settings | {"dataset": dataset})
    assert "zscore" in caught.value.fix


def test_labelled_voxels_of_one_intensity_are_refused(
    tmp_path: Path, prepared: tuple[Path, Study]
) -> None:
    _, study = prepared
    label = np.ones((2, 2, 2), np.uint8)
    np.save(tmp_path / "flat.intensities.npy", measure([(0, np.zeros((2, 2, 2)))], label))
    with pytest.raises(InputError, match="all labelled voxels of the training cases are 0"):
        with_intensities(study, ["flat"], tmp_path)
    np.save(tmp_path / "empty.intensities.npy", measure([(0, label)], 0 * label))
    with pytest.raises(InputError, match="no voxel of the training cases is labelled"):
        with_intensities(study, ["empty"], tmp_path)


def test_many_different_values_are_thinned_out_without_moving_the_constants(
    tmp_path: Path, prepared: tuple[Path, Study]
) -> None:
    _, study = prepared
    voxels = np.random.default_rng(0).normal(40, 120, (60, 60, 60)).astype(np.float32)
    rows = measure([(0, voxels)], np.ones(voxels.shape, np.uint8))
    assert len(rows) == 2**16 and rows[:, 3].sum() == voxels.size
    np.save(tmp_path / "one.intensities.npy", rows)
    fold = with_intensities(study, ["one"], tmp_path)
    assert fold.preprocess.intensities is not None
    found = fold.preprocess.intensities["CT"]
    assert found.mean == pytest.approx(voxels.mean(dtype=np.float64), abs=1e-6)
    assert found.deviation == pytest.approx(voxels.std(dtype=np.float64), rel=1e-5)
    assert found.lower == pytest.approx(np.percentile(voxels, 0.5), abs=0.2)
    assert found.upper == pytest.approx(np.percentile(voxels, 99.5), abs=0.2)


def test_percentile_is_monais() -> None:
    image = np.random.default_rng(0).gamma(2, 50, (20, 21, 22)).astype(np.float32)
    theirs = ScaleIntensityRangePercentiles(0.5, 99.5, 0, 1, clip=True)(torch.tensor(image[None]))
    found = normalise(image.copy(), "percentile")
    np.testing.assert_allclose(found, np.asarray(theirs)[0], rtol=0, atol=1e-5)
    assert (found.min(), found.max()) == (0, 1)


def test_foreground_with_its_holes_is_normalised_as_nnunet_does_within_its_mask() -> None:
    random = np.random.default_rng(0)
    image = np.zeros((14, 14, 14), np.float32)
    image[2:12, 2:12, 2:12] = random.normal(100, 20, (10, 10, 10))
    image[5:7, 5:7, 5:7] = 0
    mask = ndimage.binary_fill_holes(image != 0)
    expected = np.zeros_like(image)
    expected[mask] = (image[mask] - image[mask].mean()) / image[mask].std()
    found = normalise(image.copy(), "zscore-foreground")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert found[5, 5, 5] < -2 and found[0, 0, 0] == 0


def test_channels_have_schemes_of_their_own() -> None:
    study = {"dataset": {"channels": ["CT", "PET"]}, "regions": {"a": [1]}}
    schemes = {"PET": "zscore", "CT": "ct"}
    preprocess = load(study | {"preprocess": {"normalisation": schemes}}).preprocess
    assert preprocess.by_fold(["CT", "PET"]) == ["CT"]
    for wrong in ({"CT": "ct"}, schemes | {"MR": "none"}):
        with pytest.raises(InputError, match=r"preprocess\.normalisation"):
            load(study | {"preprocess": {"normalisation": wrong}})


def test_a_study_that_states_nothing_new_is_written_down_as_before() -> None:
    study = load({"dataset": {"channels": ["t1n"]}, "regions": {"a": [1]}})
    assert "intensities" not in study.model_dump(mode="json")["preprocess"]
