"""Volumes beside a case's files that nothing reads are named with their case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.scans import label_with, write_nnunet
from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.index.passed_over import (
    notes_on_passed_over,
    notes_on_strays,
    volumes_passed_over,
    with_passed_over,
)
from voxelsoup.study.sections.data import Dataset


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


def strays(root: Path, layout: Any, **settings: Any) -> list[str]:
    settings = {"channels": ["CT"], "root": str(root)} | settings
    return notes_on_strays(Dataset(layout=layout, **settings), root)


def entry(name: str) -> dict[str, str]:
    return {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"}


def describe(root: Path, **content: Any) -> None:
    (root / "dataset.json").write_text(json.dumps(content))


def test_scans_and_labels_that_a_decathlon_list_leaves_out_are_named(tmp_path: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        touch(tmp_path / folder, "c1.nii.gz", "c2.nii.gz", "._c1.nii.gz", "notes.txt")
    touch(tmp_path / "imagesTs", "c8.nii.gz", "c9.nii.gz")
    listed = {"modality": {"0": "CT"}, "training": [entry("c1"), entry("c2")]}
    describe(tmp_path, **listed, test=["./imagesTs/c8.nii.gz"])
    assert strays(tmp_path, "decathlon") == []
    # A test set is not passed over, whatever its list leaves out.
    touch(tmp_path / "imagesTr", *(f"d{number}.nii" for number in range(7)))
    touch(tmp_path / "labelsTr", "d0.NII.GZ")
    assert strays(tmp_path, "decathlon") == [
        f"{tmp_path}/imagesTr: 7 volumes of no case by name, nor in dataset.json, not read: "
        "d0.nii, d1.nii, d2.nii, d3.nii, d4.nii and 2 more",
        f"{tmp_path}/labelsTr: one volume of no case by name, nor in dataset.json, not read: "
        "d0.NII.GZ",
    ]


def test_what_nnunet_does_not_take_for_a_case_is_named(tmp_path: Path) -> None:
    names = [f"c{case}_{number:04d}.nii.gz" for case in (1, 2) for number in (0, 1)]
    touch(tmp_path / "imagesTr", *names, "c3_00.nii.gz", "odd.nrrd")
    touch(tmp_path / "labelsTr", "c1.nii.gz", "c2.nii.gz", "c9.nii")
    channels = {"0": "T2", "1": "ADC"}
    describe(tmp_path, channel_names=channels, file_ending=".nii.gz")
    images, labels = strays(tmp_path, "nnunet", channels=["T2"])
    assert images.endswith(
        "2 volumes of no case by name, nor in dataset.json, not read: c3_00.nii.gz and odd.nrrd"
    )
    assert labels.endswith("not read: c9.nii")
    # Version 1 lists its cases, without the numbers of their channels.
    describe(tmp_path, modality=channels, training=[entry("c1")])
    touch(tmp_path / "labelsTr", "c1_old.nii.gz")
    images, labels = strays(tmp_path, "nnunet", channels=["T2"])
    assert "4 volumes" in images and "c2_0000.nii.gz" in images
    assert "c2.nii.gz" in labels and "c1_old" not in labels


def test_strays_beside_the_files_of_a_datalist_and_a_table(tmp_path: Path) -> None:
    touch(tmp_path / "scans", *(f"p{number}.nii.gz" for number in range(5)), "p0_mask.nii.gz")
    touch(tmp_path / "truth", *(f"p{number}.nii.gz" for number in range(4)))
    training = [
        {"image": f"scans/p{number}.nii.gz", "label": f"truth/p{number}.nii.gz"}
        for number in range(2)
    ]
    # The label of a test image is not used, but it is known.
    testing = [{"image": "scans/p2.nii.gz", "label": "truth/p2.nii.gz"}]
    describe(tmp_path, training=training, testing=testing)
    scans, truth = strays(tmp_path, "monai")
    assert scans.startswith(f"{tmp_path}/scans: 2 volumes") and "p3.nii.gz and p4.nii.gz" in scans
    assert truth.endswith("p3.nii.gz")
    rows = ["case,CT,PET,label"]
    rows += [f"p{n},scans/p{n}.nii.gz,scans/p4.nii.gz#0,truth/p{n}.nii.gz" for n in range(3)]
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    scans, truth = strays(tmp_path, "table")
    # The column of a channel that the study leaves out is not passed over either.
    assert scans.endswith("one volume of no case by name, nor in cases.csv, not read: p3.nii.gz")
    assert truth.endswith("p3.nii.gz")


def test_a_volume_beside_the_folders_of_brats_cases_is_named(tmp_path: Path) -> None:
    for name in ("p-1", "p-2"):
        touch(tmp_path / "a" / name, f"{name}-CT.nii.gz", f"{name}-seg.nii.gz")
    touch(tmp_path / "a", "p-3-seg.nii.gz")
    (note,) = strays(tmp_path, "brats")
    assert note == f"{tmp_path}/a: one volume of no case by name, not read: p-3-seg.nii.gz"


def test_index_check_and_init_name_strays_and_refuse_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, file = tmp_path / "scans", tmp_path / "study.yaml"
    write_nnunet(root, {"background": 0, "tumour": 1}, label_with([1]))
    touch(root / "labelsTr", "c7.mha")
    for command in (["init", root, "--output", file], ["index", root], ["index", file],
                    ["check", file], ["index", root, "--json"]):  # fmt: skip
        assert main([str(argument) for argument in command]) == 0
        assert "one volume of no case" in capsys.readouterr().out
