from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import NormalizeIntensity
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.data.case import Source
from voxelsoup.data.index.index import IndexedCase
from voxelsoup.data.preprocessing import preprocess as module
from voxelsoup.data.preprocessing.geometry import restore, to_scanner
from voxelsoup.data.preprocessing.preprocess import fingerprint, preprocess_all, preprocess_case
from voxelsoup.data.preprocessing.resample import resample_image
from voxelsoup.data.preprocessing.store import load_case, load_ground_truth, read_manifest
from voxelsoup.data.volumes.volume import joint_hash
from voxelsoup.study.sections.data import Preprocess

DATA = Path(__file__).parents[3] / "shared" / "data"
PATCH = [8, 8, 8]
ORIENTATIONS = [
    "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(["RL", "AP", "SI"])
    for flips in itertools.product([0, 1], repeat=3)
]


def oriented_affine(codes: str, spacing: tuple[float, ...]) -> np.ndarray:
    orientation = nib.orientations.axcodes2ornt(codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (target, flip) in enumerate(orientation):
        affine[int(target), axis] = flip * spacing[axis]
    affine[:3, 3] = [-11.5, 20, 3.25]
    return affine


def make_case(
    root: Path,
    name: str = "one",
    shape: tuple[int, ...] = (13, 10, 12),
    codes: str = "LPS",
    spacing: tuple[float, ...] = (1, 1, 1),
    seed: int = 0,
    margin: int = 2,
) -> IndexedCase:
    """Two channels, 0 in the margin, and a label map of the values 0, 1 and 4."""
    random = np.random.default_rng(seed)
    affine = oriented_affine(codes, spacing)
    inner = tuple(slice(margin, side - margin) for side in shape)
    channels = {}
    for number, channel in enumerate(("t1n", "t2w")):
        data = np.zeros(shape, np.float32)
        data[inner] = random.normal(100 * (number + 1), 20, data[inner].shape)
        nib.save(nib.Nifti1Image(data, affine), root / f"{name}-{channel}.nii.gz")
        channels[channel] = Source(Path(f"{name}-{channel}.nii.gz"))
    label = np.zeros(shape, np.uint8)
    label[inner] = random.choice(np.array([0, 0, 1, 4], np.uint8), label[inner].shape)
    nib.save(nib.Nifti1Image(label, affine), root / f"{name}-seg.nii.gz")
    case = IndexedCase(
        name=name,
        patient=name,
        channels=channels,
        label=Source(Path(f"{name}-seg.nii.gz")),
        shape=shape,  # type: ignore[arg-type]
        spacing=spacing,  # type: ignore[arg-type]
        labels=[0, 1, 4],
        sha256="",
    )
    return seen(root, case)


def seen(root: Path, case: IndexedCase) -> IndexedCase:
    """The case as the index sees its files now."""
    sources = [*case.channels.values(), *([case.label] if case.label else [])]
    return replace(case, sha256=joint_hash(sha256(root / source.file) for source in sources))


def stored_label(root: Path, case: IndexedCase) -> np.ndarray:
    assert case.label is not None
    return np.asarray(nib.load(root / case.label.file).dataobj)


@settings(max_examples=40, deadline=None)
@given(
    codes=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*3 * [st.integers(3, 14)]),
    margin=st.integers(0, 1),
    crop=st.booleans(),
    patch=st.tuples(*3 * [st.integers(1, 20)]),
)
def test_without_resampling_a_label_map_returns_to_the_scanner_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    codes: str,
    shape: tuple[int, ...],
    margin: int,
    crop: bool,
    patch: tuple[int, ...],
) -> None:
    root = tmp_path_factory.mktemp("there-and-back")
    case = make_case(root, shape=shape, codes=codes, margin=margin, spacing=(1, 2, 3))
    preprocess_case(case, root, Preprocess(crop=crop), [*patch], root / "out")
    loaded = load_case(root / "out", case.name)
    assert loaded.image.shape[1:] == loaded.label.shape
    assert all(side >= least for side, least in zip(loaded.label.shape, patch, strict=True))
    truth = load_ground_truth(root / "out", case.name)
    restored = restore(np.stack([loaded.label, loaded.label == 4]), loaded.geometry)
    np.testing.assert_array_equal(restored[0], truth)
    stored = stored_label(root, case)
    np.testing.assert_array_equal(to_scanner(restored[0], loaded.geometry), stored)
    np.testing.assert_array_equal(to_scanner(restored[1], loaded.geometry), stored == 4)
    assert to_scanner(truth, loaded.geometry).dtype == np.uint8


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "IPR", "PIL"])
def test_orientation_is_that_of_nibabel(tmp_path: Path, codes: str) -> None:
    case = make_case(tmp_path, codes=codes, spacing=(1, 1.5, 2))
    plain = Preprocess(crop=False, normalisation="none")
    preprocess_case(case, tmp_path, plain, [1, 1, 1], tmp_path / "out")
    loaded = load_case(tmp_path / "out", case.name)
    for channel, source in zip(loaded.image, case.channels.values(), strict=True):
        expected = nib.as_closest_canonical(nib.load(tmp_path / source.file))
        np.testing.assert_array_equal(channel, expected.get_fdata(dtype=np.float32))
        np.testing.assert_allclose(loaded.geometry["ras_affine"], expected.affine)
        np.testing.assert_allclose(
            loaded.geometry["spacing_before"], expected.header.get_zooms(), rtol=1e-6
        )


