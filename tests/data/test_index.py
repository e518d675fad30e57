"""The index: usable cases, and the message about every other one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from support.scans import label_with, write_nnunet
from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.data.case import Source
from voxelsoup.data.index.index import (
    index_cases,
    read_cases,
    read_rejected,
    write_cases,
    write_rejected,
)
from voxelsoup.data.index.not_annotated import annotated_cases, not_annotated_in_words
from voxelsoup.data.layouts.brats import PATIENT_PATTERN
from voxelsoup.study.sections.data import Dataset

CHANNELS = ["t1n", "t1c", "t2w", "t2f"]
REGIONS = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
BAD = "Phantom-0001-000"


def dataset(**changes: Any) -> Dataset:
    return Dataset(**({"layout": "brats", "root": "unused", "channels": CHANNELS} | changes))


@pytest.fixture
def folder(phantom_folder: Path, tmp_path: Path) -> Path:
    """A copy of the phantom to break."""
    return Path(shutil.copytree(phantom_folder, tmp_path / "data"))


def change(path: Path, affine_shift: float = 0, cut: int = 0, **voxels: Any) -> Path:
    image = nib.load(path)
    data = np.asarray(image.dataobj).astype(voxels.get("kind", image.get_data_dtype()))
    if "value" in voxels:
        data[2, 2, 2] = voxels["value"]
    affine = image.affine.copy()
    affine[0, 3] += affine_shift
    nib.save(nib.Nifti1Image(data[: data.shape[0] - cut], affine), path)
    return path


def test_every_phantom_case_is_indexed(phantom_folder: Path) -> None:
    cases, rejected = index_cases(dataset(layout="phantom"), REGIONS, phantom_folder, workers=1)
    assert not rejected
    assert [case.name for case in cases] == sorted(case.name for case in cases)
    assert [case.patient for case in cases] == [case.name[:12] for case in cases]
    assert len({case.patient for case in cases}) == 5
    for case in cases:
        stored = nib.load(phantom_folder / case.label.file)
        assert case.shape == stored.shape
        assert case.spacing == (1, 1, 1)
        assert case.labels == np.unique(stored.dataobj).tolist()
        assert list(case.channels) == CHANNELS
        assert not any(source.file.is_absolute() for source in case.channels.values())


def test_several_processes_find_the_same(phantom_folder: Path) -> None:
    one = index_cases(dataset(), REGIONS, phantom_folder, workers=1)
    assert index_cases(dataset(), REGIONS, phantom_folder, workers=2) == one


def test_tables_are_read_back(phantom_folder: Path, tmp_path: Path) -> None:
    cases, _ = index_cases(dataset(), REGIONS, phantom_folder, workers=1)
    write_cases(tmp_path / "cases.tsv", cases)
    assert read_cases(tmp_path / "cases.tsv") == cases
    write_rejected(tmp_path / "rejected.tsv", {"A": InputError("file", "found", "right", "fix")})
    lines = (tmp_path / "rejected.tsv").read_text().splitlines()
    assert lines == ["case\twhere\tfound\texpected\tfix", "A\tfile\tfound\tright\tfix"]
    (problem,) = read_rejected(tmp_path / "rejected.tsv").items()
    assert problem[0] == "A" and str(problem[1]).startswith("file: found")


def test_a_table_from_before_the_renaming_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rejected.tsv"
    path.write_text("case\twhere\tfound\texpected\tmend\nA\tfile\tis odd\teven\tadd one\n")
    assert read_rejected(path)["A"].fix == "add one"


def test_the_hash_follows_the_content_and_not_the_date(folder: Path) -> None:
    def hashes() -> dict[str, str]:
        return {c.name: c.sha256 for c in index_cases(dataset(), REGIONS, folder, 1)[0]}

    before = hashes()
    file = folder / BAD / f"{BAD}-t1c.nii.gz"
    file.touch()
    assert hashes() == before
    change(file, value=7)
    assert {name for name, digest in hashes().items() if digest != before[name]} == {BAD}


def damage(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("end", "harm", "said"),
    [
        ("t1c", Path.unlink, "no such file"),
        ("t1c", damage, "cannot be read"),
        ("t1c", lambda f: change(f, cut=1), "has shape"),
        ("t1c", lambda f: change(f, affine_shift=0.5), "affine that differs by up to 0.5 mm"),
        ("t1c", lambda f: change(f, kind=np.float32, value=np.nan), "not finite"),
        ("seg", lambda f: change(f, cut=1), "has shape"),
        ("seg", lambda f: change(f, affine_shift=0.5), "affine that differs"),
        ("seg", lambda f: change(f, value=4), "label value 4, which no region names"),
        ("seg", lambda f: change(f, kind=np.float32, value=0.5), "label value 0.5"),
    ],
)
def test_a_bad_case_stops_or_is_left_out(folder: Path, end: str, harm: Any, said: str) -> None:
    file = folder / BAD / f"{BAD}-{end}.nii.gz"
    harm(file)
    with pytest.raises(BadCases) as caught:
        index_cases(dataset(), REGIONS, folder, workers=1)
    assert list(caught.value.problems) == [BAD]
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert "dataset.on_bad_case: skip" in caught.value.fix
    assert caught.value.problems[BAD].fix in str(caught.value)
    cases, rejected = index_cases(dataset(on_bad_case="skip"), REGIONS, folder, workers=2)
    assert len(cases) == 5
    assert BAD not in [case.name for case in cases]
    assert rejected[BAD].where == str(file)
    assert said in rejected[BAD].found


def test_a_case_without_label_is_bad_or_for_prediction(folder: Path) -> None:
    (folder / BAD / f"{BAD}-seg.nii.gz").unlink()
    with pytest.raises(BadCases, match=rf"{BAD}: has no label file") as caught:
        index_cases(dataset(), REGIONS, folder, workers=1)
    assert "add the label file" in caught.value.fix


def test_a_folder_whose_files_have_other_names_is_a_bad_case(folder: Path) -> None:
    for file in (folder / BAD).iterdir():
        file.rename(file.with_name(file.name.removeprefix(f"{BAD}-")))
    _, rejected = index_cases(dataset(on_bad_case="skip"), REGIONS, folder, workers=1)
    assert list(rejected) == [BAD]
    assert rejected[BAD].where == str(folder / BAD / f"{BAD}-t1n.nii.gz")
    assert "nearest in its folder: t1n.nii.gz" in rejected[BAD].found


def test_all_bad_cases_are_listed_at_once(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    for name in names[:3]:
        damage(folder / name / f"{name}-t2w.nii.gz")
    with pytest.raises(BadCases, match=r"3 case\(s\) cannot be used") as caught:
        index_cases(dataset(), REGIONS, folder, workers=1)
    assert list(caught.value.problems) == names[:3]


def test_an_index_without_a_usable_case_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"6 case\(s\) cannot be used"):
        index_cases(dataset(on_bad_case="skip"), {"none": [9]}, folder, workers=1)


def test_two_cases_of_one_name_are_refused(folder: Path) -> None:
    shutil.copytree(folder / BAD, folder / "more" / BAD)
    with pytest.raises(InputError, match=f"two cases named {BAD}") as caught:
        index_cases(dataset(), REGIONS, folder, workers=1)
    assert "rename" in caught.value.fix


def patients(folder: Path, **settings: Any) -> list[str]:
    return [case.patient for case in index_cases(dataset(**settings), REGIONS, folder, 1)[0]]


def test_patients_are_found_by_a_pattern(phantom_folder: Path) -> None:
    found = patients(phantom_folder, patient_pattern=r"-(\d+)-")
    assert found == ["0000", "0001", "0002", "0003", "0003", "0004"]
    with pytest.raises(InputError, match=r"does not match the case Phantom-0000-000") as caught:
        patients(phantom_folder, patient_pattern=r"(Nobody)")
    assert caught.value.where == "dataset.patient_pattern"


@pytest.mark.parametrize(("name", "mark"), [("p.csv", ","), ("p.tsv", "\t")])
def test_patients_are_found_in_a_table(
    phantom_folder: Path, tmp_path: Path, name: str, mark: str
) -> None:
    cases = sorted(path.name for path in phantom_folder.iterdir())
    table = tmp_path / name
    rows = [mark.join(["case", "patient"]), *(mark.join([case, "anna"]) for case in cases)]
    table.write_text("\n".join(rows))
    # The table wins over the pattern.
    assert set(patients(phantom_folder, patients=str(table), patient_pattern="(P)")) == {"anna"}
    table.write_text("\n".join(rows[:-1]))
    with pytest.raises(InputError, match=f"does not name the case {cases[-1]}"):
        patients(phantom_folder, patients=str(table))
    table.write_text("strange\n")
    with pytest.raises(InputError, match="columns case and patient"):
        patients(phantom_folder, patients=str(table))
    with pytest.raises(InputError, match="no such file"):
        patients(phantom_folder, patients=str(tmp_path / "none.csv"))


def test_a_patients_table_from_a_spreadsheet(phantom_folder: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in phantom_folder.iterdir())
    rows = ["case,patient", *(f"{name},anna" for name in names)]
    table = tmp_path / "p.csv"
    table.write_text("\r\n".join(rows), encoding="utf-8-sig")
    assert set(patients(phantom_folder, patients=str(table))) == {"anna"}
    table.write_text("\n".join(rows), encoding="utf-16")
    with pytest.raises(InputError, match="is not UTF-8 text") as caught:
        patients(phantom_folder, patients=str(table))
    assert caught.value.where == str(table)
    assert "save the file as UTF-8" in caught.value.fix


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("Phantom-0000-000", "names no patient for the case Phantom-0000-000"),
        ("Phantom-0000-000,", "names no patient for the case Phantom-0000-000"),
        ("Phantom-0000-000,b", "to two patients, anna and b"),
    ],
)
def test_an_ambiguous_table_of_patients_is_refused(
    phantom_folder: Path, tmp_path: Path, row: str, said: str
) -> None:
    names = sorted(path.name for path in phantom_folder.iterdir())
    table = tmp_path / "p.csv"
    table.write_text("\n".join(["case,patient", *(f"{name},anna" for name in names), row]))
    with pytest.raises(InputError, match=said) as caught:
        patients(phantom_folder, patients=str(table))
    assert caught.value.where == str(table)


def test_channels_of_one_4d_file_are_indexed(tmp_path: Path) -> None:
    root = tmp_path / "task"
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    voxels = np.random.default_rng(0).normal(size=(6, 5, 4, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / "imagesTr/p.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.uint8), np.eye(4)), root / "labelsTr/p.nii.gz")
    (root / "dataset.json").write_text(
        '{"modality": {"0": "T2", "1": "ADC"}, "training": '
        '[{"image": "./imagesTr/p.nii.gz", "label": "./labelsTr/p.nii.gz"}]}'
    )
    study = dataset(layout="decathlon", channels=["t2", "adc"])
    (case,), _ = index_cases(study, {"all": [1]}, root, workers=1)
    assert case.channels["adc"] == Source(Path("imagesTr/p.nii.gz"), 1)
    write_cases(tmp_path / "cases.tsv", [case])
    assert read_cases(tmp_path / "cases.tsv") == [case]


@pytest.mark.real_data
def test_the_hippocampus_folder(hippocampus_folder: Path) -> None:
    study = dataset(layout="decathlon", channels=["mri"])
    regions = {"anterior": [1], "posterior": [2]}
    cases, rejected = index_cases(study, regions, hippocampus_folder, workers=2)
    assert len(cases) == 100
    assert not rejected
    assert len({case.sha256 for case in cases}) == 100


@pytest.mark.real_data
def test_the_brats_folder(brats_folder: Path) -> None:
    cases, rejected = index_cases(dataset(on_bad_case="skip"), REGIONS, brats_folder, workers=2)
    assert [case.name for case in cases] == ["TCGA-DU-7294"]
    assert cases[0].shape == (240, 240, 155)
    assert cases[0].labels == [0, 1, 2]
    assert rejected["AURORA-0001"].found == "has no label file"


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("Phantom-0003-001", "Phantom-0003"),
        ("sub-001", "sub-001"),
        ("UPENN-GBM-001", "UPENN-GBM-001"),
        ("TCGA-DU-7294", "TCGA-DU-7294"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
    ],
)
def test_only_a_visit_behind_a_patients_number_is_taken_off(case: str, patient: str) -> None:
    assert re.sub(PATIENT_PATTERN, r"\1", case) == patient


@pytest.mark.parametrize(("stripped", "usable"), [(None, 3), (False, 3), (True, 0)])
def test_labels_on_zeros_are_noted_unless_the_scans_are_skull_stripped(
    stripped: bool | None, usable: int, tmp_path: Path
) -> None:
    label = label_with([1])
    # Lungs, which a window of Hounsfield units sets to 0.
    tissue = 40 + np.arange(label.size).reshape(label.shape) % 7
    images = [np.where(label == 1, 0, tissue + n).astype(np.int16) for n in range(3)]
    for image in images:
        image[8:] = 0
    write_nnunet(tmp_path, {"background": 0, "lung": 1}, label, "CT", images)
    settings = {"layout": "nnunet", "root": str(tmp_path), "channels": ["CT"]}
    study = Dataset.model_validate(settings | {"skull_stripped": stripped})
    try:
        cases, _ = index_cases(study, {"lung": [1]}, tmp_path, workers=1)
    except BadCases as error:
        cases = []
        assert "skull_stripped: false" in str(error)
    assert len(cases) == usable
    assert all("where every channel is 0" in case.notes[0] for case in cases)


def test_regions_that_are_not_annotated_are_noted(phantom_folder: Path) -> None:
    hidden = {"Phantom-0000*": ["ET", "TC"], "Phantom-0001-000": ["ET"]}
    asked = dataset(layout="phantom", not_annotated=hidden)
    cases, _ = index_cases(asked, REGIONS, phantom_folder, workers=1)
    notes = {case.name: "; ".join(case.notes) for case in cases}
    assert notes["Phantom-0000-000"].count("is not annotated") == 2
    assert "TC is not annotated, though its label map holds 1" in notes["Phantom-0000-000"]
    assert "TC is not" not in notes["Phantom-0001-000"]
    assert all("annotated" not in note for name, note in notes.items() if name > "Phantom-0002")
    found = annotated_cases(cases, hidden, REGIONS)
    assert set(found) == {"TC", "ET"} and len(found["TC"]) > len(found["ET"])
    words = not_annotated_in_words(cases, {"Phantom-0001-000": ["ET"]}, REGIONS)
    assert words == [f"ET in 1 of {len(cases)} cases"]


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ({"phantom-0001-000": ["ET"]}, "no case of the data set is called.*Phantom-0001-000"),
        ({"SITE_*": ["ET"]}, "names `SITE_\\*`, which no case"),
        ({BAD: ["ET", "TC"], "Phantom-0001*": ["WT"]}, f"leaves no region of {BAD}"),
        ({"*": ["ET"]}, "region ET that it is annotated in no case"),
    ],
)
def test_what_is_said_to_be_not_annotated_must_fit_the_cases(
    phantom_folder: Path, hidden: dict[str, list[str]], said: str
) -> None:
    asked = dataset(layout="phantom", not_annotated=hidden)
    with pytest.raises(InputError, match=said):
        index_cases(asked, REGIONS, phantom_folder, workers=1)
