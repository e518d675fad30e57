"""Constants that follow the data: what init proposes, and what check says of a study's own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from voxelsoup.commands.cli import main
from voxelsoup.planning.constants import notes_on_constants, propose_constants
from voxelsoup.planning.fingerprint import CaseFingerprint, Contents, Fingerprint
from voxelsoup.study.loading import load, read
from voxelsoup.study.sections.evaluation import Metrics

MOUSE = ((112, 128, 80), (0.15, 0.15, 0.15))


def fingerprint(shape: Any, spacing: Any, *volumes: dict[int, float]) -> Fingerprint:
    cases = [
        CaseFingerprint(str(n), True, shape, spacing, "int16", "RAS", Contents(shape, 0.1, seen))
        for n, seen in enumerate(volumes)
    ]
    return Fingerprint(cases, {})


def test_a_mouse_gets_constants_of_its_size() -> None:
    found = propose_constants(
        "decathlon",
        {"cortex": [1], "ventricles": [2], "all": [1, 2]},
        fingerprint(*MOUSE, {1: 114.0, 2: 5.2}, {1: 120.0, 2: 6.0}),
    )
    assert found.metrics == {
        "lesion_smallest": 0.16,
        "surface_tolerance": 0.15,
        "penalty_distance": math.ceil(math.hypot(112 * 0.15, 128 * 0.15, 80 * 0.15)),
    }
    assert max(found.postprocessing["smallest_components"]) < 5.2 / 2
    assert "ventricles 5.2 mm³" in found.reasons["metrics.lesion_smallest"]


@pytest.mark.parametrize("volume", [0.004, 0.02, 0.3, 5.0, 700.0, 1e6])
@pytest.mark.parametrize("spacing", [(0.15, 0.15, 0.15), (1.5, 1.5, 10), (1, 1, 1)])
def test_no_constant_is_larger_than_the_smallest_region(volume: float, spacing: Any) -> None:
    seen = fingerprint((90, 100, 12), spacing, {1: volume}, {1: 9 * volume})
    found = propose_constants("nnunet", {"x": [1]}, seen)
    assert found.metrics["lesion_smallest"] <= volume / 10
    assert found.metrics["surface_tolerance"] <= (3 * volume / (4 * math.pi)) ** (1 / 3)
    assert max(found.postprocessing.get("smallest_components", [500])) <= volume / 2
    load(
        {"dataset": {"channels": ["a"]}, "regions": {"x": [1]}}
        | {"metrics": found.metrics, "postprocessing": found.postprocessing}
    )


def test_brats_keeps_its_own() -> None:
    seen = fingerprint((240, 240, 155), (1.0, 1.0, 1.0), {1: 30.0, 3: 20.0, 2: 900.0})
    regions = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    for layout in ("brats", "nnunet"):
        found = propose_constants(layout, regions, seen)
        assert found.metrics == {
            "lesion_smallest": 50,
            "surface_tolerance": 1.0,
            "penalty_distance": 374.0,
        }
        assert not found.postprocessing


@pytest.fixture
def mice(tmp_path: Path) -> Path:
    """Three scans of 0.15 mm with a region of 27 voxels (0.09 mm³) and one of 1,000 (3.4 mm³)."""
    root, entries = tmp_path / "mice", []
    for n in range(3):
        label = np.zeros((20, 22, 24), np.uint8)
        label[2:12, 2:12, 2:12], label[15:18, 15:18, 15:18] = 1, 2
        image = np.random.default_rng(n).normal(100, 5, label.shape) + 50 * label
        for folder, data in (("imagesTr", image.astype(np.float32)), ("labelsTr", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            file = root / folder / f"m{n}.nii.gz"
            nib.save(nib.Nifti1Image(data, np.diag([0.15, 0.15, 0.15, 1])), file)
        entries.append({"image": f"./imagesTr/m{n}.nii.gz", "label": f"./labelsTr/m{n}.nii.gz"})
    names = {"0": "background", "1": "cortex", "2": "ventricle"}
    listing = {"modality": {"0": "MRI"}, "labels": names, "training": entries, "test": []}
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


def test_check_names_constants_that_are_larger_than_a_region(mice: Path) -> None:
    study = load(
        {
            "dataset": {"layout": "decathlon", "root": str(mice), "channels": ["MRI"]},
            "regions": {"cortex": [1], "ventricle": [2]},
        }
    )
    lesions, tolerance, components = notes_on_constants(study)
    assert "`metrics.lesion_smallest` is 50 mm³" in lesions and "such as 0.0091" in lesions
    assert "`metrics.surface_tolerance` is 1 mm" in tolerance
    assert "`postprocessing.smallest_components` tries 500 mm³" in components
    for note in (lesions, components):
        assert "`cortex` (3.4 mm³) and `ventricle` (0.091 mm³)" in note
    penalised = study.model_copy(update={"metrics": Metrics(names=["hd95"], penalty_distance=374)})
    penalty, _ = notes_on_constants(penalised)
    assert "`metrics.penalty_distance` is 374 mm" in penalty and "5.73 mm" in penalty


def test_what_init_writes_has_nothing_to_note(
    mice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    assert main(["init", str(mice), "--output", str(file)]) == 0
    study = read(file)
    assert study.metrics.penalty_distance == pytest.approx(math.hypot(3, 3.3, 3.6), abs=0.1)
    capsys.readouterr()
    assert main(["check", str(file)]) == 0
    assert "note:" not in capsys.readouterr().out
