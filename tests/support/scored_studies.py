"""Results folders with the scores of a finished study, without the study's runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from voxelsoup.common.files import write_json
from voxelsoup.data.case import IndexedCase, Source
from voxelsoup.data.index.index import write_cases
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.study.loading import load

REGIONS = {"WT": [1, 2], "ET": [2]}
STUDY: dict[str, Any] = {
    "dataset": {"layout": "phantom", "channels": ["t1n"]},
    "regions": REGIONS,
    "folds": {"count": 2},
    "metrics": {"names": ["nsd"]},
    "postprocessing": {"thresholds": [0.5], "smallest_components": [0]},
    "soup": {"recipes": ["greedy"]},
}
# Fold -> its test cases; two cases of one patient in the first.
FOLDS = {0: [f"a{number}" for number in range(8)], 1: [f"b{number}" for number in range(7)]}


def patient_of(case: str) -> str:
    """``a0`` and ``a1`` are of one patient, all others of one each."""
    return "a0" if case == "a1" else case


def write_scored(
    folder: Path,
    dice: float = 0.7,
    seed: int = 0,
    tested: Mapping[int, Sequence[str]] = FOLDS,
    models: Sequence[str] = ("soups/greedy", "best"),
    hashes: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """A finished study in ``folder/results``: scores around a Dice, by a seed; returns the file.

    ``tested``: fold -> its test cases; ``hashes``: case -> hash of its files, by default the same
    in every study.
    """
    content = {**STUDY, "results": str(folder / "results"), **changes}
    study = load(content)
    results = Path(study.results)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    (results / "report").mkdir(parents=True)
    (results / "report" / "study.yaml").write_text(
        yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)
    )
    cases = sorted(case for names in tested.values() for case in names)
    write_cases(results / "cases.tsv", [_indexed(case, (hashes or {}).get(case)) for case in cases])
    parts = {str(k): {"training": [], "selection": [], "test": [*v]} for k, v in tested.items()}
    write_json(results / "folds.json", {"protocol": study.evaluation.protocol, "folds": parts})
    generator = np.random.default_rng(seed)
    for model in models:
        for fold, names in tested.items():
            rows = scores_of(names, study.regions, study.metrics.names, dice, generator)
            for name, more in (("test.csv", 0.0), ("postprocessed.csv", 0.01)):
                write_rows(
                    results / f"fold{fold}" / model / name, rows.assign(dice=rows["dice"] + more)
                )
    return file


# What further configurations change, and what the first one hands over of each.
WIDE: dict[str, Any] = {"wide": {"training": {"patch": [64, 64, 64]}}}


def write_configurations(
    folder: Path, chosen: Sequence[str] = ("first", "wide"), dice: float = 0.7, **changes: Any
) -> Path:
    """``write_scored`` with the configurations ``first`` and ``wide``, and their ensemble.

    ``wide`` scores 0.02 more than the first one, and the ensemble 0.04; ``chosen`` says which of
    them the selection cases chose.
    """
    file = write_scored(folder, dice, configurations=WIDE, **changes)
    results = folder / "results"
    elsewhere = folder / "elsewhere"
    write_scored(elsewhere, dice + 0.02, seed=1)
    write_scored(elsewhere / "both", dice + 0.04, seed=2, models=("ensemble",))
    wide = results / "configurations" / "wide"
    wide.parent.mkdir()
    shutil.move(elsewhere / "results", wide)
    # What a configuration has no copy of.
    shutil.rmtree(wide / "report")
    (wide / "cases.tsv").unlink()
    for fold in FOLDS:
        made = elsewhere / "both" / "results" / f"fold{fold}" / "ensemble"
        shutil.move(made, wide.parent / f"fold{fold}")
    record = {
        "configuration": "wide",
        "ensemble": ["first", "wide"],
        "chosen": [*chosen],
        "selection_dice": {"first": 0.7, "wide": 0.72, "first + wide": 0.74},
    }
    write_json(wide.parent / "chosen.json", record)
    shutil.rmtree(elsewhere)
    return file


def scores_of(
    cases: Sequence[str],
    regions: Mapping[str, object],
    metrics: Sequence[str],
    dice: float,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Per-case scores around a Dice."""
    rows = [
        (case, region, dice + generator.normal(0, 0.02)) for case in cases for region in regions
    ]
    frame = pd.DataFrame(rows, columns=["case", "region", "dice"])
    frame["loss"] = 1 - frame["dice"]
    for metric in metrics:
        frame[metric] = 10 * frame["loss"]
    return frame


def _indexed(case: str, sha256: str | None) -> IndexedCase:
    return IndexedCase(
        name=case,
        patient=patient_of(case),
        channels={"t1n": Source(Path(f"{case}-t1n.nii.gz"))},
        label=Source(Path(f"{case}-seg.nii.gz")),
        shape=(8, 8, 8),
        spacing=(1.0, 1.0, 1.0),
        labels=[0, 1, 2],
        sha256=sha256 or f"hash of {case}",
    )


def write_truth(results: Path, case: str, label: np.ndarray, crop: Sequence[int]) -> None:
    """The preprocessed label map of a case (x, y, z), of a scan of 8 x 8 x 8 voxels that was
    cropped at ``crop`` (the first voxel along each axis).
    """
    folder = results / "preprocessed"
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{case}.label.npy", label.astype(np.uint8))
    ends = [[start, start + side] for start, side in zip(crop, label.shape, strict=True)]
    geometry = {
        "labelled": True,
        "has_truth": False,
        "crop": ends,
        "ras_shape": [8, 8, 8],
        "spacing_before": [1.0, 1.0, 1.0],
        "padding": [[0, 0]] * 3,
        "resampled_shape": list(label.shape),
    }
    write_json(folder / f"{case}.json", geometry)
