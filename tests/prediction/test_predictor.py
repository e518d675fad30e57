"""A case becomes a label map in the geometry of its scan."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from references.prediction import probabilities_by_monai
from support.model_files import lively, save_model
from support.runs import small_study
from support.scans import CHANNELS, affine_of, voxels, write_scan
from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Source
from voxelsoup.data.preprocessing.preprocess import preprocess_image
from voxelsoup.data.regions import label_order
from voxelsoup.evaluation.postprocessing import Postprocessing, RegionRule, ReplacementRule
from voxelsoup.models import networks, weight_files
from voxelsoup.prediction.model_files import ModelFile, open_models
from voxelsoup.prediction.predictor import PredictionSettings, Predictor
from voxelsoup.study.sections.data import Preprocess
from voxelsoup.study.sections.training import Axis

CPU = torch.device("cpu")
ORIENTATIONS = [
    "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(["RL", "AP", "SI"])
    for flips in itertools.product([0, 1], repeat=3)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """The small study's network with random weights that say something."""
    return lively(tmp_path_factory.mktemp("model") / "model.safetensors", 0)


def by_order(probabilities: np.ndarray, model: ModelFile) -> np.ndarray:
    regions = list(model.description.regions)
    labels = np.zeros(probabilities.shape[:3], np.uint8)
    for region, value in {"WT": 2, "TC": 1, "ET": 3}.items():
        labels[probabilities[..., regions.index(region)] > 0.5] = value
    return labels


