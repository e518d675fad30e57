"""What INPUT means: cases of folders and files by their names, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_json
from voxelsoup.data.case import Case
from voxelsoup.data.index.checks import Expected, check_case
from voxelsoup.prediction.scans import find_scans, record_of, refuse_other_inputs

BRATS = ["t1n", "t1c", "t2w", "t2f"]
DECATHLON = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(
    given: object, channels: list[str], **more: Any
) -> tuple[dict[str, list[str]], list[str]]:
    """Case -> names of its files in the order of the channels, and what was reported."""
    remarks: list[str] = []
    cases = find_scans(str(given), channels, report=remarks.append, **more)
    assert [case.problem for case in cases if case.problem] == []
    files = {c.name: [str(s).rpartition("/")[2] for s in c.channels.values()] for c in cases}
    return files, remarks


# --- channels -------------------------------------------------------------------------------


def test_files_named_by_synonyms_are_found(tmp_path: Path) -> None:
    ends = ("t1", "t1ce", "t2", "flair")
    touch(tmp_path, *(f"p_1_{end}.nii.gz" for end in (*ends, "seg")))
    files, remarks = found(tmp_path, BRATS)
    assert files == {"p_1": [f"p_1_{end}.nii.gz" for end in ends]}
    assert len(remarks) == 1 and "p_1_seg.nii.gz" in remarks[0]


def test_the_names_of_one_cases_files_may_be_synonyms(tmp_path: Path) -> None:
    given = ",".join(f"{name}={tmp_path}/p_{name}.nii" for name in ("FLAIR", "T1", "T2", "T1Gd"))
    files, _ = found(given, BRATS)
    assert files == {"p": ["p_T1.nii", "p_T1Gd.nii", "p_T2.nii", "p_FLAIR.nii"]}


@pytest.mark.parametrize("below", ["", "imagesTs"])
def test_numbers_mean_what_dataset_json_calls_them(tmp_path: Path, below: str) -> None:
    """Also where INPUT is the folder of the images, below dataset.json."""
    write_json(tmp_path / "dataset.json", {"channel_names": DECATHLON})
    touch(tmp_path, *(f"imagesTs/p_{n:04d}.nii.gz" for n in range(4)))
    files, remarks = found(tmp_path / below, BRATS)
    assert files == {"p": [f"p_{n:04d}.nii.gz" for n in (1, 2, 3, 0)]} and remarks == []
    # A model of one of them takes this one.
    files, _ = found(tmp_path / below, ["t2f"])
    assert files == {"p": ["p_0000.nii.gz"]}


@pytest.mark.parametrize("below", ["", "imagesTs"])
def test_volumes_of_a_4d_file_mean_what_dataset_json_calls_them(tmp_path: Path, below: str) -> None:
    content = {"modality": DECATHLON, "test": ["imagesTs/p.nii.gz"]}
    content["training"] = [{"image": "imagesTs/q.nii.gz", "label": "l.nii.gz"}]
    write_json(tmp_path / "dataset.json", content)
    touch(tmp_path, "imagesTs/p.nii.gz", "imagesTs/q.nii.gz")
    files, _ = found(tmp_path / below, BRATS)
    assert files == {c: [f"{c}.nii.gz#{n}" for n in (1, 2, 3, 0)] for c in ("p", "q")}


def test_numbers_without_names_are_taken_in_their_order_and_reported(tmp_path: Path) -> None:
    touch(tmp_path, *(f"p_{n:04d}.nii.gz" for n in range(4)))
    files, remarks = found(tmp_path, BRATS)
    assert files == {"p": [f"p_{n:04d}.nii.gz" for n in range(4)]}
    assert "no names of channels" in remarks[0] and "t1n, t1c, t2w and t2f" in remarks[0]
    files, remarks = found(tmp_path, BRATS, called=["3", "2", "1", "0"])
    assert files == {"p": [f"p_{n:04d}.nii.gz" for n in (3, 2, 1, 0)]} and remarks == []


def test_other_names_are_refused_and_can_be_stated(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{case}_{end}.nii.gz" for case in "pq" for end in ("a", "b")))
    with pytest.raises(InputError, match="t1n = a, t2w = b"):
        found(tmp_path, ["t1n", "t2w"])
    files, _ = found(tmp_path, ["t1n", "t2w"], called=["b", "a"])
    assert files["q"] == ["q_b.nii.gz", "q_a.nii.gz"]


def test_one_channel_of_another_name_is_taken_from_files_that_all_cases_have(
    tmp_path: Path,
) -> None:
    touch(tmp_path, *(f"{case}_{end}.nii.gz" for case in "pq" for end in ("t1", "xyz", "mask")))
    files, remarks = found(tmp_path, ["t1n", "t2f"])
    assert files["p"] == ["p_t1.nii.gz", "p_xyz.nii.gz"]
    assert any("xyz is taken as t2f" in remark for remark in remarks)


# --- names that end in four digits ----------------------------------------------------------


def test_four_digits_belong_to_the_name_where_there_is_one_channel(tmp_path: Path) -> None:
    touch(tmp_path, "amos_0001.nii.gz", "amos_0002.nii.gz")
    assert set(found(tmp_path, ["CT"])[0]) == {"amos_0001", "amos_0002"}
    for name in ("amos_0001", "amos_0002"):
        assert set(found(tmp_path / f"{name}.nii.gz", ["CT"])[0]) == {name}
    touch(tmp_path / "nnunet", "a_0000.nii.gz", "b_0001_0000.nii.gz")
    assert set(found(tmp_path / "nnunet", ["CT"])[0]) == {"a", "b_0001"}


def test_a_model_of_one_channel_refuses_two_numbers_of_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "p_0000.nii.gz", "p_0001.nii.gz", "q_0000.nii.gz")
    with pytest.raises(InputError, match=r"p_0000\.nii\.gz and p_0001\.nii\.gz"):
        found(tmp_path, ["CT"])
    # Also where the names are those of channels.
    touch(tmp_path / "named", "p_t1.nii.gz", "p_t2.nii.gz")
    with pytest.raises(InputError, match=r"p_t1\.nii\.gz and p_t2\.nii\.gz"):
        found(tmp_path / "named", ["CT"])


# --- label maps among the scans -------------------------------------------------------------


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("p_frame01", "p_frame01_gt"),
        ("volume-0", "segmentation-0"),
        ("a", "a.seg"),
        ("b", "mask_b"),
    ],
)
def test_label_maps_beside_scans_are_left_out_and_reported(
    tmp_path: Path, scan: str, mask: str
) -> None:
    touch(tmp_path, f"{scan}.nii.gz", f"{mask}.nii.gz")
    files, remarks = found(tmp_path, ["CT"])
    assert set(files) == {scan}
    assert len(remarks) == 1 and f"{mask}.nii.gz" in remarks[0]


def test_label_maps_of_other_names_are_known_by_their_voxels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (6, 6, 6)).astype(np.int16)
    noise = random.normal(0, 100, (6, 6, 6)).astype(np.int16)
    for name, data in (("p", noise), ("p_tumour", labels), ("q", labels.astype(np.float32))):
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii.gz")

    def problem(case: Case) -> str:
        try:
            check_case(case, Expected(frozenset(), "predict"))
        except InputError as error:
            return error.found
        return ""

    problems = {case.name: problem(case) for case in find_scans(str(tmp_path), ["CT"])}
    assert problems["p"] == ""
    assert all("looks like a label map" in problems[name] for name in ("p_tumour", "q"))
    # Who names the file itself means it.
    (alone,) = find_scans(str(tmp_path / "q.nii.gz"), ["CT"])
    assert problem(alone) == ""


# --- two inputs, one output -----------------------------------------------------------------


def test_two_files_of_one_case_name_are_refused_with_both_names(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "a.nii.gz")
    with pytest.raises(InputError, match=r"a\.nii and .*a\.nii\.gz"):
        found(tmp_path, ["CT"])
    entries = [{"image": f"{n}/imaging.nii.gz"} for n in (1, 2)]
    write_json(tmp_path / "list.json", {"training": [], "test": entries})
    with pytest.raises(InputError, match=r"1/imaging\.nii\.gz and .*2/imaging\.nii\.gz"):
        found(tmp_path / "list.json", ["CT"])


def test_a_label_map_of_another_scan_is_not_replaced(tmp_path: Path) -> None:
    """Two calls for two scans of one name; a copy of the same scan is the same."""
    out = tmp_path / "out"
    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "i.nii.gz").write_bytes(b"x" if folder == "c" else folder.encode())
    (tmp_path / "d").mkdir()
    (tmp_path / "d/i.nii.gz").write_bytes(b"a")
    cases = {f: find_scans(str(tmp_path / f), ["CT"]) for f in "abcd"}
    refuse_other_inputs(cases["a"], out)
    touch(out, "i.nii.gz")
    write_json(record_of(out, "i"), {"directory": str(tmp_path), "files": {"CT": "a/i.nii.gz"}})
    refuse_other_inputs(cases["a"], out)
    refuse_other_inputs(cases["d"], out)
    with pytest.raises(InputError, match=r"a/i\.nii\.gz, and that of .*b/i\.nii\.gz"):
        refuse_other_inputs(cases["b"], out)
    # A scan that is gone, or whose label map is: there is nothing to lose.
    (tmp_path / "a/i.nii.gz").unlink()
    refuse_other_inputs(cases["b"], out)
