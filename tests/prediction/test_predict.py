"""Scans become label maps in their own geometry: one case, many cases, the command."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from support.model_files import save_model
from support.runs import small_study
from voxelsoup.commands import cli
from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.common.files import sha256, write_json
from voxelsoup.data.case import Source
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.data.preprocessing.geometry import to_scanner
from voxelsoup.data.preprocessing.preprocess import preprocess_image
from voxelsoup.data.regions import label_order
from voxelsoup.evaluation.postprocessing import Postprocessing, RegionRule, ReplacementRule
from voxelsoup.models import networks, weight_files
from voxelsoup.prediction.model_files import ModelFile, open_models
from voxelsoup.prediction.outcomes import CaseOutcome, refuse_bad, write_outcomes
from voxelsoup.prediction.predictor import PredictionSettings, Predictor
from voxelsoup.runs.lease import Owner
from voxelsoup.study.sections.data import Phantom, Preprocess

CPU = torch.device("cpu")
CHANNELS = ["t1n", "t1c", "t2w", "t2f"]
ORIENTATIONS = [
    "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(["RL", "AP", "SI"])
    for flips in itertools.product([0, 1], repeat=3)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """The small study's network with random weights that say something."""
    return lively(tmp_path_factory.mktemp("model") / "model.safetensors", 0)


def lively(path: Path, seed: int, **changes: Any) -> ModelFile:
    """A model whose probabilities lie on both sides of one half."""
    save_model(path, seed, **changes)
    weights, description = weight_files.load(path)
    weight_files.save(path, {name: 2 * tensor for name, tensor in weights.items()}, description)
    return open_models([path])[0]


def affine_of(codes: str, spacing: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (target, flip) in enumerate(nib.orientations.axcodes2ornt(codes)):
        affine[int(target), axis] = flip * spacing[axis]
    affine[:3, 3] = [-11.5, 20, 3.25]
    return affine


def write_scan(
    folder: Path,
    shape: tuple[int, ...] = (30, 24, 20),
    affine: np.ndarray | None = None,
    margin: int = 3,
    channels: list[str] = CHANNELS,
    seed: int = 0,
) -> dict[str, Source]:
    """Noise with 0 in the margin."""
    folder.mkdir(parents=True, exist_ok=True)
    random, sources = np.random.default_rng(seed), {}
    inner = tuple(slice(margin, side - margin) for side in shape)
    for channel in channels:
        data = np.zeros(shape, np.float32)
        data[inner] = random.normal(100, 20, data[inner].shape)
        file = folder / f"{folder.name}-{channel}.nii.gz"
        nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), file)
        sources[channel] = Source(file)
    return sources


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@torch.inference_mode()
def probabilities_by_monai(
    model: ModelFile,
    channels: dict[str, Source],
    folder: Path,
    transform: Callable[[nn.Module], Callable[[torch.Tensor], torch.Tensor]] = lambda n: n,
) -> np.ndarray:
    """MONAI's sliding windows over the preprocessed image, put into the scanner's grid."""
    description = model.description
    geometry = preprocess_image(
        channels, description.preprocess, description.patch, folder / "oracle.npy"
    )
    image = torch.from_numpy(np.load(folder / "oracle.npy"))[None]
    logits = sliding_window_inference(
        image, description.patch, 2, transform(model.build(CPU)), overlap=0.5, mode="gaussian"
    )
    assert isinstance(logits, torch.Tensor)
    probabilities = logits.sigmoid()[0].numpy()
    padding = geometry["padding"]
    for axis, (before, after) in enumerate(padding, 1):
        probabilities = probabilities.take(range(before, probabilities.shape[axis] - after), axis)
    assert geometry["native_shape"] == geometry["resampled_shape"]
    return np.stack([to_scanner(region, geometry) for region in probabilities], axis=-1)


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


