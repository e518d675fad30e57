"""What `voxelsoup init` takes label values for, and what it leaves to the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from support.checks import nonempty
from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.data.index.index import index_cases
from voxelsoup.data.layouts.detect import Guess, guess
from voxelsoup.data.layouts.label_names import parse_labels
from voxelsoup.data.regions import check_label_order, label_order
from voxelsoup.planning.brats_labels import NUMBERINGS
from voxelsoup.planning.init import write_first_study
from voxelsoup.planning.label_meaning import Meaning, meaning_of
from voxelsoup.study.loading import read
from voxelsoup.study.sections.data import Dataset

NEW, OLD = ["t1n", "t1c", "t2w", "t2f"], ["t1", "t1ce", "t2", "flair"]
# As the challenges define tumour core, whole tumour and enhancing tumour, by values.
SINCE_2023 = {"TC": {1, 3}, "WT": {1, 2, 3}, "ET": {3}}
PED_2024 = {"TC": {1, 2, 3}, "WT": {1, 2, 3, 4}, "ET": {1}}
UP_TO_2021 = {"TC": {1, 4}, "WT": {1, 2, 4}, "ET": {4}}
CAVITY = {"RC": {4}}


def meaning(
    names: list[str], values: set[int], channels: list[str] = NEW, choice: str | None = None
) -> Meaning:
    guess = Guess(Dataset(layout="brats", root="x", channels=channels))
    return meaning_of(guess, names, {value: [names[0]] for value in sorted(values)}, choice)


def as_sets(regions: dict[str, list[int]]) -> dict[str, set[int]]:
    return {region: set(labels) for region, labels in regions.items()}


@pytest.mark.parametrize(
    ("name", "values", "regions"),
    [
        ("BraTS-GLI-00005-000", {1, 2, 3}, SINCE_2023),
        ("BraTS-GLI-00005-101", {1, 2, 3, 4}, SINCE_2023 | CAVITY),
        ("BraTS-MET-00005-000", {1, 2, 3}, SINCE_2023),
        ("BraTS-MEN-00005-000", {1, 2, 3}, SINCE_2023),
        ("BraTS-SSA-00005-000", {2, 3}, SINCE_2023),
        ("BraTS-GoAT-00005", {1, 2, 3}, SINCE_2023),
        ("BraTS-MEN-RT-0005-1", {1}, {"GTV": {1}}),
        ("BraTS-PED-00005-000", {1, 2, 3, 4}, PED_2024),
        ("BraTS-PED-00005-000", {1, 2, 4}, PED_2024),
        ("BraTS2021_00005", {1, 2, 4}, UP_TO_2021),
        ("BraTS20_Training_005", {1, 2, 4}, UP_TO_2021),
        ("Brats18_TCIA02_117_1", {1, 2, 4}, UP_TO_2021),
        ("brats_tcia_pat105_0001", {1, 2, 3, 4}, {"TC": {1, 3, 4}, "WT": {1, 2, 3, 4}, "ET": {4}}),
    ],
)
def test_names_of_brats_cases_say_what_their_labels_mean(
    name: str, values: set[int], regions: dict[str, set[int]]
) -> None:
    found = meaning([name, name], values)
    assert as_sets(found.regions) == regions
    assert name in found.reason and not found.choices and not found.unnamed


def test_data_sets_of_one_numbering_may_lie_together() -> None:
    found = meaning(["BraTS-GLI-00005-100", "BraTS-MET-00005-000"], {1, 2, 3, 4})
    assert as_sets(found.regions) == SINCE_2023 | CAVITY


@pytest.mark.parametrize(
    ("names", "values", "choices"),
    [
        # 2023, or later ones without oedema.
        (["BraTS-PED-00005-000"], {1, 2, 3}, {"ped-2023", "ped-2024"}),
        # Enhancing tumour, or a cavity without enhancing tumour in any case.
        (["BraTS-GLI-00005-000"], {1, 2, 4}, {"gli", "gli-2021"}),
        (["BraTS-MEN-00005-000"], {1, 2, 4}, {"men", "gli-2021"}),
        # Renumbered by somebody, or non-enhancing tumour.
        (["BraTS2021_00005"], {1, 2, 3}, {"gli", "gli-2021"}),
        # Two data sets in one folder.
        (["BraTS-PED-00005-000", "BraTS-GLI-00005-000"], {1, 2, 3, 4}, {"gli", "ped-2024"}),
        (["BraTS2021_00005", "BraTS-GLI-00005-000"], {1, 2, 3, 4}, {"gli", "gli-2021"}),
        (["P01"], {1, 2, 3}, {"gli", "ped-2024", "gli-2016"}),
        (["P01"], {1, 2, 3, 4}, {"gli", "ped-2024", "gli-2016"}),
        (["P01", "BraTS-GLI-00005-000"], {1, 2, 3}, {"gli", "ped-2024"}),
        (["P01"], {1, 7}, set()),
    ],
)
def test_where_two_meanings_are_possible_none_is_taken(
    names: list[str], values: set[int], choices: set[str]
) -> None:
    found = meaning(names, values)
    assert found.regions == {}
    assert set(found.choices) >= choices | {"values"}
    for key in nonempty(found.choices):
        assert meaning(names, values, choice=key).regions == found.choices[key].regions


def test_four_without_three_is_the_enhancing_tumour_in_files_named_as_up_to_2021() -> None:
    assert as_sets(meaning(["P01"], {1, 2, 4}, OLD).regions) == UP_TO_2021
    assert meaning(["P01"], {1, 2, 3}, OLD).regions == {}
    assert meaning(["P01"], {1, 2, 4}, NEW).regions == {}


def test_every_numbering_writes_label_maps_in_a_certain_order() -> None:
    for numbering in nonempty(NUMBERINGS):
        regions = numbering.regions_of(numbering.meaning)
        order = numbering.order or label_order(regions)
        assert check_label_order(order, regions, numbering.key) == order
        # Larger regions are written first, so that none hides a smaller one.
        sizes = [len(regions[region]) for region in order]
        assert sizes == sorted(sizes, reverse=True)


def test_a_value_beyond_the_numbering_is_no_region() -> None:
    found = meaning(["BraTS-GLI-00005-100"], {1, 2, 3, 7})
    assert as_sets(found.regions) == SINCE_2023
    assert found.unnamed == {7: ["BraTS-GLI-00005-100"]}
    assert "7 (in BraTS-GLI-00005-100)" in found.comment
    assert "dataset.background: [7]" in found.comment


def test_an_unknown_choice_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="did you mean") as caught:
        meaning(["P01"], {1}, choice="ped-2025")
    assert "ped-2024" in caught.value.expected


def described(labels: dict[str, Any], names: list[str], holders: dict[int, list[str]]) -> Meaning:
    guess = Guess(Dataset(layout="nnunet", root="x", channels=["CT"]), parse_labels(labels))
    return meaning_of(guess, names, holders)


def test_names_that_only_number_the_values_say_nothing() -> None:
    labels = {"background": 0, "label_1": 1, "label 2": 2, "3": 3, "class-4": 4}
    holders = {value: ["BraTS-PED-00001-000"] for value in (1, 2, 3, 4)}
    assert as_sets(described(labels, ["BraTS-PED-00001-000"], holders).regions) == PED_2024
    unknown = described(labels, ["P01"], {value: ["P01"] for value in holders})
    assert unknown.regions == {"label_1": [1], "label_2": [2], "3": [3], "class_4": [4]}


def test_a_description_that_contradicts_the_names_of_cases_is_followed_and_reported() -> None:
    labels = {"background": 0, "NCR": 1, "edema": 2, "ET": 3, "CC": 4}
    holders = {value: ["BraTS-PED-00001-000"] for value in (1, 2, 3, 4)}
    found = described(labels, ["BraTS-PED-00001-000"], holders)
    assert found.regions == {"NCR": [1], "edema": [2], "ET": [3], "CC": [4]}
    assert "calls 3 ET, and in BraTS paediatric of 2024 and later it is 1" in found.remarks[0]
    assert not described(labels, ["BraTS-GLI-00001-100"], holders).remarks
    named = {"background": 0, "enhancing": 1, "non-enhancing": 2, "cystic": 3, "edema": 4}
    assert not described(named, ["BraTS-PED-00001-000"], holders).remarks


def test_a_value_without_a_name_in_one_case_alone_is_reported() -> None:
    guess = Guess(Dataset(layout="table", root="x", channels=["CT"]))
    names = [f"c{number}" for number in range(6)]
    found = meaning_of(guess, names, {1: names, 7: ["c3"]})
    assert found.regions == {"label_1": [1], "label_7": [7]}
    assert "label value 7 is in one case of 6 only (c3)" in found.remarks[0]
    assert not meaning_of(guess, names, {1: ["c3"]}).remarks


ORDERED = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def test_regions_class_order_of_nnunet_is_the_order_of_writing() -> None:
    labels = parse_labels(ORDERED, [1, 2, 3])
    assert labels.order == {"whole tumor": 1, "core": 2, "enhancing": 3} and not labels.remarks
    guess = Guess(Dataset(layout="nnunet", root="x", channels=["CT"]), labels)
    found = meaning_of(guess, ["a"], {1: ["a"]})
    assert list(found.order.items()) == [("whole_tumor", 1), ("core", 2), ("enhancing", 3)]
    assert check_label_order(found.order, found.regions, "here") == label_order(found.regions)


@pytest.mark.parametrize("order", [[1, 2], [1, 2, 1], "123", [[1], 2, 3]])
def test_a_regions_class_order_that_cannot_be_is_not_taken(order: Any) -> None:
    labels = parse_labels(ORDERED, order)
    assert labels.order == {}
    assert "regions_class_order" in labels.remarks[0]


def scan_and_label(root: Path, scan: str, label: str, seed: int, values: list[int]) -> None:
    data = np.random.default_rng(seed).normal(300, 30, (10, 10, 10)).astype(np.float32)
    labels = np.zeros(data.shape, np.uint8)
    for place, value in enumerate(values):
        labels[2 + place, 3:6, 3:6] = value
    for name, volume in ((scan, data), (label, labels)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), root / name)


@pytest.fixture
def ped_folder(tmp_path: Path) -> Path:
    root = tmp_path / "PED"
    for number in range(4):
        case = f"BraTS-PED-{number:05d}-000"
        scan_and_label(
            root, f"{case}/{case}-t1c.nii.gz", f"{case}/{case}-seg.nii.gz", number, [1, 2, 3]
        )
    return root


def nnunet_folder(root: Path, labels: dict[str, Any], **more: Any) -> Path:
    """Four cases of values 1 and 2; the last one, c3, has a value 7 as well."""
    for number in range(4):
        files = f"imagesTr/c{number}_0000.nii.gz", f"labelsTr/c{number}.nii.gz"
        scan_and_label(root, *files, number, [1, 2, *([7] if number == 3 else [])])
    description = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "labels": labels}
    (root / "dataset.json").write_text(json.dumps(description | more))
    return root


def test_an_open_choice_is_refused_until_it_is_made(
    ped_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    assert main(["init", str(ped_folder), "--output", str(file)]) == 0
    assert "regions are left open" in capsys.readouterr().out
    text = file.read_text()
    assert yaml.safe_load(text)["regions"] == {}
    assert main(["index", str(file)]) == 1
    assert "names no region: take one of the choices" in capsys.readouterr().err
    choice = "regions: {TC: [1, 2, 3], WT: [1, 2, 3, 4], ET: [1]}"
    assert f"#     {choice}\n" in text
    file.write_text(text.replace("regions: {}", choice))
    assert main(["index", str(file)]) == 0
    assert (
        main(["init", str(ped_folder), "--output", str(file), "--force", "--labels=ped-2023"]) == 0
    )
    assert read(file).regions == {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}


def test_an_open_choice_is_asked_for_on_a_terminal(ped_folder: Path, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def second(meaning: Meaning) -> str:
        asked.append(list(meaning.choices))
        return asked[0][1]

    file = tmp_path / "study.yaml"
    warnings = write_first_study(guess(ped_folder), file, False, ask=second)
    assert not any("open" in warning for warning in warnings)
    assert asked == [["ped-2024", "ped-2023", "values"]]
    assert read(file).regions == {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}


def test_a_value_that_no_description_names_is_no_region_but_named_with_its_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = nnunet_folder(tmp_path / "D", {"background": 0, "hot": 1, "cold": 2})
    remark = "label value 7, which the data set's description does not name, in one case: c3"
    assert main(["index", str(root)]) == 0
    assert remark in capsys.readouterr().out
    file = tmp_path / "study.yaml"
    assert main(["init", str(root), "--output", str(file)]) == 0
    assert remark in capsys.readouterr().out
    assert read(file).regions == {"hot": [1], "cold": [2]}
    assert main(["index", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "c3.nii.gz: holds the label value 7" in printed
    assert "`dataset.background: [7]`" in printed
    file.write_text(file.read_text().replace("channels: [CT]", "channels: [CT]\n  background: [7]"))
    assert main(["index", str(file)]) == 0
    assert "label value 7 is background, as `dataset.background` declares: c3" in (
        capsys.readouterr().out
    )


def test_init_writes_the_order_of_nnunets_regions(tmp_path: Path) -> None:
    root = nnunet_folder(
        tmp_path / "D",
        {"background": 0, "whole": [1, 2], "core": [2], "stray": 7},
        regions_class_order=[1, 2, 7],
    )
    assert main(["init", str(root), "--output", str(tmp_path / "study.yaml")]) == 0
    study = read(tmp_path / "study.yaml")
    assert study.regions == {"whole": [1, 2], "core": [2], "stray": [7]}
    assert study.predict.label_order == {"whole": 1, "core": 2, "stray": 7}


def test_values_of_the_description_are_background_where_a_study_has_no_region_of_them(
    tmp_path: Path,
) -> None:
    root = nnunet_folder(tmp_path / "D", {"background": 0, "hot": 1, "cold": 2, "odd": 7})
    dataset = Dataset(layout="nnunet", root=str(root), channels=["CT"])
    cases, _ = index_cases(dataset, {"hot": [1]}, root, workers=1)
    notes = {case.name: case.notes for case in cases}
    assert notes["c0"] == ("label value 2 (cold) is background: no region names it",)
    assert notes["c3"] == (*notes["c0"], "label value 7 (odd) is background: no region names it")


def test_voxels_of_background_values_are_not_labelled_ones(tmp_path: Path) -> None:
    """A declared value may lie where a stripped scan is 0, and alone it labels nothing."""
    root = nnunet_folder(tmp_path / "D", {"background": 0, "hot": 1})
    image = nib.load(root / "imagesTr/c3_0000.nii.gz")
    scan = np.array(image.dataobj)
    scan[5:] = 0
    nib.save(nib.Nifti1Image(scan, np.eye(4)), root / "imagesTr/c3_0000.nii.gz")
    label = np.zeros(scan.shape, np.uint8)
    label[7:] = 2
    nib.save(nib.Nifti1Image(label, np.eye(4)), root / "labelsTr/c3.nii.gz")
    dataset = Dataset(layout="nnunet", root=str(root), channels=["CT"], background=[2, 7])
    cases, _ = index_cases(dataset, {"hot": [1]}, root, workers=1)
    assert cases[-1].notes == (
        "no voxel is labelled",
        "label value 2 is background, as `dataset.background` declares",
    )


def test_a_value_is_in_a_region_or_in_the_background(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "dataset: {layout: brats, root: x, channels: [CT], background: [2]}\n"
        "regions: {hot: [1, 2]}\n"
    )
    with pytest.raises(InputError, match=r"`dataset.background` holds the label value 2"):
        read(file)
