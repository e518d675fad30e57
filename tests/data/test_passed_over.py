"""Volumes beside a case's files that nothing reads are named with their case."""

from __future__ import annotations

from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.index.passed_over import (
    notes_on_passed_over,
    volumes_passed_over,
    with_passed_over,
)


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def case(folder: Path, name: str, label: str | None = None, extra: tuple[str, ...] = ()) -> Case:
    return Case(
        name,
        {"t1": Source(folder / f"{name}-t1.nii.gz")},
        Source(folder / label) if label else None,
        extra=extra,
    )


def test_what_lies_in_a_cases_folder_is_its_own_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(tmp_path / name, f"{name}-t1.nii.gz", f"{name}-seg.nii.gz")
    touch(tmp_path / "a", "Mask.NII.GZ", "._Mask.nii.gz", "notes.txt")
    cases = [case(tmp_path / name, name, f"{name}-seg.nii.gz") for name in ("a", "b")]
    found = volumes_passed_over(cases)
    assert found == {"a": ["Mask.NII.GZ"]}
    notes = notes_on_passed_over(cases, found)
    assert notes == {"a": ("not read, beside its files: Mask.NII.GZ",)}


def test_in_a_folder_of_several_cases_names_say_whose_a_file_is(tmp_path: Path) -> None:
    touch(tmp_path, "a-t1.nii.gz", "a_1-t1.nii.gz", "a_1-t1.nii", "ab.nii", "a-lesion.nrrd")
    found = volumes_passed_over([case(tmp_path, "a"), case(tmp_path, "a_1")])
    assert found == {"a": ["a-lesion.nrrd"], "a_1": ["a_1-t1.nii"]}


def test_what_every_labelled_case_has_is_left_out_on_purpose(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files = (f"{name}-{end}.nii.gz" for end in ("t1", "t2", "seg", "label"))
        touch(tmp_path / name, *files)
    touch(tmp_path / "a", "a-adc.nii.gz")
    labelled = [
        case(tmp_path / "a", "a", "a-seg.nii.gz", ("adc", "label", "t2")),
        case(tmp_path / "b", "b", "b-seg.nii.gz", ("label", "t2")),
    ]
    # The layout notes it, as another channel.
    assert notes_on_passed_over(labelled, volumes_passed_over(labelled)) == {}
    unlabelled = [labelled[0], case(tmp_path / "b", "b", None, ("label", "seg", "t2"))]
    notes = notes_on_passed_over(unlabelled, volumes_passed_over(unlabelled))
    (note,) = notes.pop("b")
    assert notes == {}
    assert note.endswith(": b-label.nii.gz, b-seg.nii.gz and b-t2.nii.gz")


def test_a_problem_names_what_may_be_the_missing_file() -> None:
    problem = InputError("a", "has no label file", "a label map", "add it")
    found = with_passed_over(problem, [f"mask{number}.nii" for number in range(7)])
    assert found.found.endswith(
        "not read, beside its files: mask0.nii, mask1.nii, mask2.nii, mask3.nii, mask4.nii and "
        "2 more"
    )
    assert (found.where, found.expected, found.fix) == ("a", "a label map", "add it")
    assert with_passed_over(problem, []) is problem