def test_crop_keeps_labelled_voxels_outside_the_brain(tmp_path: Path) -> None:
    case = make_case(tmp_path, codes="RAS", shape=(12, 12, 12), margin=4)
    label = stored_label(tmp_path, case).copy()
    label[1, 4, 4] = 1
    nib.save(nib.Nifti1Image(label, oriented_affine("RAS", (1, 1, 1))), tmp_path / "one-seg.nii.gz")
    preprocess_case(seen(tmp_path, case), tmp_path, Preprocess(), [9, 1, 7], tmp_path / "out")
    geometry = load_case(tmp_path / "out", "one").geometry
    assert geometry["crop"] == [[1, 8], [4, 8], [4, 8]]
    assert geometry["padding"] == [[1, 1], [0, 0], [1, 2]]
    assert geometry["shape"] == [9, 4, 7]


@pytest.mark.parametrize("nonzero", [True, False])
def test_normalisation_is_that_of_monai(tmp_path: Path, nonzero: bool) -> None:
    case = make_case(tmp_path, codes="RAS")
    settings_ = Preprocess(normalisation="zscore-nonzero" if nonzero else "zscore", crop=False)
    preprocess_case(case, tmp_path, settings_, [1, 1, 1], tmp_path / "out")
    image = load_case(tmp_path / "out", "one").image
    raw = np.stack([nib.load(tmp_path / s.file).get_fdata() for s in case.channels.values()])
    expected = NormalizeIntensity(nonzero=nonzero, channel_wise=True)(raw)
    np.testing.assert_allclose(image, np.asarray(expected), atol=1e-5)
    if nonzero:
        np.testing.assert_array_equal(image[raw == 0], 0)


@pytest.mark.parametrize("normalisation", ["zscore-nonzero", "zscore"])
@pytest.mark.parametrize("value", [0, 7, 0.1])
def test_a_channel_without_contrast_becomes_zero(
    tmp_path: Path, normalisation: str, value: float
) -> None:
    case = make_case(tmp_path)
    data = np.full((13, 10, 12), value, np.float32)
    nib.save(nib.Nifti1Image(data, oriented_affine("LPS", (1, 1, 1))), tmp_path / "one-t1n.nii.gz")
    settings_ = Preprocess.model_validate({"normalisation": normalisation})
    preprocess_case(seen(tmp_path, case), tmp_path, settings_, PATCH, tmp_path / "out")
    image = load_case(tmp_path / "out", "one").image
    assert not image[0].any()
    assert image[1].any()


def test_restore_is_trilinear(tmp_path: Path) -> None:
    case = make_case(tmp_path, spacing=(1, 2, 1.5))
    preprocess_case(case, tmp_path, Preprocess(spacing=[1.5] * 3), [16, 8, 8], tmp_path / "out")
    loaded = load_case(tmp_path / "out", "one")
    geometry = loaded.geometry
    assert geometry["native_shape"] == [9, 6, 8]
    assert geometry["resampled_shape"] == [6, 8, 8]
    probabilities = np.random.default_rng(0).random((3, *loaded.label.shape), np.float32)
    padding = geometry["padding"]
    inner = probabilities[:, padding[0][0] : -padding[0][1]]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(inner)[None], size=(9, 6, 8), mode="trilinear", align_corners=False
    )[0]
    restored = restore(probabilities, geometry)
    np.testing.assert_allclose(restored, expected.numpy(), atol=1e-5)
    assert load_ground_truth(tmp_path / "out", "one").shape == restored.shape[1:]


