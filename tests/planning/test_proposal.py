"""What `voxelsoup init` proposes for volumes of thick slices, of few voxels, and of all else."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from voxelsoup.commands.cli import main
from voxelsoup.models.networks import check_outputs, outline
from voxelsoup.planning.proposal import propose_network
from voxelsoup.study.loading import read
from voxelsoup.study.sections.training import Network


@pytest.mark.parametrize(
    ("spacing", "shape", "name"),
    [
        ((1, 1, 1), (140, 170, 140), "MedNeXt"),
        ((1, 1, 1.9), (140, 170, 140), "MedNeXt"),
        ((1, 1, 2), (140, 170, 70), "DynUNet"),
        ((1.5, 1.5, 10), (216, 256, 10), "DynUNet"),
        ((10, 1.5, 1.5), (6, 256, 216), "DynUNet"),
        ((0.15, 0.15, 0.15), (112, 128, 12), "DynUNet"),
        ((1, 1, 6), (28, 30, 8), "DynUNet"),
        ((1, 1, 5), (300, 300, 1), "DynUNet"),
        ((1, 1, 5), (512, 512, 60), "DynUNet"),
        ((3, 0.5, 0.5), (24, 640, 640), "DynUNet"),
    ],
)
def test_a_network_is_planned_per_axis_where_axes_are_unlike(
    spacing: Any, shape: Any, name: str
) -> None:
    proposed = propose_network(spacing, shape)
    network = Network.model_validate(proposed.settings)
    assert network.name == name and network.divisors == proposed.divisors
    assert math.prod(proposed.patch) <= 128**3
    for side, divisor, whole in zip(proposed.patch, proposed.divisors, shape, strict=True):
        assert side % divisor == 0 and side <= whole + divisor / 2
        # No axis is halved below what it has.
        assert divisor <= max(1, whole)
    check_outputs(outline(network, 1, 2), 1, 2, proposed.patch)


def test_thick_slices_are_never_halved_below_four() -> None:
    for slices, ratio in itertools.product(range(1, 40), (2.0, 3.5, 6.7, 20.0)):
        proposed = propose_network((1.0, 1.0, ratio), (180.0, 200.0, float(slices)))
        assert slices / proposed.divisors[2] >= min(slices, 3.5)
        assert abs(proposed.patch[2] - slices) <= proposed.divisors[2] / 2


def test_the_reason_names_what_the_network_divides_the_axes_by() -> None:
    reason = propose_network((1.5, 1.5, 10), (216, 256, 10)).reason
    assert "1.5 x 1.5 x 10 mm, 6.7 times as long along z" in reason
    assert "x by 32, y by 32 and z by 2" in reason


def test_init_writes_a_study_for_thick_slices_that_can_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slices along x, some scans of 5 and some of 6 mm: resampled, turned in their planes alone."""
    listing = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "heart"}}
    entries = []
    for n in range(6):
        label = np.zeros((6 + n, 40, 36), np.uint8)
        label[2:5, 10:30, 8:28] = 1
        image = np.random.default_rng(n).normal(100, 9, label.shape) + 50 * label
        affine = np.diag([5 + n % 2, 1, 1, 1])
        for folder, data in (("imagesTr", image.astype(np.float32)), ("labelsTr", label)):
            (tmp_path / "D" / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, affine), tmp_path / "D" / folder / f"c{n}.nii.gz")
        entries.append({"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"})
    text = json.dumps(listing | {"training": entries, "test": []})
    (tmp_path / "D" / "dataset.json").write_text(text)
    file = tmp_path / "study.yaml"
    assert main(["init", str(tmp_path / "D"), "--output", str(file)]) == 0
    study = read(file)
    assert study.network.name == "DynUNet" and study.network.divisors == [2, 8, 8]
    assert study.optimizer.lr == 0.005
    assert study.sweep.grid["optimizer.lr"] == [0.003, 0.005]
    assert study.training.rotate_about == ["x"]
    assert study.preprocess.thick_slices == "nearest"
    assert main(["check", str(file)]) == 0
    assert "runs" in capsys.readouterr().out
