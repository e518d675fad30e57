"""Errors of test sets, in the words of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Source
from voxelsoup.data.layouts.channel_names import match_channels
from voxelsoup.data.regions import label_order
from voxelsoup.evaluation.label_maps import RegionValues, ScoredPair, score_pairs
from voxelsoup.evaluation.metrics import Scoring
from voxelsoup.prediction.advice import as_of_a_study
from voxelsoup.prediction.ground_truth import labelled_scans, regions_of_truth


def error_of(act: Callable[..., Any], *arguments: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        act(*arguments)
    return caught.value


def write(file: Path, value: int) -> None:
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.uint8), np.eye(4)), file)


def strange_value(folder: Path) -> InputError:
    """What is said of a label value that no region names."""
    for name in ("truth", "predicted"):
        write(folder / f"{name}.nii.gz", 7)
    pair = ScoredPair("one", Source(folder / "truth.nii.gz"), Source(folder / "predicted.nii.gz"))
    values = RegionValues({"WT": [1]}, {"WT": [1]}, frozenset(), None, {})
    return score_pairs([pair], values, Scoring(metrics=()), 1, False)[1]["one"]


def test_no_option_of_a_command_is_named(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    write(tmp_path / "scans" / "one.nii.gz", 1)
    errors = [
        error_of(regions_of_truth, {"WT": [1, 2], "ET": [2]}, {"WT": [3]}, "scans"),
        error_of(labelled_scans, str(tmp_path / "scans"), ["t1"]),
        error_of(match_channels, ["t1", "t2"], ["red", "green"], "scans"),
        error_of(label_order, {"one": [1, 2], "two": [2, 3]}, "model"),
        strange_value(tmp_path),
    ]
    assert all("--" in error.fix for error in errors)
    for error in map(as_of_a_study, errors):
        assert "--" not in error.fix and error.fix
    assert "`dataset.background: [7]`" in as_of_a_study(errors[-1]).fix