def test_labels_are_resampled_by_the_largest_share(tmp_path: Path) -> None:
    case = make_case(tmp_path, codes="RAS", shape=(14, 14, 14))
    preprocess_case(case, tmp_path, Preprocess(spacing=[1.7, 0.6, 1]), [1, 1, 1], tmp_path / "out")
    loaded = load_case(tmp_path / "out", "one")
    truth = stored_label(tmp_path, case)[2:-2, 2:-2, 2:-2]
    np.testing.assert_array_equal(load_ground_truth(tmp_path / "out", "one"), truth)
    shares = torch.nn.functional.interpolate(
        torch.from_numpy(np.stack([truth == value for value in (0, 1, 4)])[None].astype(float)),
        size=loaded.label.shape,
        mode="trilinear",
        align_corners=False,
    )[0]
    top = shares.sort(dim=0, descending=True)
    clear = (top.values[0] - top.values[1] > 1e-4).numpy()
    expected = np.array([0, 1, 4])[top.indices[0].numpy()]
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(loaded.label[clear], expected[clear])
    assert set(np.unique(loaded.label)) <= {0, 1, 4}


def test_resampling_keeps_a_smooth_image_and_the_background(tmp_path: Path) -> None:
    case = make_case(tmp_path, codes="RAS", shape=(24, 24, 24))
    places = np.stack(np.meshgrid(*3 * [np.arange(24.0)], indexing="ij"))
    smooth = 5 + np.sin(places / 6).sum(axis=0)
    smooth[:6] = 0
    affine = oriented_affine("RAS", (1, 1, 1))
    nib.save(nib.Nifti1Image(smooth, affine), tmp_path / "one-t1n.nii.gz")
    plain = Preprocess(crop=False, spacing=[0.5] * 3, normalisation="none")
    preprocess_case(seen(tmp_path, case), tmp_path, plain, [1, 1, 1], tmp_path / "out")
    image = load_case(tmp_path / "out", "one").image[0]
    assert image.shape == (48, 48, 48)
    # Centres of the new voxels, in old voxels.
    fine = np.stack(np.meshgrid(*3 * [(np.arange(48) + 0.5) / 2 - 0.5], indexing="ij"))
    expected = 5 + np.sin(fine / 6).sum(axis=0)
    inside = np.s_[26:40, 8:-8, 8:-8]
    np.testing.assert_allclose(image[inside], expected[inside], atol=5e-3)

    masked = Preprocess(crop=False, spacing=[0.5] * 3)
    preprocess_case(seen(tmp_path, case), tmp_path, masked, [1, 1, 1], tmp_path / "out")
    image = load_case(tmp_path / "out", "one").image[0]
    assert not image[:12].any()
    assert image[12:].all()


@pytest.mark.parametrize("spacing", [(0.8, 1.3, 2.0), (1.9, 0.7, 1.0)])
def test_images_are_resampled_as_by_simpleitk(spacing: tuple[float, ...]) -> None:
    # Voxels near the border are left out: beyond it each library extrapolates differently.
    volume = np.random.default_rng(0).normal(size=(30, 28, 26)).astype(np.float32)
    volume = ndimage.gaussian_filter(volume, 1.5)
    shape = [round(side * step) for side, step in zip(volume.shape, spacing, strict=True)]
    ours = resample_image(volume, shape, keep_zeros=False)
    steps = [old / new for old, new in zip(volume.shape, shape, strict=True)]
    theirs = SimpleITK.Resample(
        SimpleITK.GetImageFromArray(volume.T),
        shape,
        SimpleITK.Transform(),
        SimpleITK.sitkBSpline3,
        [step / 2 - 0.5 for step in steps],
        steps,
        [1, 0, 0, 0, 1, 0, 0, 0, 1],
    )
    inner = tuple(slice(round(8 / step), -round(8 / step)) for step in steps)
    expected = SimpleITK.GetArrayFromImage(theirs).T
    np.testing.assert_allclose(ours[inner], expected[inner], atol=1e-4)
    assert np.abs(expected[inner]).max() > 0.1