def test_probabilities_are_those_of_monai_and_labels_follow_from_them(
    model: ModelFile, tmp_path: Path
) -> None:
    channels = write_scan(tmp_path / "A", affine=affine_of("LPS", (1, 1, 2)))
    settings = PredictionSettings([model], label_order(model.description.regions), window_batch=2)
    shares: list[float] = []
    files = tmp_path / "labels.nii.gz", tmp_path / "probabilities.nii.gz"
    predicted = Predictor(settings, CPU, tmp_path).predict(channels, *files, shares.append)
    expected = probabilities_by_monai(model, channels, tmp_path)
    found = voxels(files[1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    labels = voxels(files[0])
    assert labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(labels, by_order(found, model))
    assert predicted.voxels == {value: int((labels == value).sum()) for value in (1, 2, 3)}
    assert shares == sorted(shares) and shares[-1] == 1
    for file in files:
        np.testing.assert_array_equal(nib.load(file).affine, affine_of("LPS", (1, 1, 2)))
    # Nothing but the two is left.
    assert {path.name for path in tmp_path.iterdir()} == {
        "A",
        "labels.nii.gz",
        "probabilities.nii.gz",
        "oracle.npy",
    }


class Single(TorchDispatchMode):
    """Refuses operations on tensors of double precision, which Apple's GPUs do not have."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, found)) if torch.is_tensor(one)]
        assert not any(tensor.dtype == torch.float64 for tensor in tensors), func
        return found


def test_nothing_is_computed_in_double_precision(model: ModelFile, tmp_path: Path) -> None:
    channels = write_scan(tmp_path / "A", affine=affine_of("LPS", (1, 1, 2)))
    order = label_order(model.description.regions)
    settings = PredictionSettings([model], order, window_batch=2, flips=True)
    with Single():
        Predictor(settings, CPU, tmp_path).predict(channels, tmp_path / "labels.nii.gz")
    assert set(np.unique(voxels(tmp_path / "labels.nii.gz"))) == {0, 1, 2, 3}


def test_several_models_and_mirror_images_are_averaged_in_probability(
    model: ModelFile, tmp_path: Path
) -> None:
    channels = write_scan(tmp_path / "A")
    other = lively(tmp_path / "other.safetensors", 1)
    settings = PredictionSettings(
        [model, other], label_order(model.description.regions), flips=True
    )
    predictor = Predictor(settings, CPU, tmp_path)
    predictor.predict(channels, tmp_path / "l.nii.gz", tmp_path / "p.nii.gz")

    def mirrored(axes: tuple[int, ...]) -> Callable[..., Any]:
        return lambda network: lambda windows: network(windows.flip(axes)).flip(axes)

    each = [
        probabilities_by_monai(one, channels, tmp_path, mirrored(axes))
        for one in (model, other)
        for count in range(4)
        for axes in itertools.combinations((2, 3, 4), count)
    ]
    assert len(each) == 16 and np.ptp(each, axis=0).max() > 0.1
    np.testing.assert_allclose(
        voxels(tmp_path / "p.nii.gz"), np.mean(each, axis=0), rtol=0, atol=1e-6
    )
    # A second case begins with the first model again.
    again = tmp_path / "again.nii.gz"
    predictor.predict(channels, again)
    assert again.read_bytes() == (tmp_path / "l.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("trained", "mirrored"),
    [
        ([["x", "y", "z"], ["y", "z"]], [(), (1,), (2,), (1, 2)]),
        ([["x"], ["y"]], [()]),
        ([[]], [()]),
    ],
)
def test_flips_are_along_the_axes_that_all_models_were_trained_with(
    model: ModelFile, trained: list[list[Axis]], mirrored: list[tuple[int, ...]]
) -> None:
    def with_axes(axes: list[Axis]) -> ModelFile:
        return replace(
            model, description=model.description.model_copy(update={"mirror_axes": axes})
        )

    models = [with_axes(axes) for axes in trained]
    order = label_order(model.description.regions)
    assert PredictionSettings(models, order, flips=True).mirrored == mirrored
    assert PredictionSettings(models, order, flips=False).mirrored == [()]


def test_each_model_normalises_ct_by_its_own_constants(tmp_path: Path) -> None:
    """A model of `ct` sees what one without normalisation sees of a scan rescaled by formula."""
    scan = write_scan(tmp_path / "A", margin=0)
    constants = [(60.0, 130.0, 90.0, 15.0), (80.0, 150.0, 110.0, 30.0)]
    models, expected = [], []
    for number, (lower, upper, mean, deviation) in enumerate(constants):
        own = {"lower": lower, "upper": upper, "mean": mean, "deviation": deviation}
        preprocess = {"crop": False, "normalisation": "ct"}
        preprocess["intensities"] = dict.fromkeys(CHANNELS, own)
        file = tmp_path / f"{number}.safetensors"
        models.append(lively(file, number, preprocess=preprocess))
        folder, rescaled = tmp_path / f"rescaled{number}", {}
        folder.mkdir()
        for channel, source in scan.items():
            image = nib.load(source.file)
            voxel = (np.clip(image.get_fdata(), lower, upper) - mean) / deviation
            path = folder / f"{channel}.nii.gz"
            nib.save(nib.Nifti1Image(voxel.astype(np.float32), image.affine), path)
            rescaled[channel] = Source(path)
        plain = {"crop": False, "normalisation": "none"}
        other = lively(tmp_path / f"plain{number}.safetensors", number, preprocess=plain)
        expected.append(predicted_probabilities([other], rescaled, tmp_path))
    found = predicted_probabilities(models, scan, tmp_path)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=0, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 0.1


def predicted_probabilities(
    models: list[ModelFile], scan: dict[str, Source], folder: Path
) -> np.ndarray:
    opened = open_models([model.path for model in models])
    settings = PredictionSettings(opened, label_order(opened[0].description.regions))
    files = folder / "labels.nii.gz", folder / "probabilities.nii.gz"
    Predictor(settings, CPU, folder).predict(scan, *files)
    return voxels(files[1])


def test_a_missing_channel_is_not_made_up_for_a_model_of_ct(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "A", margin=0)
    own = {"lower": 60, "upper": 130, "mean": 90, "deviation": 15}
    preprocess = {"normalisation": "ct", "intensities": dict.fromkeys(CHANNELS, own)}
    model = lively(tmp_path / "m.safetensors", 0, preprocess=preprocess)
    settings = PredictionSettings([model], label_order(model.description.regions))
    missing = list(scan)[1]
    rest = {name: source for name, source in scan.items() if name != missing}
    with pytest.raises(InputError, match=f"channel {missing}: is missing"):
        Predictor(settings, CPU, tmp_path).predict(
            rest, tmp_path / "l.nii.gz", missing={missing: 1}
        )
    assert not (tmp_path / "l.nii.gz").exists()


def test_a_model_of_ct_without_constants_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.safetensors", preprocess={"normalisation": "ct"})
    with pytest.raises(InputError, match="does not say how channel t1n was normalised"):
        open_models([path])


class Copies(nn.Module):
    """A perfect network: regions are read off the image itself."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        image = windows[:, :1]
        return torch.cat([image - 0.5, image - 1.5, image - 2.5], dim=1)


class PerfectModel(ModelFile):
    """A model file whose network is perfect."""

    def build(self, device: torch.device) -> nn.Module:
        return Copies()


@settings(max_examples=40, deadline=None)
@given(
    codes=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*3 * [st.integers(3, 22)]),
    spacing=st.tuples(*3 * [st.sampled_from([0.5, 1.0, 1.7])]),
    crop=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_perfect_network_gives_the_scan_s_own_labels_back(
    tmp_path_factory: pytest.TempPathFactory,
    codes: str,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    crop: bool,
    seed: int,
) -> None:
    """Whatever the scan's orientation, shape and box: its voxels are predicted where they lie."""
    folder = tmp_path_factory.mktemp("perfect")
    truth = np.random.default_rng(seed).integers(0, 4, shape)
    affine = affine_of(codes, spacing)
    nib.save(nib.Nifti1Image(truth.astype(np.int16), affine), folder / "scan.nii.gz")
    settings_ = {"crop": crop, "normalisation": "none"}
    regions = {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}
    study = small_study(dataset={"channels": ["a"]}, preprocess=settings_)
    description = weight_files.describe(study) | {"regions": regions}
    perfect = PerfectModel(folder, "0", _described(description))
    predictor = Predictor(PredictionSettings([perfect], label_order(regions)), CPU, folder)
    predictor.predict({"a": Source(folder / "scan.nii.gz")}, folder / "labels.nii.gz")
    found = nib.load(folder / "labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), truth)
    np.testing.assert_array_equal(found.affine, nib.load(folder / "scan.nii.gz").affine)


def _described(description: dict[str, Any]) -> Any:
    from voxelsoup.prediction.model_files import Description

    return Description.model_validate(description)


def test_a_study_with_a_spacing_predicts_in_the_scan_s_voxels(
    model: ModelFile, tmp_path: Path
) -> None:
    coarse = {"spacing": [2, 1.5, 1], "normalisation": "none"}
    smooth = np.zeros((24, 20, 18), np.int16)
    smooth[4:20, 4:16, 5:14] = 4
    nib.save(nib.Nifti1Image(smooth, affine_of("PIR", (1, 1, 1))), tmp_path / "scan.nii.gz")
    study = small_study(dataset={"channels": ["a"]}, preprocess=coarse)
    regions = {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}
    description = _described(weight_files.describe(study) | {"regions": regions})
    perfect = PerfectModel(tmp_path, "0", description)
    predictor = Predictor(PredictionSettings([perfect], label_order(regions)), CPU, tmp_path)
    predictor.predict({"a": Source(tmp_path / "scan.nii.gz")}, tmp_path / "labels.nii.gz")
    found = voxels(tmp_path / "labels.nii.gz")
    assert found.shape == smooth.shape
    # A box keeps its place; its edge moves by less than a coarse voxel.
    assert (found[6:18, 6:14, 7:12] == 3).all()
    outside = np.ones(smooth.shape, bool)
    outside[2:22, 2:18, 3:16] = False
    assert not found[outside].any()


def test_post_processing_is_that_of_the_evaluation(model: ModelFile, tmp_path: Path) -> None:
    channels = write_scan(tmp_path / "A", affine=affine_of("RAS", (1, 1, 2)))
    rules = {"TC": RegionRule(0.4), "WT": RegionRule(0.6, 40.0), "ET": RegionRule(0.5, 8.0)}
    chosen = Postprocessing(rules, ReplacementRule("ET", "TC", 1e6))
    order = label_order(model.description.regions)
    settings = PredictionSettings([model], order, postprocessing=chosen)
    files = tmp_path / "labels.nii.gz", tmp_path / "probabilities.nii.gz"
    Predictor(settings, CPU, tmp_path).predict(channels, *files)
    masks = chosen.apply(np.moveaxis(voxels(files[1]), -1, 0).copy(), (1, 1, 2))
    expected = np.zeros(masks.shape[1:], np.uint8)
    for region, value in order.items():
        expected[masks[list(rules).index(region)]] = value
    np.testing.assert_array_equal(voxels(files[0]), expected)
    assert set(np.unique(expected)) == {0, 1, 2}


def test_a_large_channel_buffered_on_disk_predicts_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = write_scan(tmp_path / "A", affine=affine_of("LPS", (1, 1, 2)), margin=2)
    flipped = nib.load(channels["t2w"].file)
    turned = flipped.as_reoriented(nib.orientations.axcodes2ornt("ILA"))
    nib.save(nib.as_closest_canonical(turned), channels["t2w"].file)
    found = []
    for limit in (2**27, 0):
        monkeypatch.setattr("voxelsoup.data.preprocessing.crop.PARKED_BYTES", limit)
        geometry = preprocess_image(channels, Preprocess(), [8, 8, 8], tmp_path / f"{limit}.npy")
        found.append((geometry, np.load(tmp_path / f"{limit}.npy")))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


MEASURED = """
import resource, sys
from pathlib import Path
import torch
from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Source
from voxelsoup.data.regions import label_order
from voxelsoup.prediction.model_files import open_models
from voxelsoup.prediction.predictor import Predictor, PredictionSettings

torch.set_num_threads(1)
files = open_models([Path("model.safetensors")])
settings = PredictionSettings(files, label_order(files[0].description.regions), overlap=0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
small = {"t1n": Source(Path("small.nii.gz"))}
Predictor(settings, torch.device("cpu"), Path()).predict(small, Path("s.nii.gz"))
before = peak()
channels = {"t1n": Source(Path("large.nii.gz"))}
Predictor(settings, torch.device("cpu"), Path()).predict(channels, Path("l.nii.gz"))
print(before, peak())
"""


def test_memory_is_bounded_by_the_patch(tmp_path: Path) -> None:
    """96 MB of voxels as float32 and 288 MB of probabilities: neither is ever whole in memory."""
    study = small_study(dataset={"channels": ["t1n"]}, training={"patch": [16, 16, 16]})
    with networks.seeded(0):
        network = networks.build(study.network, 1, 3)
    weight_files.save(
        tmp_path / "model.safetensors", network.state_dict(), weight_files.describe(study)
    )
    sides = {"small": (16, 256, 256), "large": (368, 256, 256)}
    for name, shape in sides.items():
        # Mostly empty, so that the windows take seconds; noise would only be slower to unpack.
        data = np.zeros(shape, np.int16)
        data[:, 100:110, 100:110] = np.arange(10, dtype=np.int16)
        data[-1, -1, -1] = data[0, 0, 0] = 1
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii.gz")
    result = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    before, peak = map(float, result.stdout.split())
    voxel_count = float(np.prod(sides["large"]))
    # Reading: the volume as stored, as float32, and where it is not 0; the label map comes later.
    channel_mb = (2 + 4 + 1 + 1) * voxel_count / 1e6
    assert peak - before < channel_mb + 40
    # Holding three regions and the image would take more than that beside it.
    assert 3 * 4 * voxel_count / 1e6 > channel_mb + 40