class Copies(nn.Module):
    """Stands for a perfect network: regions are read off the image itself."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        image = windows[:, :1]
        return torch.cat([image - 0.5, image - 1.5, image - 2.5], dim=1)


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
    perfect = ModelFile(folder, "0", _described(description))
    predictor = Predictor(PredictionSettings([perfect], label_order(regions)), CPU, folder)
    predictor._fitted = perfect, Copies()
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
    perfect = ModelFile(tmp_path, "0", description)
    predictor = Predictor(PredictionSettings([perfect], label_order(regions)), CPU, tmp_path)
    predictor._fitted = perfect, Copies()
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


def test_a_large_channel_that_waits_on_the_disk_is_the_same(
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


# --- many cases -----------------------------------------------------------------------------


def predict(*arguments: object) -> int:
    return cli.main(["predict", *map(str, arguments)])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three tiny BraTS cases without label maps."""
    folder = tmp_path / "scans"
    write_phantom(folder, Phantom(cases=4, shape=[24, 28, 24]))
    cases = sorted(folder.iterdir())
    shutil.rmtree(cases[3])
    for file in folder.rglob("*-seg.nii.gz"):
        file.unlink()
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_folder_is_predicted_and_what_is_done_is_kept(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(model.path, scans, out) == 0
    printed = capsys.readouterr()
    assert "3 cases predicted" in printed.out and "(3 of 3)" in printed.err
    files = sorted(out.glob("*.nii.gz"))
    assert {file.name for file in files} == {f"{case}.nii.gz" for case in names(scans)}
    for file in files:
        case = file.name.removesuffix(".nii.gz")
        first = nib.load(scans / case / f"{case}-t1n.nii.gz")
        found = nib.load(file)
        assert found.shape == first.shape and found.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(found.affine, first.affine)
    record = json.loads((out / ".voxelsoup" / f"{case}.json").read_text())
    assert record["label_order"] == {"WT": 2, "TC": 1, "ET": 3}
    assert list(record["label_order"]) == ["WT", "TC", "ET"]
    assert record["labels_sha256"] == sha256(file)

    dates = {file: file.stat().st_mtime_ns for file in files}
    assert predict(model.path, scans, out) == 0
    assert "0 cases predicted, 3 already existed" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in files} == dates

    # A changed scan, a changed label map, and one without its record's blessing.
    t1n = next(scans.rglob("*0000*-t1n.nii.gz"))
    image = nib.load(t1n)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), t1n)
    files[1].write_bytes(b"something else")
    assert predict(model.path, scans, out) == 0
    assert "2 cases predicted, 1 already existed" in capsys.readouterr().out
    # Another way of predicting is another prediction.
    assert predict(model.path, scans, out, "--overlap", "0.25") == 0
    assert "3 cases predicted\n" in capsys.readouterr().out
    assert predict(model.path, scans, out, "--overlap", "0.25", "--overwrite") == 0
    assert "3 cases predicted\n" in capsys.readouterr().out