@settings(max_examples=25, deadline=None)
@given(
    turn=st.tuples(*3 * [st.floats(-3.1, 3.1)]),
    spacing=st.tuples(*3 * [st.floats(0.4, 4)]),
    asked=st.none() | st.tuples(*3 * [st.floats(0.7, 2)]),
)
def test_preprocessing_and_restoring_agree_for_any_affine(
    tmp_path_factory: pytest.TempPathFactory,
    turn: tuple[float, ...],
    spacing: tuple[float, ...],
    asked: tuple[float, ...] | None,
) -> None:
    root = tmp_path_factory.mktemp("any-affine")
    case = make_case(root, shape=(15, 12, 10))
    affine = nib.affines.from_matvec(
        Rotation.from_euler("xyz", turn).as_matrix() * spacing, [3, -40, 7]
    )
    for source in [*case.channels.values(), case.label]:
        assert source is not None
        image = nib.load(root / source.file)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), root / source.file)
    # In RAS the axes may lie in another order: the factors are for its spacing.
    turned = nib.affines.voxel_sizes(nib.as_closest_canonical(image).affine)
    target = None if asked is None else [float(a * b) for a, b in zip(turned, asked, strict=True)]
    preprocess_case(seen(root, case), root, Preprocess(spacing=target), [6, 6, 6], root / "out")
    loaded = load_case(root / "out", case.name)
    truth, stored = load_ground_truth(root / "out", case.name), stored_label(root, case)
    back = to_scanner(truth, loaded.geometry)
    np.testing.assert_array_equal(back, stored)
    np.testing.assert_allclose(loaded.geometry["original_affine"], affine, atol=1e-5)
    regions = np.stack([loaded.label == value for value in (1, 4)]).astype(np.float32)
    restored = restore(regions, loaded.geometry) > 0.5
    assert restored.shape[1:] == truth.shape
    if asked is None:
        np.testing.assert_array_equal(restored, [truth == 1, truth == 4])


def test_images_may_be_stored_as_float16(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    preprocess_case(case, tmp_path, Preprocess(), PATCH, tmp_path / "whole")
    preprocess_case(case, tmp_path, Preprocess(storage="float16"), PATCH, tmp_path / "half")
    whole, half = (load_case(tmp_path / name, "one").image for name in ("whole", "half"))
    assert (whole.dtype, half.dtype) == (np.float32, np.float16)
    np.testing.assert_allclose(half, whole, rtol=1 / 2048, atol=1e-7)


def test_nearly_the_same_spacing_is_not_resampled(tmp_path: Path) -> None:
    case = make_case(tmp_path, spacing=(1.00005, 1, 1))
    preprocess_case(case, tmp_path, Preprocess(spacing=[1, 1, 1]), PATCH, tmp_path / "out")
    assert not (tmp_path / "out" / "one.truth.npy").exists()
    geometry = load_case(tmp_path / "out", "one").geometry
    assert geometry["resampled_shape"] == geometry["native_shape"]


def test_foreground_voxels_carry_their_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOREGROUND_VOXELS", 20)
    case = make_case(tmp_path)
    preprocess_case(case, tmp_path, Preprocess(), [16, 16, 16], tmp_path / "out")
    loaded = load_case(tmp_path / "out", "one")
    assert loaded.foreground.dtype == np.int32
    assert loaded.image.dtype == np.float32
    assert isinstance(loaded.image, np.memmap)
    assert isinstance(loaded.label, np.memmap)
    values, counts = np.unique(loaded.foreground[:, 0], return_counts=True)
    assert values.tolist() == [1, 4]
    assert counts.tolist() == [20, 20]
    assert len(np.unique(loaded.foreground, axis=0)) == 40
    label, x, y, z = loaded.foreground.T
    np.testing.assert_array_equal(loaded.label[x, y, z], label)


def test_an_unlabelled_case_is_preprocessed_without_ground_truth(tmp_path: Path) -> None:
    case = seen(tmp_path, replace(make_case(tmp_path), label=None))
    preprocess_case(case, tmp_path, Preprocess(spacing=[2, 2, 2]), PATCH, tmp_path / "out")
    loaded = load_case(tmp_path / "out", "one")
    assert not loaded.geometry["labelled"]
    assert not loaded.label.any()
    assert not (tmp_path / "out" / "one.truth.npy").exists()
    assert restore(loaded.image, loaded.geometry).shape == (2, 9, 6, 8)
    with pytest.raises(InputError, match="has no label"):
        load_ground_truth(tmp_path / "out", "one")


def test_a_case_of_zeros_alone_is_padded_to_the_patch(tmp_path: Path) -> None:
    case = make_case(tmp_path, shape=(4, 4, 4), margin=2)
    preprocess_case(case, tmp_path, Preprocess(), PATCH, tmp_path / "out")
    loaded = load_case(tmp_path / "out", "one")
    assert loaded.image.shape == (2, 8, 8, 8)
    assert loaded.foreground.shape == (0, 4)
    assert load_ground_truth(tmp_path / "out", "one").shape == (4, 4, 4)


def times(folder: Path, name: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(f"{name}.*")}


def test_preprocessing_again_redoes_changed_cases_only(tmp_path: Path) -> None:
    cases = [make_case(tmp_path, name) for name in ("two", "one", "three")]
    out, manifest = tmp_path / "out", tmp_path / "preprocessed.tsv"

    def run(settings_: Preprocess) -> None:
        preprocess_all(cases, tmp_path, settings_, PATCH, out, manifest, workers=2)

    run(Preprocess())
    assert manifest.read_text().splitlines()[0] == "case\tfingerprint"
    assert list(read_manifest(manifest)) == ["one", "three", "two"]
    before = {name: times(out, name) for name in ("one", "two", "three")}
    first = read_manifest(manifest)
    cases[0] = make_case(tmp_path, "two", seed=1)
    (out / "three.label.npy").unlink()
    run(Preprocess())
    assert times(out, "one") == before["one"]
    for name in ("two", "three"):
        after = times(out, name)
        assert after.keys() == before[name].keys()
        assert all(after[file] > time for file, time in before[name].items())
    second = read_manifest(manifest)
    assert {name for name in first if first[name] != second[name]} == {"two"}
    run(Preprocess(spacing=[2, 2, 2]))
    assert len(list(out.glob("*.truth.npy"))) == 3
    run(Preprocess())
    assert not list(out.glob("*.truth.npy"))
    assert read_manifest(manifest) == second
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_one_worker_and_several_give_the_same_bytes(tmp_path: Path) -> None:
    cases = [make_case(tmp_path, name) for name in ("one", "two")]
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        preprocess_all(
            cases, tmp_path, Preprocess(), PATCH, folder, tmp_path / "m.tsv", workers=workers
        )
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / workers).iterdir()}
        for workers in ("1", "2")
    )
    assert {name.partition(".")[0] for name in one} == {"one", "two"}
    assert one == two


