"""`voxelsoup predict`: many cases, what is kept, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from references.prediction import probabilities_by_monai
from support.model_files import lively
from support.scans import CHANNELS, voxels, write_scan
from support.studies import write_tiny
from voxelsoup.commands import cli
from voxelsoup.common.files import sha256, write_json
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.models import weight_files
from voxelsoup.prediction.model_files import ModelFile
from voxelsoup.runs.lease import Owner
from voxelsoup.study.sections.data import Phantom


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """The small study's network with random weights that say something."""
    return lively(tmp_path_factory.mktemp("model") / "model.safetensors", 0)


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


def test_a_folder_is_predicted_and_finished_cases_are_kept(
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


def test_what_is_written_has_both_forms_of_its_scan(
    model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qform = np.diag([1.0, 1, 2, 1])
    sform = nib.affines.from_matvec(Rotation.from_euler("z", 0.2).as_matrix(), [3, -4, 5]) @ qform
    channels = write_scan(tmp_path / "scans" / "A", affine=qform)
    for source in channels.values():
        image = nib.load(source.file)
        image.set_sform(sform, 2)
        image.set_qform(qform, 1)
        nib.save(image, source.file)
    assert predict(model.path, tmp_path / "scans", tmp_path / "out", "--probabilities") == 0
    scan = nib.load(channels["t1n"].file)
    for name in ("A.nii.gz", "probabilities/A.nii.gz"):
        found = nib.load(tmp_path / "out" / name)
        for field in ("qform_code", "sform_code", "xyzt_units"):
            assert found.header[field] == scan.header[field]
        np.testing.assert_array_equal(found.get_qform(), scan.get_qform())
        np.testing.assert_array_equal(found.get_sform(), scan.get_sform())
        np.testing.assert_array_equal(found.header["pixdim"][1:4], [1, 1, 2])
    printed = capsys.readouterr().err
    assert "A: t1n, t1c, t2w and t2f: the sform and the qform of its header are up to" in printed
    assert "as in nibabel and FSL, and ITK goes by its qform" in printed


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


def test_files_left_by_a_killed_process_are_removed_by_the_next(
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
    (folder / "two-T1X.nii.gz").write_bytes(b"never read")
    assert predict(model.path, folder, tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "0 cases predicted, 1 already existed" in printed.out
    assert (
        "two-T1X.nii.gz: belongs to no case beside it, and its name does not end in a channel"
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
    old = ["a", "b", "c", "d"]
    for case in ("BraTS20_001", "BraTS20_002"):
        write_scan(tmp_path / "in" / case, (18, 17, 16), channels=old)
    assert predict(model.path, tmp_path / "in", tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert "has channels named a, b, c and d" in printed
    # The match that would be meant, ready to be stated.
    assert "t1n = a, t1c = b, t2w = c, t2f = d" in printed and "--channels a,b,c,d" in printed
    stated = ["--channels", ",".join(old)]
    assert predict(model.path, tmp_path / "in", tmp_path / "out", *stated) == 0
    assert len(names(tmp_path / "out")) == 2
    assert predict(model.path, tmp_path / "in", tmp_path / "out", "--channels", "t1") == 1


def test_numbered_channels_are_distinguished_by_their_names(
    model: ModelFile, tmp_path: Path
) -> None:
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


def test_a_missing_channel_nan_and_other_headers_are_accepted_by_name(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = sorted(names(scans))
    (scans / first / f"{first}-t2w.nii.gz").unlink()
    file = scans / second / f"{second}-t1c.nii.gz"
    image = nib.load(file)
    holes = np.asarray(image.dataobj, np.float32)
    holes[:2] = np.nan
    nib.save(nib.Nifti1Image(holes, image.affine), file)
    file = scans / third / f"{third}-t2f.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.load(file).dataobj), np.diag([1, 1, 2, 1])), file)
    out = tmp_path / "out"
    assert predict(model.path, scans, out) == 1
    printed = capsys.readouterr().err
    assert "--missing zeros" in printed and "--nan background" in printed
    assert "--placement voxels" in printed
    accept = ("--missing", "zeros", "--nan", "background", "--placement", "voxels")
    assert predict(model.path, scans, out, *accept) == 0
    printed = capsys.readouterr().err
    assert f"{first}: t2w: is missing: filled with zeros" in printed
    assert f"{second}: t1c: NaN in" in printed
    assert f"{third}: t2f: taken voxel by voxel" in printed
    assert len(list(out.glob("*.nii.gz"))) == 3

    # The same from a folder of plain files.
    flat = tmp_path / "flat"
    flat.mkdir()
    for source in (scans / first).iterdir():
        shutil.copy(source, flat)
    shutil.copy(scans / second / f"{second}-t1n.nii.gz", flat)
    assert predict(model.path, flat, tmp_path / "of_flat", "--missing", "zeros") == 0
    np.testing.assert_array_equal(
        voxels(tmp_path / f"of_flat/{first}.nii.gz"), voxels(out / f"{first}.nii.gz")
    )

    # A study that accepts it says so for its models.
    results = tmp_path / "results"
    (results / "report").mkdir(parents=True)
    write_tiny(results / "report", dataset={"accept": {"missing_channels": "zeros"}})
    shutil.copy(model.path, results / "model.safetensors")
    assert predict(results / "model.safetensors", flat, tmp_path / "of_study") == 0
    assert "is filled with zeros, as " in capsys.readouterr().err
