"""Check results of cases: kept over runs, and dropped once an input of theirs changes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.common.files import sha256
from voxelsoup.data.folds import make_folds
from voxelsoup.data.index import check_cache
from voxelsoup.data.index.index import index_cases
from voxelsoup.data.volumes import volume
from voxelsoup.report.cases import account
from voxelsoup.study.sections.data import Dataset, Folds

REGIONS = {"WT": [1, 2, 3]}
A, B = "Phantom-0000-000", "Phantom-0001-000"


@pytest.fixture
def root(phantom_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantom_folder, tmp_path / "data"))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases whose voxels were read, in the order of the checks."""
    names: list[str] = []
    check = check_cache.check_case

    def counting(case: Any, expected: Any) -> Any:
        names.append(case.name)
        return check(case, expected)

    monkeypatch.setattr(check_cache, "check_case", counting)
    return names


def run(root: Path, regions: dict[str, list[int]] = REGIONS, workers: int = 1, **keys: Any) -> Any:
    study = Dataset(layout="brats", root="x", channels=["t1n", "t1c", "t2w", "t2f"], **keys)
    return index_cases(study, regions, root, workers, root.parent / "state" / "verdicts.jsonl")


def scan(root: Path, end: str = "t1c", case: str = B) -> Path:
    return root / case / f"{case}-{end}.nii.gz"


def test_an_unchanged_case_is_not_opened_again(
    root: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(root)
    assert len(checked) == 6
    monkeypatch.setattr(check_cache, "sha256", None)
    assert run(root) == first
    assert len(checked) == 6


def test_a_touched_case_is_hashed_and_a_changed_one_checked(root: Path, checked: list[str]) -> None:
    first = run(root)
    scan(root).touch()
    assert run(root) == first
    assert len(checked) == 6
    content = bytearray(scan(root).read_bytes())
    content[-6] ^= 255
    dates = scan(root).stat()
    with scan(root).open("r+b") as stream:
        stream.write(content)
    # The date of the content is put back, as some tools do.
    os.utime(scan(root), ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert list(run(root, on_bad_case="skip")[1]) == [B]
    assert checked[6:] == [B]


def test_other_labels_or_a_damaged_line_are_checked_again(root: Path, checked: list[str]) -> None:
    first = run(root)
    kept = root.parent / "state" / "verdicts.jsonl"
    lines = kept.read_text().splitlines()
    damaged = lines[0].replace('"sha256": "', '"sha256": "0')
    kept.write_text("\n".join([damaged, lines[1][:50], "[]", *lines[2:]]))
    assert run(root) == first
    assert len(checked) == 8
    run(root, regions=REGIONS | {"more": [4]})
    assert len(checked) == 14


def test_bad_results_are_kept_and_vanished_cases_dropped(root: Path, checked: list[str]) -> None:
    scan(root).write_bytes(b"no scan")
    for _ in range(2):
        with pytest.raises(BadCases, match="no NIfTI header") as caught:
            run(root)
        assert caught.value.problems[B].where == str(scan(root))
    assert len(checked) == 6
    shutil.rmtree(root / B)
    run(root)
    assert B not in (root.parent / "state" / "verdicts.jsonl").read_text()


def test_a_killed_index_resumes_and_processes_do_not_matter(root: Path, checked: list[str]) -> None:
    first = run(root)
    kept = root.parent / "state" / "verdicts.jsonl"
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    assert run(root, workers=2) == first
    assert kept.read_text().splitlines() == lines


def test_a_copy_is_found_however_it_is_stored(root: Path) -> None:
    image = nib.load(scan(root, "t1c", A))
    voxels = np.asarray(image.dataobj).astype(np.float64)
    nib.save(nib.Nifti1Image(voxels, nib.load(scan(root)).affine), scan(root))
    for end in ("t1n", "t2w", "t2f", "seg"):
        shutil.copy(scan(root, end, A), scan(root, end))
    rejected = run(root, on_bad_case="skip")[1]
    assert list(rejected) == [B]
    assert f"the same t1n as {A} (and 3 more channels" in rejected[B].found


def test_unlabelled_and_empty_cases_are_kept_with_a_note(root: Path) -> None:
    scan(root, "seg").unlink()
    image = nib.load(scan(root, "seg", A))
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), scan(root, "seg", A))
    cases, rejected = run(root, unlabelled="predict")
    assert not rejected
    notes = {case.name: case.notes for case in cases if case.notes}
    assert notes == {A: ("no voxel is labelled",), B: ("unlabelled: for prediction only",)}
    text = account(cases, {"C_1": InputError("f.nii", "is `odd`", "", "")})
    assert "5 labelled cases of 4 patients, and one case for prediction only" in text
    assert "- ``C_1``: ``f.nii: is 'odd'``" in text
    assert f"- ``{A}``: ``no voxel is labelled``" in text and B not in text
    assert "Left out" not in account(cases, {})


def test_a_given_split_names_no_unlabelled_case(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('[{"train": ["a", "b"], "val": ["c"]}]')
    folds = Folds(file=str(tmp_path / "s.json"), count=2, run=[0])
    with pytest.raises(InputError, match="fold 0 has case b, which has no label map"):
        make_folds({"a": "a", "c": "c"}, folds, "held-out", unlabelled=["b"])


def test_a_case_too_large_for_memory_is_checked_again(
    root: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job may have more of it; and nothing of such a file is read."""
    free = volume.available_memory()
    monkeypatch.setattr(volume, "available_memory", lambda: 1000)
    with pytest.raises(BadCases, match="GB of memory are needed"):
        run(root)
    monkeypatch.setattr(volume, "available_memory", lambda: free)
    assert len(run(root)[0]) == 6
    assert len(checked) == 12


def test_the_hash_of_a_case_is_that_of_its_files(root: Path) -> None:
    """The one that was read, the one that is looked up, and the one that preprocessing sees."""
    (case,) = [case for case in run(root)[0] if case.name == B]
    ends = ("t1n", "t1c", "t2w", "t2f", "seg")
    assert case.sha256 == volume.joint_hash(sha256(scan(root, end)) for end in ends)
    scan(root).touch()
    assert run(root)[0] == run(root)[0] and case in run(root)[0]