def test_bad_cases_are_named_and_stop_no_other(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(model.path, scans, out) == 0
    first, second, third = sorted(names(scans))
    (scans / first / f"{first}-t1c.nii.gz").write_bytes(b"junk")
    (scans / second / f"{second}-t2f.nii.gz").unlink()
    capsys.readouterr()
    assert predict(model.path, scans, out) == 1
    printed = capsys.readouterr()
    assert "0 cases predicted, 1 already existed" in printed.out
    listing = printed.err.split("2 cases could not be predicted\n")[1].splitlines()
    assert [line.split(":")[0] for line in listing] == [f"  - {first}", f"  - {second}"]
    assert "has no NIfTI header" in listing[0] and "no such file" in listing[1]
    # What was predicted of other files is not left to be taken for theirs.
    assert names(out) == {f"{third}.nii.gz"}


def test_nan_is_not_taken_for_background(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, description = weight_files.load(model.path)
    broken = tmp_path / "broken.safetensors"
    lost = {name: tensor * float("nan") for name, tensor in weights.items()}
    weight_files.save(broken, lost, description)
    assert predict(broken, scans, tmp_path / "out") == 1
    assert "gives NaN as probabilities, in float32" in capsys.readouterr().err
    # Nor where others that it is averaged with give some.
    assert predict(broken, model.path, scans, tmp_path / "out") == 1
    assert names(tmp_path / "out") == set()


def test_a_killed_prediction_is_repeated(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(model.path, scans, out) == 0
    case = sorted(names(scans))[0]
    path = out / ".voxelsoup" / f"{case}.json"
    record = json.loads(path.read_text())
    whole = (out / f"{case}.nii.gz").read_bytes()
    # As it is between the label map and the end of its record.
    write_json(path, {key: record[key] for key in ("case", "key", "files", "sha256")})
    capsys.readouterr()
    assert predict(model.path, scans, out) == 0
    assert "one case predicted, 2 already existed" in capsys.readouterr().out
    assert (out / f"{case}.nii.gz").read_bytes() == whole


def test_files_of_others_are_not_replaced(
    model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "flat"
    one = lively(tmp_path / "one.safetensors", 0, dataset={"channels": ["mri"]})
    write_scan(study, channels=["0000"])
    (study / "flat-0000.nii.gz").rename(study / "scan.nii.gz")
    before = (study / "scan.nii.gz").read_bytes()
    for options in ([], ["--overwrite"]):
        assert predict(one.path, study, study, *options) == 1
        assert "already exists and was not predicted here" in capsys.readouterr().err
    assert (study / "scan.nii.gz").read_bytes() == before
    # The same folder by another name, and the one where probabilities go.
    (tmp_path / "link").symlink_to(study)
    assert predict(one.path, study, tmp_path / "link", "--overwrite") == 1
    assert (study / "scan.nii.gz").read_bytes() == before
    study = study.rename(tmp_path / "probabilities")
    for options in ([], ["--overwrite"]):
        assert predict(one.path, study, tmp_path, *options) == 1
        assert (study / "scan.nii.gz").read_bytes() == before
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scan.nii.gz").write_bytes(b"precious")
    assert predict(one.path, study, tmp_path / "out") == 1
    assert (tmp_path / "out/scan.nii.gz").read_bytes() == b"precious"


def test_predictions_among_the_scans_are_no_cases(
    model: ModelFile, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model.path, scans, scans / "predicted", "--probabilities") == 0
    capsys.readouterr()
    assert predict(model.path, scans, scans / "predicted", "--probabilities") == 0
    assert "0 cases predicted, 3 already existed" in capsys.readouterr().out


def test_what_a_killed_process_held_on_the_disk_is_removed_by_the_next(
    model: ModelFile, scans: Path, tmp_path: Path
) -> None:
    records = tmp_path / "out/.voxelsoup"
    dead, alive = (records / f"voxelsoup-scratch-{name}" for name in ("dead", "alive"))
    this = Owner.this_process()
    write_json(alive / "owner.json", asdict(this))
    # Its number is now that of a process that began at another time.
    write_json(dead / "owner.json", asdict(this) | {"started": 1})
    (dead / "image.npy").write_bytes(b"large")
    assert predict(model.path, scans, tmp_path / "out") == 0
    assert [path for path in records.iterdir() if path.is_dir()] == [alive]


def test_an_interrupted_prediction_prints_no_traceback(
    model: ModelFile,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("voxelsoup.prediction.batch.check_case", interrupted)
    assert predict(model.path, scans, tmp_path / "out") == 130
    assert capsys.readouterr().err.endswith("\nvoxelsoup: interrupted\n")


def test_names_for_submissions_are_checked(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = sorted(names(scans))
    for file in (scans / first).iterdir():
        file.rename(file.with_name(file.name.replace(first, "BraTS-GLI-00005-101")))
    (scans / first).rename(scans / "BraTS-GLI-00005-101")
    assert predict(model.path, scans, tmp_path / "out", "--naming", "brats") == 1
    assert names(tmp_path / "out") == {"BraTS-GLI-00005-101.nii.gz"}
    printed = capsys.readouterr().err
    assert all(
        f"{case}: is not a name that the BraTS challenges accept" in printed for case in others
    )


# --- what INPUT may be ----------------------------------------------------------------------


def layout_nnunet(folder: Path, training: bool) -> set[str]:
    kind = "Tr" if training else "Ts"
    names = {"0": "t1n", "1": "t1c", "2": "t2w", "3": "t2f"}
    write_json(folder / "dataset.json", {"channel_names": names, "file_ending": ".nii.gz"})
    for case in ("one", "two"):
        for number, source in enumerate(write_scan(folder / case, (18, 17, 16)).values()):
            target = folder / f"images{kind}" / f"{case}_{number:04d}.nii.gz"
            target.parent.mkdir(exist_ok=True)
            source.file.rename(target)
        (folder / case).rmdir()
    return {"one", "two"}


def four_dimensional(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).normal(100, 20, (18, 17, 16, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), file)


def layout_decathlon(folder: Path) -> set[str]:
    for name in ("imagesTr/brain_1.nii.gz", "imagesTs/brain_2.nii.gz"):
        four_dimensional(folder / name)
    description = {
        "modality": {str(number): name for number, name in enumerate(CHANNELS)},
        "training": [{"image": "./imagesTr/brain_1.nii.gz", "label": "./labelsTr/no.nii.gz"}],
        "test": ["./imagesTs/brain_2.nii.gz"],
    }
    write_json(folder / "dataset.json", description)
    return {"brain_1", "brain_2"}


def layout_test_images_alone(folder: Path) -> set[str]:
    four_dimensional(folder / "imagesTs/brain_2.nii.gz")
    return {"brain_2"}


def layout_flat(folder: Path) -> set[str]:
    names = layout_nnunet(folder, training=True)
    for file in (folder / "imagesTr").iterdir():
        file.rename(folder / file.name)
    (folder / "imagesTr").rmdir()
    (folder / "dataset.json").unlink()
    return names


def layout_table(folder: Path) -> set[str]:
    """Without the column of the label maps, which new scans do not have."""
    channels = write_scan(folder / "files", (18, 17, 16))
    row = [str(source.file.relative_to(folder)) for source in channels.values()]
    lines = [",".join(cells) for cells in (["case", *channels], ["new", *row])]
    (folder / "cases.csv").write_text("\n".join(lines))
    return {"new"}


def layout_one_case(folder: Path) -> set[str]:
    write_scan(folder, (18, 17, 16))
    (folder / f"{folder.name}-seg.nii.gz").write_bytes(b"never read")
    return {folder.name}


LAYOUTS: dict[str, Callable[[Path], set[str]]] = {
    "nnunet": lambda folder: layout_nnunet(folder, training=True),
    "nnunet-test": lambda folder: layout_nnunet(folder, training=False),
    "decathlon": layout_decathlon,
    "test-images": layout_test_images_alone,
    "flat": layout_flat,
    "one-case": layout_one_case,
    "table": layout_table,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_read(model: ModelFile, tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    cases = LAYOUTS[layout](folder)
    assert predict(model.path, folder, tmp_path / "out") == 0
    assert names(tmp_path / "out") == {f"{case}.nii.gz" for case in cases}


def test_one_case_is_a_volume_or_named_files(model: ModelFile, tmp_path: Path) -> None:
    four_dimensional(tmp_path / "brain_7.nii.gz")
    assert predict(model.path, tmp_path / "brain_7.nii.gz", tmp_path / "out") == 0
    channels = write_scan(tmp_path / "P-1", (18, 17, 16))
    # In any order: names decide.
    given = ",".join(f"{name}={source}" for name, source in reversed(channels.items()))
    assert predict(model.path, given, tmp_path / "out", "--probabilities") == 0
    assert names(tmp_path / "out") == {"brain_7.nii.gz", "P-1.nii.gz", "probabilities"}
    expected = probabilities_by_monai(model, channels, tmp_path)
    found = voxels(tmp_path / "out/probabilities/P-1.nii.gz")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_volume_of_no_channel_is_reported(
    model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    write_scan(folder / "one", (18, 17, 16))
    for file in (folder / "one").iterdir():
        file.rename(folder / file.name)
    (folder / "one").rmdir()
    for name in ("one-seg", "one_brainmask", "one"):
        (folder / f"{name}.nii.gz").write_bytes(b"never read")
    assert predict(model.path, folder, tmp_path / "out") == 0
    (folder / "two-T1N.nii.gz").write_bytes(b"never read")
    assert predict(model.path, folder, tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "0 cases predicted, 1 already existed" in printed.out
    assert (
        "two-T1N.nii.gz: belongs to no case beside it, and its name does not end in a channel"
        in printed.err
    )


def test_a_volume_with_more_components_than_channels_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = lively(tmp_path / "two.safetensors", 0, dataset={"channels": ["t1n", "t1c"]})
    four_dimensional(tmp_path / "brain.nii.gz")
    assert predict(model.path, tmp_path / "brain.nii.gz", tmp_path / "out") == 1
    assert "holds 4 components" in capsys.readouterr().err


def test_a_folder_or_a_broken_link_in_a_file_s_place_is_called_so(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = sorted(scans.iterdir())
    (folder,) = first.glob("*-t1c.nii.gz")
    folder.unlink()
    folder.mkdir()
    (link,) = second.glob("*-t1c.nii.gz")
    link.unlink()
    link.symlink_to("nowhere")
    assert predict(model.path, scans, tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert "it is a folder" in printed
    assert "it is a link to nowhere, which is not there" in printed


def test_channels_of_other_names_have_to_be_stated(
    model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = ["t1", "t1ce", "t2", "flair"]
    for case in ("BraTS20_001", "BraTS20_002"):
        write_scan(tmp_path / "in" / case, (18, 17, 16), channels=old)
    assert predict(model.path, tmp_path / "in", tmp_path / "out") == 1
    assert "has channels named t1, t1ce, t2 and flair" in capsys.readouterr().err
    stated = ["--channels", ",".join(old)]
    assert predict(model.path, tmp_path / "in", tmp_path / "out", *stated) == 0
    assert len(names(tmp_path / "out")) == 2
    assert predict(model.path, tmp_path / "in", tmp_path / "out", "--channels", "t1") == 1


def test_numbered_channels_are_told_apart_by_their_names(model: ModelFile, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    layout_nnunet(folder, training=False)
    assert predict(model.path, folder, tmp_path / "one") == 0
    # The same data set with its channels in another order.
    swapped = {"0": "T2F", "1": "T1c", "2": "t2w", "3": "t1n"}
    write_json(folder / "dataset.json", {"channel_names": swapped, "file_ending": ".nii.gz"})
    for case in ("one", "two"):
        first, last = (folder / "imagesTs" / f"{case}_{n}.nii.gz" for n in ("0000", "0003"))
        first.rename(folder / "first")
        last.rename(first)
        (folder / "first").rename(last)
    assert predict(model.path, folder, tmp_path / "two") == 0
    for case in ("one", "two"):
        found = [(tmp_path / out / f"{case}.nii.gz").read_bytes() for out in ("one", "two")]
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["IN", "OUT"], "has 2 arguments"),
        (["MODEL"], "has one argument"),
        (["MODEL", "", "OUT"], "has nothing as argument 2 of 3"),
        (["MODEL", "IN", "MODEL"], "cannot be written: Not a directory"),
        (["MODEL", "nowhere", "OUT"], "there is no such file or folder"),
        (["MODEL", "t1n=a.nii,t1c=b.nii", "OUT"], "names the channels t1n, t1c"),
        (["MODEL", "IN", "OUT", "--overlap", "1"], "--overlap 1: is out of range"),
        (["MODEL", "IN", "OUT", "--threads", "0"], "--threads 0: is out of range"),
        (["MODEL", "IN", "OUT", "--postprocess"], "has no post-processing beside it"),
        (["MODEL", "IN", "OUT", "--label-order", "WT=2"], "--label-order: names WT"),
        (["MODEL", "EMPTY", "OUT"], "holds no data set that voxelsoup knows"),
        (["IN", "IN", "OUT"], "holds no model"),
    ],
)
def test_mistakes_are_reported_before_anything_is_computed(
    model: ModelFile,
    scans: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "IN": scans,
        "OUT": tmp_path / "out",
        "MODEL": model.path,
        "EMPTY": tmp_path / "empty",
    }
    assert predict(*(places.get(word, word) for word in arguments)) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
def test_real_scans_are_predicted_in_their_own_grid(
    brats_folder: Path, hippocampus_folder: Path, tmp_path: Path
) -> None:
    small = {"preprocess": {"spacing": [4, 4, 4]}}
    model = lively(tmp_path / "brats.safetensors", 0, **small)
    (first, *_) = sorted(brats_folder.rglob("*-t1n.nii.gz"))
    assert predict(model.path, first.parent, tmp_path / "brats", "--overlap", "0") == 0
    (file,) = (tmp_path / "brats").glob("*.nii.gz")
    assert nib.load(file).shape == nib.load(first).shape
    np.testing.assert_allclose(nib.load(file).affine, nib.load(first).affine, atol=1e-5)
    one = {"dataset": {"channels": ["mri"]}, "preprocess": {"normalisation": "zscore"}}
    model = lively(tmp_path / "hippocampus.safetensors", 0, **one)
    scan = sorted((hippocampus_folder / "imagesTr").glob("*.nii.gz"))[0]
    assert predict(model.path, scan, tmp_path / "hippocampus") == 0
    found, first = nib.load(tmp_path / "hippocampus" / scan.name), nib.load(scan)
    assert found.shape == first.shape
    np.testing.assert_allclose(found.affine, first.affine, atol=1e-5)


def test_records_of_before_the_renaming_become_rows_like_any_other(tmp_path: Path) -> None:
    problem = InputError("a.nii", "is odd", "even", "add one")
    now = CaseOutcome("b", "bad", 1.0, problem).as_record()
    before = {"mend" if key == "fix" else key: value for key, value in now.items()} | {"case": "a"}
    write_outcomes(tmp_path / "predictions.tsv", [now, before])
    with pytest.raises(BadCases) as caught:
        refuse_bad(tmp_path / "predictions.tsv")
    assert {name: p.fix for name, p in caught.value.problems.items()} == dict.fromkeys(
        "ab", "add one"
    )