def test_interrupted_work_is_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tmp_path)
    out, manifest = tmp_path / "out", tmp_path / "m.tsv"
    preprocess_all([case], tmp_path, Preprocess(), PATCH, out, manifest, 1)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "_foreground", fail)
        preprocess_all([case], tmp_path, Preprocess(crop=False), PATCH, out, manifest, 1)
    preprocess_all([case], tmp_path, Preprocess(), PATCH, out, manifest, 1)
    assert load_case(out, "one").geometry["crop"] != [[0, 13], [0, 10], [0, 12]]
    assert load_case(out, "one").image.shape == (2, 9, 8, 8)


def test_the_fingerprint_depends_on_everything_that_matters(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    turned = replace(case, channels=dict(reversed(case.channels.items())))
    prints = [
        fingerprint(case, Preprocess(), PATCH),
        fingerprint(replace(case, sha256="x"), Preprocess(), PATCH),
        fingerprint(case, Preprocess(crop=False), PATCH),
        fingerprint(case, Preprocess(), [8, 8, 16]),
        fingerprint(turned, Preprocess(), PATCH),
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == preprocess_case(case, tmp_path, Preprocess(), PATCH, tmp_path / "out")
    assert prints[0] == fingerprint(replace(case), Preprocess(), PATCH)


@pytest.mark.parametrize("end", ["t2w", "seg"])
def test_a_file_that_changed_since_the_index_is_refused(tmp_path: Path, end: str) -> None:
    case, other = make_case(tmp_path), make_case(tmp_path, "other", seed=1)
    shutil.copy(tmp_path / f"other-{end}.nii.gz", tmp_path / f"one-{end}.nii.gz")
    with pytest.raises(InputError, match="changed since the index checked them") as caught:
        preprocess_case(case, tmp_path, Preprocess(), PATCH, tmp_path / "out")
    assert caught.value.fix.startswith("start again")
    assert not (tmp_path / "out" / "one.json").exists()
    for usable in (seen(tmp_path, case), other):
        preprocess_case(usable, tmp_path, Preprocess(), PATCH, tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_preprocessing_refuses_an_unusable_file(tmp_path: Path, workers: int) -> None:
    cases = [make_case(tmp_path, name) for name in ("one", "two")]
    (tmp_path / "two-t2w.nii.gz").write_bytes(b"no scan")
    manifest = tmp_path / "m.tsv"
    with pytest.raises(InputError, match=r"two-t2w\.nii\.gz"):
        preprocess_all(cases, tmp_path, Preprocess(), PATCH, tmp_path / "out", manifest, workers)
    assert not manifest.exists()
    assert (tmp_path / "out" / "one.json").exists()
    assert not (tmp_path / "out" / "two.json").exists()


def test_volumes_of_different_sizes_are_refused(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3)), np.eye(4)), tmp_path / "one-t2w.nii.gz")
    with pytest.raises(
        InputError, match="has shape 3x3x3 instead of 13x10x12, compared with one-t1n"
    ):
        preprocess_case(case, tmp_path, Preprocess(), PATCH, tmp_path / "out")


