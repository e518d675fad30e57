"""From a folder to a study: which data set it is, its fingerprint, and what is proposed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.channel_names import clean_names
from voxelsoup.data.layouts.detect import guess
from voxelsoup.planning.fingerprint import (
    choose_cases,
    read_contents,
    read_header,
    take_fingerprint,
)
from voxelsoup.planning.label_meaning import meaning_of
from voxelsoup.planning.proposal import propose_patch, propose_spacing
from voxelsoup.study.loading import read
from voxelsoup.study.study import Study


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def brats_case(root: Path, name: str, mark: str, *ends: str) -> None:
    touch(root, *(f"{name}/{name}{mark}{end}.nii.gz" for end in ends))


@pytest.mark.parametrize(
    ("mark", "ends"),
    [
        ("-", ("t1n", "t1c", "t2w", "t2f")),
        ("_", ("t1", "t1ce", "t2", "flair")),
        ("_", ("t1", "t1gd", "t2", "flair")),
    ],
)
def test_brats_of_any_year_is_detected(tmp_path: Path, mark: str, ends: tuple[str, ...]) -> None:
    for number in range(4):
        brats_case(tmp_path / "deep" / "Training", f"B_{number}", mark, *ends[::-1], "seg")
    brats_case(tmp_path / "deep" / "Training", "B_3", mark, "brain")
    found = guess(tmp_path)
    assert found.dataset.layout == "brats"
    # In the order of the published data sets, whatever the order of names.
    assert found.dataset.channels == list(ends)
    assert found.remarks == ("not taken as channels: brain",)
    assert len(find_cases(found.dataset, found.root)) == 4


def test_nnunet_with_regions_is_detected(tmp_path: Path) -> None:
    description = {
        "channel_names": {"1": "T2 / FLAIR", "0": "T1"},
        "labels": {"background": 0, "whole tumor": [1, 2], "core": [2], "ignore": 3},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    found = guess(tmp_path)
    assert (found.dataset.layout, found.dataset.channels) == ("nnunet", ["T1", "T2_FLAIR"])
    assert found.called == {"T2_FLAIR": "T2 / FLAIR"}
    assert (found.labels.regions, found.labels.ignored) == ({"whole tumor": [1, 2], "core": [2]}, 3)
    meaning = meaning_of(found, ["a"], {1: ["a"], 2: ["a"], 3: ["a"]})
    assert meaning.regions == {"whole_tumor": [1, 2], "core": [2]}
    assert not meaning.unnamed


def test_nnunet_with_labels_is_detected(tmp_path: Path) -> None:
    labels = {"background": 0, "edema": 1, "necrosis": 2}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nrrd"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    touch(tmp_path, "imagesTr/a_0000.nrrd")
    found = guess(tmp_path)
    assert found.labels.values == {1: "edema", 2: "necrosis"}
    assert meaning_of(found, ["a"], {1: ["a"]}).regions == {"edema": [1], "necrosis": [2]}


def test_a_datalist_with_folds_is_detected(tmp_path: Path) -> None:
    entries = [
        {"image": [f"c{n}/c{n}_t1.nii", f"c{n}/c{n}_t2.nii"], "label": f"c{n}/l.nii", "fold": n % 3}
        for n in range(6)
    ]
    (tmp_path / "folds.json").write_text(json.dumps({"training": entries}))
    (tmp_path / "other.json").write_text("[1]")
    found = guess(tmp_path)
    assert (found.dataset.layout, found.dataset.channels) == ("monai", ["t1", "t2"])
    assert found.dataset.file == str(tmp_path / "folds.json")
    assert found.split == (tmp_path / "folds.json", 3)


def test_only_columns_that_name_volumes_are_channels(tmp_path: Path) -> None:
    rows = "case,t1,age,adc,label,patient,site\na,,61,four.nii.gz#1,l.nrrd,p,x\nb,b.mha,,,,,\n"
    (tmp_path / "cases.csv").write_text(rows)
    found = guess(tmp_path)
    assert (found.dataset.layout, found.dataset.channels) == ("table", ["t1", "adc"])
    assert found.remarks == ("not taken as channels: age, site",)
    (tmp_path / "cases.csv").write_text("case,age\na,61\n")
    with pytest.raises(InputError, match="holds no data set"):
        guess(tmp_path)


@pytest.mark.parametrize(
    "content", ["case,t1\n".encode("utf-16"), b"case,t1\na," + b"x" * 200_000 + b".nii\n"]
)
def test_a_table_that_cannot_be_read_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"is not (UTF-8 text|a row of a table)") as caught:
        guess(tmp_path)
    assert caught.value.where == str(tmp_path / "cases.csv")


@pytest.mark.parametrize(
    "labels",
    [{"9" * 5000: "x"}, {"a": "9" * 5000}, {"a": -1}, {"a": True}, {"a": [[1]]}, 3],
)
def test_unusable_label_descriptions_are_ignored(tmp_path: Path, labels: object) -> None:
    description = {"channel_names": {"0": "CT"}, "labels": labels}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    touch(tmp_path, "imagesTr/a_0000.nii")
    assert 1 in meaning_of(guess(tmp_path), ["a"], {1: ["a"]}).regions.get("label_1", [1])


def test_a_folder_with_several_data_sets_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is empty") as caught:
        guess(tmp_path)
    assert all(layout in caught.value.expected for layout in ("brats", "nnunet", "table"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cases.csv").write_text("case,t1\na,a.nii\n")
    with pytest.raises(InputError, match=r"holds 2 data sets: .*one, .*two"):
        guess(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        guess(tmp_path / "none")


def test_clean_names_are_valid_in_a_study() -> None:
    names = ["T1 native", "T1-native", "größe", "", "Mean", "???"]
    cleaned = clean_names(names, ("mean",))
    assert cleaned == ["T1_native", "T1_native_2", "groe", "unnamed_3", "Mean_2", "unnamed_5"]


def turned(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    own = nib.orientations.io_orientation(image.affine)
    target = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform(own, target))


@pytest.mark.parametrize("unit", ["mm", "micron"])
@pytest.mark.parametrize("codes", ["RAS", "LIP", "SPL"])
def test_the_fingerprint_of_a_case(tmp_path: Path, codes: str, unit: str) -> None:
    """One channel in an orientation of its own, voxels in a box, all numbers known."""
    data = np.zeros((9, 8, 7), np.int16)
    data[2:6, 1:4, 3:5] = np.arange(1, 25).reshape(4, 3, 2)
    label = np.zeros(data.shape, np.uint8)
    label[5:8, 2, 3] = 2
    scale = {"mm": 1, "micron": 1000}[unit]
    sources = []
    for number, (name, voxels) in enumerate({"a": data, "b": data * 2, "l": label}.items()):
        image = nib.Nifti1Image(voxels, np.diag([scale, 2 * scale, 3 * scale, 1]))
        image = turned(image, codes) if number == 0 else image
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / f"{name}.nii.gz")
        sources.append(Source(tmp_path / f"{name}.nii.gz"))
    case = Case("one", {"a": sources[0], "b": sources[1]}, sources[2])
    header = read_header(case)
    assert header.shape == (9, 8, 7)
    assert header.spacing == pytest.approx((1, 2, 3))
    assert (header.orientation, header.voxel_type, header.labelled) == (codes, "int16", True)
    contents = read_contents(case)
    # From the first voxel to the last labelled one along x.
    assert contents.cropped == (6, 3, 2)
    assert contents.zeros == pytest.approx(1 - 24 / data.size)
    assert contents.volumes == {2: pytest.approx(3 * 6)}


def test_headers_of_other_formats(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.ones((5, 6, 7), np.float32))
    image.SetSpacing((1, 2, 3))
    for suffix in (".mha", ".nrrd", ".nii"):
        path = tmp_path / f"scan{suffix}"
        SimpleITK.WriteImage(image, str(path), False)
        # Of the voxels not one is read.
        path.write_bytes(path.read_bytes()[:-50])
        header = read_header(Case("a", {"t1": Source(path)}, None))
        assert (header.shape, header.spacing) == ((7, 6, 5), (1, 2, 3))
        assert (header.orientation, header.voxel_type) == ("LPS", "float32")


def test_bad_cases_are_reported_and_the_others_described(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.eye(3)[None], np.eye(4)), tmp_path / "good.nii")
    problem = InputError("f", "has a problem", "", "")
    cases = [
        Case("bad", {"t1": Source(tmp_path / "none.nii")}, None),
        Case("good", {"t1": Source(tmp_path / "good.nii")}, None, patient="p"),
        Case("odd", {"t1": Source(tmp_path / "good.nii")}, None, problem=problem),
    ]
    found = take_fingerprint(cases, workers=1)
    assert [(case.name, case.patient) for case in found.cases] == [("good", "p")]
    assert {name: problem.found for name, problem in found.unreadable.items()} == {
        "bad": "no such file; nearest in its folder: good.nii",
        "odd": "has a problem",
    }


def test_voxels_are_read_of_labelled_cases_spread_over_all() -> None:
    cases = [Case(str(n), {}, Source(Path("l")) if n % 2 else None) for n in range(400)]
    chosen = choose_cases(cases, 50)
    assert len({case.name for case in chosen}) == 50
    assert all(case.label for case in chosen)
    assert (chosen[0].name, chosen[-1].name) == ("1", "399")


@pytest.mark.parametrize(
    ("spacings", "shape", "spacing"),
    [
        ([(1, 1, 1)] * 3, (99, 99, 99), None),
        ([(1, 1, 1.005), (1, 1, 1), (1, 1, 1)], (99, 99, 99), None),
        ([(1, 1, 1), (2, 1, 1), (2, 1, 1)], (99, 99, 99), [2, 1, 1]),
        # Few thick slices: the 10th percentile, but no finer than the others.
        ([(1, 1, z) for z in range(4, 15)], (200, 200, 20), [1, 1, 5]),
        ([(2, 2, z) for z in (1, 7, 7, 7)], (200, 200, 20), [2, 2, 2.8]),
        # As many voxels as along the others: no thick slices.
        ([(1, 1, z) for z in range(4, 15)], (200, 200, 200), [1, 1, 9]),
    ],
)
def test_the_proposed_spacing_is_that_of_most_cases(
    spacings: Any, shape: tuple[int, ...], spacing: list[float] | None
) -> None:
    proposed, reason = propose_spacing(spacings, shape)
    assert proposed == (None if spacing is None else pytest.approx(spacing))
    assert ("nothing is resampled" in reason) == (spacing is None)


@pytest.mark.parametrize("shape", [(138, 173, 140), (36, 50, 36), (512, 512, 30), (900, 20, 20)])
def test_the_patch_is_like_the_median_case_and_within_the_budget(shape: tuple[int, ...]) -> None:
    patch = propose_patch(shape, lambda sides: 3 * [16])
    assert all(side % 16 == 0 for side in patch)
    assert np.prod(patch) <= 128**3
    assert all(side <= whole + 8 for side, whole in zip(patch, shape, strict=True))
    if np.prod(shape) < 0.9 * 128**3:
        assert all(abs(p - s) <= 8 or s < 16 for p, s in zip(patch, shape, strict=True))


def test_the_smallest_patch_has_more_than_one_voxel_at_the_bottleneck() -> None:
    assert propose_patch((10, 9, 8), lambda sides: 3 * [16]) == [32, 32, 32]


def proposed(folder: Path, root: Path) -> Study:
    file = folder / "study.yaml"
    assert main(["init", str(root), "--output", str(file), "--force"]) == 0
    return read(file)


def test_a_brats_folder_with_an_unlabelled_and_a_bad_case(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(phantom_folder, tmp_path / "data"))
    (root / "Phantom-0000-000" / "Phantom-0000-000-seg.nii.gz").unlink()
    study = proposed(tmp_path, root)
    assert study.dataset.channels == ["t1n", "t1c", "t2w", "t2f"]
    assert study.regions == {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    assert (study.dataset.unlabelled, study.dataset.on_bad_case) == ("predict", "stop")
    assert main(["index", str(tmp_path / "study.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "6 usable (5 labelled, 1 unlabelled) of 5 patients; 0 bad" in printed
    assert "1 (TC, WT) in 5 cases" in printed
    assert "unlabelled: for prediction only: Phantom-0000-000" in printed

    (root / "Phantom-0001-000" / "Phantom-0001-000-t1n.nii.gz").write_bytes(b"x")
    proposed(tmp_path, root)
    assert "one case cannot be used: Phantom-0001-000: " in capsys.readouterr().out
    assert "# One case could not be read" in (tmp_path / "study.yaml").read_text()


def test_patients_of_a_table_are_counted(phantom_folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(phantom_folder, tmp_path / "data"))
    names = sorted(folder.name for folder in root.iterdir())
    rows = [f"{n},{n}/{n}-t1n.nii.gz,{n}/{n}-seg.nii.gz,p{k % 3}" for k, n in enumerate(names)]
    (root / "cases.csv").write_text("case,t1,label,patient\n" + "\n".join(rows))
    study = proposed(tmp_path, root)
    assert (study.dataset.layout, study.dataset.channels) == ("table", ["t1"])
    assert study.regions == {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    assert study.folds.count == 3
    assert "# 3 labelled patients" in (tmp_path / "study.yaml").read_text()
    assert main(["index", str(tmp_path / "study.yaml")]) == 0


def test_notes_are_grouped_by_kind(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(phantom_folder, tmp_path / "data"))
    for name in ("Phantom-0001-000", "Phantom-0002-000"):
        file = root / name / f"{name}-t1n.nii.gz"
        nib.save(turned(nib.load(file), "RIA"), file)
    assert main(["index", str(root)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "t1c, t2w, t2f and label: stored in the orientation LPS, turned to RIA: "
        "Phantom-0001-000, Phantom-0002-000"
    ) in printed


@pytest.mark.real_data
def test_the_hippocampus_in_nnunets_layout_is_detected(
    hippocampus_folder: Path, tmp_path: Path
) -> None:
    """The same data, renamed: the same study is proposed."""
    root = tmp_path / "Dataset004_Hippocampus"
    for folder, mark in (("imagesTr", "_0000"), ("labelsTr", "")):
        (root / folder).mkdir(parents=True)
        for file in sorted((hippocampus_folder / folder).glob("h*.nii.gz"))[:20]:
            (root / folder / file.name.replace(".nii", f"{mark}.nii")).symlink_to(file.resolve())
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
    study, theirs = proposed(tmp_path, root), proposed(tmp_path, hippocampus_folder)
    assert study.dataset.layout == "nnunet"
    assert study.regions == theirs.regions == {"Anterior": [1], "Posterior": [2]}
    assert (study.dataset.channels, study.training.patch) == (["MRI"], [32, 48, 32])
    assert study.preprocess == theirs.preprocess
