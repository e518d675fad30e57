"""A real BraTS case: index, preprocessing, one evaluated forward pass, and back to the scanner."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from voxelsoup.data.index.index import index_cases
from voxelsoup.data.preprocessing.geometry import to_scanner
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.data.preprocessing.store import load_case, load_ground_truth, read_manifest
from voxelsoup.evaluation.score import score_case
from voxelsoup.models.networks import build, seeded
from voxelsoup.study.loading import load

STUDY = {
    "dataset": {
        "layout": "brats",
        "root": "x",
        "channels": ["t1n", "t1c", "t2w", "t2f"],
        # The second real case has no label map.
        "on_bad_case": "skip",
    },
    "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
    "network": {
        "size": "free",
        "arguments": {"init_filters": 4, "blocks_down": [0, 1], "blocks_up": [1, 0]},
    },
    "training": {"patch": [96, 96, 96]},
    "evaluation": {"overlap": 0},
}


def test_a_real_brats_case_from_scan_to_score(brats_folder: Path, tmp_path: Path) -> None:
    study = load(STUDY)
    root = brats_folder
    cases, rejected = index_cases(study.dataset, study.regions, root, workers=1)
    assert [case.name for case in cases] == ["TCGA-DU-7294"]
    assert list(rejected) == ["AURORA-0001"]
    preprocess_all(
        cases,
        root=root,
        settings=study.preprocess,
        patch=study.training.patch,
        folder=tmp_path,
        manifest=tmp_path / "preprocessed.tsv",
        workers=1,
    )
    assert list(read_manifest(tmp_path / "preprocessed.tsv")) == ["TCGA-DU-7294"]

    with seeded(0):
        model = build(study.network, channels=4, regions=3).eval()
    rows = score_case(model, "TCGA-DU-7294", tmp_path, study, torch.device("cpu"))
    assert [row["region"] for row in rows] == ["TC", "WT", "ET"]
    assert all(0 <= row["dice"] <= 1 for row in rows)
    # This tumour does not enhance: an untrained model that marks voxels scores 0 there.
    assert rows[2]["dice"] in (0.0, 1.0)

    geometry = load_case(tmp_path, "TCGA-DU-7294").geometry
    back = to_scanner(np.asarray(load_ground_truth(tmp_path, "TCGA-DU-7294")), geometry)
    raw = nib.load(root / cases[0].label.file)
    np.testing.assert_array_equal(back, np.asarray(raw.dataobj))
