"""Visits of one patient, found by the names of the cases, in whatever layout they lie."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError

from support.checks import nonempty
from voxelsoup.commands.cli import main
from voxelsoup.data.case import Case
from voxelsoup.data.index.patients import guess_pattern, patient_finder
from voxelsoup.study.sections.data import Dataset

LAYOUTS = ["brats", "decathlon", "nnunet", "monai", "table"]
PATIENTS = {
    "BraTS-GLI-00005-101": "BraTS-GLI-00005",
    "BraTS-MEN-RT-0000-1": "BraTS-MEN-RT-0000",
    "BraTS-GoAT-00012": "BraTS-GoAT-00012",
    "BraTS2021_00002": "BraTS2021_00002",
    "BraTS20_Training_001": "BraTS20_Training_001",
    "sub-01_ses-2": "sub-01",
    "sub-01_ses-2_run-1": "sub-01",
    "sub-010_ses-2": "sub-010",
    "sub-001": "sub-001",
    "sub-001-scan": "sub-001-scan",
    "case_12": "case_12",
}
NAMES = ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03_ses-1"]


def dataset(layout: str, **settings: Any) -> Dataset:
    return Dataset.model_validate(
        {"layout": layout, "root": ".", "channels": ["CT"], **settings},
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_visits_group_patients_in_every_layout(layout: str) -> None:
    patient_of = patient_finder(dataset(layout))
    assert {name: patient_of(Case(name, {}, None)) for name in PATIENTS} == PATIENTS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patterns_of_visits_can_be_switched_off(layout: str) -> None:
    patient_of = patient_finder(dataset(layout, patient_pattern="none"))
    assert all(patient_of(Case(name, {}, None)) == name for name in nonempty(PATIENTS))
    assert patient_of(Case("sub-01_ses-2", {}, None, patient="P7")) == "P7"


def test_what_the_data_set_says_goes_before_names_of_visits() -> None:
    patient_of = patient_finder(dataset("monai"))
    assert patient_of(Case("sub-01_ses-2", {}, None, patient="P7")) == "P7"


def test_a_pattern_has_one_group_or_is_none() -> None:
    with pytest.raises(ValidationError, match="`none`: no pattern"):
        dataset("monai", patient_pattern="^case")


FRAMES = [f"patient{number:03d}_frame{frame:02d}" for number in range(4) for frame in (1, 12)]
SINGLE = {
    "one scan each": [f"case_{number:03d}" for number in range(8)],
    "dates": [f"2019-05-{day:02d}" for day in range(1, 9)],
    "sites of many cases": [f"site{site}_{number}" for site in (1, 2) for number in range(40)],
    "one that does not fit": [*FRAMES, "extra"],
    "beginnings of one case each": [f"{name}{end}" for name in ("a1_", "b2_") for end in "c"],
}


@pytest.mark.parametrize(
    "names", [FRAMES, ["S1_1", "S1_2", "S2_1"], ["K3-left", "K3-right", "K4-left"]]
)
def test_names_that_look_like_several_scans_of_patients_have_a_pattern(names: list[str]) -> None:
    pattern = guess_pattern(names)
    assert pattern is not None
    patient_of = patient_finder(dataset("monai", patient_pattern=pattern))
    found = [patient_of(Case(name, {}, None)) for name in names]
    assert found == [re.split("[_-]", name)[0] for name in names]


@pytest.mark.parametrize("names", SINGLE.values(), ids=SINGLE)
def test_other_names_have_no_pattern(names: list[str]) -> None:
    assert guess_pattern(names) is None


def with_names(root: Path, names: list[str]) -> Path:
    """nnU-Net raw with cases of these names."""
    for number, name in enumerate(names):
        scan = np.random.default_rng(number).normal(size=(6, 6, 6)).astype(np.float32)
        for folder, file, data in (
            ("imagesTr", f"{name}_0000.nii.gz", scan),
            ("labelsTr", f"{name}.nii.gz", (scan > 1).astype(np.uint8)),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.eye(4)), root / folder / file)
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "hot": 1}}
    about |= {"numTraining": len(names), "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def test_index_asks_whether_names_are_of_one_patient_and_init_takes_them_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = with_names(tmp_path / "Dataset002_Frames", FRAMES)
    assert main(["index", str(root)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "if patient000_frame01 and patient000_frame12 are of one, set" in printed
    study = tmp_path / "study.yaml"
    assert main(["init", str(root), "--output", str(study)]) == 0
    assert "look like a patient's and one of several scans" in capsys.readouterr().out
    assert main(["index", str(study)]) == 0
    assert "8 cases of 4 patients with several" in capsys.readouterr().out


@pytest.fixture
def bids_folder(tmp_path: Path) -> Path:
    """Names of BIDS: two sessions of one patient, one of each of two others."""
    return with_names(tmp_path / "Dataset001_Bids", NAMES)


def test_index_reports_which_cases_are_one_patients_and_by_what(
    bids_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(bids_folder)]) == 0
    printed = capsys.readouterr().out
    assert "4 usable (4 labelled, 0 unlabelled) of 3 patients" in printed
    assert "sub-01: sub-01_ses-1, sub-01_ses-2; by the visits in the case names" in printed
    study = tmp_path / "study.yaml"
    study.write_text(
        f"dataset: {{layout: nnunet, root: {bids_folder}, channels: [CT], patient_pattern: none}}\n"
        "regions: {hot: [1]}\nfolds: {count: 2}\n"
    )
    assert main(["index", str(study), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["patients"] is None
    assert [case["patient"] for case in listed["cases"]] == NAMES