def test_a_real_scan_is_preprocessed_and_its_labels_return_to_the_scanner(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = DATA / "brats" / "TCGA-DU-7294"
    if not folder.is_dir():
        pytest.skip(f"the BraTS scan is not at {os.fspath(folder)}")
    name = folder.name
    channels = {c: Source(Path(f"{name}-{c}.nii.gz")) for c in ("t1n", "t1c", "t2w", "t2f")}
    label = Source(Path(f"{name}-seg.nii.gz"))
    stored = np.asarray(nib.load(folder / label.file).dataobj)
    case = IndexedCase(name, name, channels, label, (1, 1, 1), (1, 1, 1), [], "")
    preprocess_case(case, folder, Preprocess(), [128, 128, 128], tmp_path)
    loaded = load_case(tmp_path, name)
    assert loaded.image.shape[0] == 4
    assert min(loaded.label.shape) >= 128
    for channel in loaded.image:
        voxels = np.asarray(channel[channel != 0], np.float64)
        assert abs(voxels.mean()) < 1e-3
        assert abs(voxels.std() - 1) < 1e-3
    truth = load_ground_truth(tmp_path, name)
    np.testing.assert_array_equal(to_scanner(truth, loaded.geometry), stored)
    assert capfd.readouterr() == ("", "")


def test_ignored_voxels_widen_no_crop(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    case = make_case(raw)
    assert case.label is not None
    file = tmp_path / "raw" / case.label.file
    stored = nib.load(file)
    label = np.asarray(stored.dataobj).astype(np.uint8)
    plain = tmp_path / "plain"
    preprocess_case(case, tmp_path / "raw", Preprocess(), PATCH, plain)
    ignored = np.where(label == 0, 9, label).astype(np.uint8)
    nib.save(nib.Nifti1Image(ignored, stored.affine), file)
    case = replace(case, sha256="")
    preprocess_case(case, tmp_path / "raw", Preprocess(), PATCH, tmp_path / "some", ignored=9)
    before, after = load_case(plain, case.name), load_case(tmp_path / "some", case.name)
    assert before.geometry["crop"] == after.geometry["crop"]
    np.testing.assert_array_equal(before.image, after.image)
    inner = tuple(
        slice(a, a + b)
        for (a, _), b in zip(
            after.geometry["padding"], after.geometry["resampled_shape"], strict=True
        )
    )
    kept = np.asarray(before.label[inner])
    np.testing.assert_array_equal(after.label[inner], np.where(kept == 0, 9, kept))


def test_a_study_without_an_ignored_value_has_the_fingerprints_of_before(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    one = fingerprint(case, Preprocess(), PATCH)
    assert one == fingerprint(case, Preprocess(), PATCH, None)
    assert one != fingerprint(case, Preprocess(), PATCH, 9)


def test_only_the_manifest_says_what_is_not_annotated(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    folder, manifest = tmp_path / "out", tmp_path / "manifest.tsv"

    def listed(hidden: list[str]) -> str:
        asked = (tmp_path, Preprocess(), PATCH, folder, manifest, 1)
        preprocess_all([case], *asked, not_annotated={case.name: hidden, "another": ["WT"]})
        return read_manifest(manifest)[case.name]

    before = listed([])
    assert before == fingerprint(case, Preprocess(), PATCH)
    dates = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    one, two = listed(["ET"]), listed(["ET", "TC"])
    assert len({before, one, two}) == 3
    assert listed(["TC", "ET"]) == two and listed([]) == before
    # Nothing was preprocessed again.
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == dates
