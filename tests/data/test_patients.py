"""Visits of one patient, found by the names of the cases, in whatever layout they lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError

from support.checks import nonempty
from voxelsoup.commands.cli import main
from voxelsoup.data.case import Case
from voxelsoup.data.index.patients import patient_finder
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


@pytest.fixture
def bids_folder(tmp_path: Path) -> Path:
    """nnU-Net raw with names of BIDS: two sessions of one patient, one of each of two others."""
    root = tmp_path / "Dataset001_Bids"
    for number, name in enumerate(NAMES):
        scan = np.random.default_rng(number).normal(size=(6, 6, 6)).astype(np.float32)
        for folder, file, data in (
            ("imagesTr", f"{name}_0000.nii.gz", scan),
            ("labelsTr", f"{name}.nii.gz", (scan > 1).astype(np.uint8)),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.eye(4)), root / folder / file)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "hot": 1}}
    (root / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}))
    return root


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
