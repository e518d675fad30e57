"""Findings that a study accepts by name: NaN, missing channels, headers that disagree, ..."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.data.case import IndexedCase
from voxelsoup.data.index.index import index_cases, read_cases, write_cases
from voxelsoup.data.preprocessing.preprocess import fingerprint, preprocess_case
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.report.cases import accepted_in_words, account
from voxelsoup.study.sections.data import Accept, Dataset, Preprocess

SHAPE = (12, 10, 8)
CHANNELS = ["t1n", "t1c", "t2f"]


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, SHAPE).astype(np.float32)


def save(root: Path, case: str, **volumes: np.ndarray) -> None:
    """A case of the BraTS layout; what is not given is usual."""
    usual = {name: scan(zlib.crc32(f"{case} {name}".encode())) for name in CHANNELS}
    label = np.zeros(SHAPE, np.uint8)
    label[4:8, 4:8, 2:5] = 1
    (root / case).mkdir(parents=True)
    for name, data in ({**usual, "seg": label} | volumes).items():
        nib.save(nib.Nifti1Image(data, np.eye(4)), root / case / f"{case}-{name}.nii.gz")


def index(root: Path, **accept: Any) -> dict[str, IndexedCase]:
    dataset = Dataset(layout="brats", root=str(root), channels=CHANNELS, accept=Accept(**accept))
    cases, _ = index_cases(dataset, {"tumour": [1]}, root, workers=1)
    # As the workflow hands them on.
    write_cases(root.parent / "cases.tsv", cases)
    read = read_cases(root.parent / "cases.tsv")
    assert read == cases
    return {case.name: case for case in read}


def arrays(case: IndexedCase, root: Path) -> np.ndarray:
    folder = root.parent / "arrays"
    folder.mkdir(exist_ok=True)
    settings = Preprocess(spacing=[1.5, 1.5, 1.5])
    preprocess_case(case, root, settings, [8, 8, 8], folder)
    return np.asarray(load_case(folder, case.name).image)


def test_nan_is_background_only_where_it_is_accepted(tmp_path: Path) -> None:
    root, holes = tmp_path / "scans", scan(1)
    holes[:3] = np.nan
    save(root, "a-0001", t1c=holes)
    save(root, "b-0001")
    with pytest.raises(
        BadCases, match=r"(?s)NaN in 240 of 960.*accept: \{nan: background\}"
    ) as found:
        index(root)
    assert list(found.value.problems) == ["a-0001"]
    assert "dataset.accept: {nan: background}" in found.value.problems["a-0001"].fix
    cases = index(root, nan="background")
    assert cases["a-0001"].accepted == {"nan": ["t1c"]} and cases["b-0001"].accepted == {}
    assert any("NaN in 240 voxels" in note for note in cases["a-0001"].notes)
    found_with_nan = arrays(cases["a-0001"], root)
    # As if someone had written zeros.
    filled = tmp_path / "filled/scans"
    save(filled, "a-0001", t1c=np.nan_to_num(holes))
    for name in ("t1n", "t2f"):
        file = f"a-0001/a-0001-{name}.nii.gz"
        (filled / file).write_bytes((root / file).read_bytes())
    np.testing.assert_array_equal(arrays(index(filled)["a-0001"], filled), found_with_nan)


def test_infinite_voxels_are_never_background(tmp_path: Path) -> None:
    root, broken = tmp_path / "scans", scan(1)
    broken[0, 0, 0] = np.inf
    save(root, "a-0001", t1c=broken)
    with pytest.raises(BadCases, match="infinite values in 1 of 960") as found:
        index(root, nan="background")
    assert "accept" not in found.value.problems["a-0001"].fix


def test_a_missing_channel_is_zeros_in_its_place(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    save(root, "whole-0001")
    save(root, "lost-0001")
    save(root, "empty-0001", t1c=np.zeros(SHAPE, np.float32))
    (root / "lost-0001/lost-0001-t1n.nii.gz").unlink()
    with pytest.raises(BadCases) as refused:
        index(root)
    problems = refused.value.problems
    assert set(problems) == {"lost-0001", "empty-0001"}
    assert all("missing_channels: zeros" in problem.fix for problem in problems.values())
    cases = index(root, missing_channels="zeros")
    assert cases["lost-0001"].missing == {"t1n": 0} and cases["empty-0001"].missing == {"t1c": 1}
    assert cases["lost-0001"].accepted == {"missing_channels": ["t1n"]}
    whole, lost = arrays(cases["whole-0001"], root), arrays(cases["lost-0001"], root)
    assert whole.shape == lost.shape and whole.any(axis=(1, 2, 3)).all()
    assert not lost[0].any() and lost[1].any() and lost[2].any()
    assert not arrays(cases["empty-0001"], root)[1].any()
    # Other arrays than those of the same files with all channels there.
    usual, other = Preprocess(), cases["whole-0001"]
    lacking = IndexedCase(**{**vars(other), "missing": {"t1n": 0}})
    assert fingerprint(lacking, usual, [8, 8, 8]) != fingerprint(other, usual, [8, 8, 8])


def test_a_case_without_any_scan_is_not_accepted(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    save(root, "whole-0001")
    save(root, "none-0001", **{name: np.zeros(SHAPE, np.float32) for name in CHANNELS})
    with pytest.raises(BadCases, match="the value 0 in every voxel"):
        index(root, missing_channels="zeros")


def test_labels_outside_of_a_stripped_scan_need_the_study_to_accept_them(tmp_path: Path) -> None:
    root, stripped = tmp_path / "scans", {name: scan(n) for n, name in enumerate(CHANNELS)}
    for volume in stripped.values():
        volume[:6] = 0
    save(root, "a-0001", **stripped)
    with pytest.raises(BadCases, match=r"accept: \{labels_outside: true\}"):
        index(root)
    (case,) = index(root, labels_outside=True).values()
    assert "24 of 48 labelled voxels" in case.accepted["labels_outside"][0]


def test_files_of_one_shape_are_taken_voxel_by_voxel_where_a_study_accepts_it(
    tmp_path: Path,
) -> None:
    root = tmp_path / "scans"
    save(root, "a-0001")
    save(root, "b-0001")
    usual = {name: arrays(case, root) for name, case in index(root).items()}
    # A label map, and a channel, that were saved with other headers; one is mirrored by its own.
    for file, affine in (("seg", np.diag([-1.0, 1, 1, 1])), ("t1c", np.diag([1.0, 1, 2, 1]))):
        place = root / f"a-0001/a-0001-{file}.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(nib.load(place).dataobj), affine), place)
    with pytest.raises(BadCases, match=r"accept: \{placement: voxels\}") as found:
        index(root)
    assert list(found.value.problems) == ["a-0001"]
    cases = index(root, placement="voxels")
    assert cases["a-0001"].accepted == {"placement": ["t1c", "label"]}
    assert cases["b-0001"].accepted == {}
    assert any(n.startswith("t1c: taken voxel by voxel") for n in cases["a-0001"].notes)
    for name, case in cases.items():
        np.testing.assert_array_equal(arrays(case, root), usual[name])
    # Another shape is on no common grid, whatever is accepted.
    place = root / "b-0001/b-0001-t2f.nii.gz"
    nib.save(nib.Nifti1Image(scan(3)[1:], np.eye(4)), place)
    with pytest.raises(BadCases, match="shape 11x10x8") as found:
        index(root, placement="voxels")
    assert "accept" not in found.value.problems["b-0001"].fix


def test_cases_of_one_patient_may_share_scans_where_a_study_accepts_it(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    for case in ("p-01-000", "p-01-001", "q-01-000"):
        save(root, case, t1n=scan(1 if case[0] == "p" else 2))
    with pytest.raises(BadCases, match=r"accept: \{shared_scans: true\}") as found:
        index(root)
    assert list(found.value.problems) == ["p-01-001"]
    cases = index(root, shared_scans=True)
    assert cases["p-01-001"].accepted == {"shared_scans": ["t1n of p-01-000"]}
    assert cases["p-01-000"].accepted == {"shared_scans": ["t1n of p-01-001"]}
    assert cases["q-01-000"].accepted == {}
    # Of two patients they could be a training and a test case.
    save(root, "r-01-000", t2f=scan(2))
    with pytest.raises(BadCases, match="holds as t2f the voxels that q-01-000 holds as t1n"):
        index(root, shared_scans=True)


def test_what_is_accepted_stands_in_the_report(tmp_path: Path) -> None:
    root, holes = tmp_path / "scans", scan(1)
    holes[0, 0, 0] = np.nan
    save(root, "a-0001", t1c=holes)
    save(root, "b-0001")
    (root / "b-0001/b-0001-t2f.nii.gz").unlink()
    cases = list(index(root, nan="background", missing_channels="zeros").values())
    lines = accepted_in_words(cases)
    assert lines == [
        "nan in one case: a-0001 (t1c)",
        "missing_channels in one case: b-0001 (t2f)",
    ]
    said = account(cases, {}, ["ET in 1 of 2 cases"])
    assert "Not annotated, and neither trained nor scored there: ET in 1 of 2 cases." in said
    assert "Accepted:\n\n- ``nan in one case``: ``a-0001 (t1c)``" in account(cases, {})
    assert accepted_in_words([]) == []


def test_a_study_that_accepts_nothing_says_nothing() -> None:
    usual = Dataset(channels=["t1n"])
    assert "accept" not in usual.model_dump()
    assert usual.accept.dropout == 0
    assert Accept(missing_channels="zeros").dropout == 0.2
    with pytest.raises(ValueError, match="background"):
        Accept.model_validate({"nan": "foreground"})


def raters(root: Path) -> list[np.ndarray]:
    """Label maps of three raters of one scan, as three cases of one patient."""
    labels = []
    for number, name in enumerate("abc"):
        label = np.zeros(SHAPE, np.uint8)
        label[2 + number : 8, 4:8, 2:6] = 1
        label[2 + number, 4, 2] = 2
        save(root, f"P-{name}", seg=label, **{c: scan(n) for n, c in enumerate(CHANNELS)})
        labels.append(label)
    return labels


def index_raters(root: Path, choice: str | None) -> dict[str, IndexedCase]:
    dataset = Dataset(
        layout="brats",
        root=str(root),
        channels=CHANNELS,
        patient_pattern="^(.+)-",
        accept=Accept(raters=choice),
    )
    cases, _ = index_cases(dataset, {"tumour": [1], "core": [2]}, root, workers=1)
    write_cases(root.parent / "cases.tsv", cases)
    return {case.name: case for case in read_cases(root.parent / "cases.tsv")}


def label_of(case: IndexedCase, root: Path) -> np.ndarray:
    settings = Preprocess(crop=False, normalisation="none")
    preprocess_case(case, root, settings, [8, 8, 8], root.parent)
    return np.asarray(load_case(root.parent, case.name).label)


def test_raters_of_one_scan_are_refused_with_the_key_that_says_which_counts(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    labels = raters(root)
    with pytest.raises(BadCases) as refused:
        index_raters(root, None)
    assert set(refused.value.problems) == {"P-b", "P-c"}
    assert all("raters: majority" in one.fix for one in refused.value.problems.values())
    (case,) = index_raters(root, "-b").values()
    assert case.name == "P-b" and "those of P-a and P-c are left out" in case.notes[-1]
    np.testing.assert_array_equal(label_of(case, root), labels[1])
    with pytest.raises(InputError, match="with which 0 of P-a, P-b and P-c end"):
        index_raters(root, "d")


@pytest.mark.parametrize("method", ["majority", "staple"])
def test_label_maps_of_raters_become_one_as_simpleitk_makes_it(tmp_path: Path, method: str) -> None:
    root = tmp_path / "scans"
    labels = raters(root)
    (case,) = index_raters(root, method).values()
    assert case.accepted["raters"] == [method, "P-b/P-b-seg.nii.gz", "P-c/P-c-seg.nii.gz"]
    images = [sitk.GetImageFromArray(label) for label in labels]
    oracle = sitk.LabelVoting if method == "majority" else sitk.MultiLabelSTAPLE
    wanted = sitk.GetArrayFromImage(oracle(images, 0))
    found = label_of(case, root)
    np.testing.assert_array_equal(found, wanted)
    assert set(np.unique(found)) >= {0, 1}
    # Whoever's labels change, the case has changed.
    first = case.sha256
    nib.save(nib.Nifti1Image(labels[2] % 2, np.eye(4)), root / "P-c/P-c-seg.nii.gz")
    with pytest.raises(InputError, match="changed since the index"):
        label_of(case, root)
    assert index_raters(root, method)["P-a"].sha256 != first


def test_copies_of_a_case_are_no_raters(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    raters(root)
    for name in "bc":
        copy = (root / "P-a/P-a-seg.nii.gz").read_bytes()
        (root / f"P-{name}/P-{name}-seg.nii.gz").write_bytes(copy)
    with pytest.raises(BadCases, match="holds the same t1n as P-a"):
        index_raters(root, "majority")
