"""Label maps in files, scored as an independent program scores them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from support.scans import affine_of
from voxelsoup.data.case import Source
from voxelsoup.evaluation.label_maps import RegionValues, ScoredPair, score_pairs
from voxelsoup.evaluation.metrics import Scoring

NESTED = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
SIMPLE = Scoring(("hd95",))


def save(path: Path, labels: np.ndarray, codes: str = "RAS") -> Source:
    """Labels given in RAS, written in another orientation of the same place."""
    ras = nib.Nifti1Image(labels, affine_of("RAS", (1.0, 1.5, 2.0)))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(ras.affine), nib.orientations.axcodes2ornt(codes)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(ras.as_reoriented(turn), path)
    return Source(path)


def random_labels(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.choice([0, 0, 0, 1, 2, 3], (9, 8, 7)).astype(np.uint8)


def test_scores_are_those_of_simpleitk_in_any_orientation(tmp_path: Path) -> None:
    pairs = [
        ScoredPair(
            f"case{seed}",
            save(tmp_path / f"truth/{seed}.nii.gz", random_labels(seed)),
            save(tmp_path / f"found/{seed}.nii.gz", random_labels(seed + 10), codes),
        )
        for seed, codes in enumerate(("RAS", "LPS", "SAR"))
    ]
    rows, problems = score_pairs(pairs, RegionValues(NESTED, NESTED), SIMPLE, workers=2)
    assert problems == {} and list(rows.columns) == ["case", "region", "dice", "hd95"]
    assert list(rows["case"]) == [f"case{n}" for n in range(3) for _ in NESTED]
    for pair in pairs:
        # Oriented by ITK, from the files themselves.
        truth, found = (
            sitk.DICOMOrient(sitk.ReadImage(str(source.file)), "RAS")
            for source in (pair.truth, pair.predicted)
        )
        for region, values in NESTED.items():
            masks = [
                sitk.GetImageFromArray(np.isin(sitk.GetArrayFromImage(x), values).astype(np.uint8))
                for x in (truth, found)
            ]
            measures = sitk.LabelOverlapMeasuresImageFilter()
            measures.Execute(*masks)
            row = rows[(rows["case"] == pair.case) & (rows["region"] == region)].iloc[0]
            assert row["dice"] == pytest.approx(measures.GetDiceCoefficient(1), abs=1e-6)


def test_values_of_the_ground_truth_may_differ_from_those_of_the_predictions(
    tmp_path: Path,
) -> None:
    labels = random_labels(0)
    other = np.where(labels == 3, 4, labels).astype(np.uint8)
    pair = ScoredPair("a", save(tmp_path / "t.nii.gz", other), save(tmp_path / "p.nii.gz", labels))
    truth = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    rows, problems = score_pairs([pair], RegionValues(truth, NESTED), SIMPLE, 1)
    assert problems == {} and list(rows["dice"]) == [1, 1, 1]
    # Without that, the value is not taken for background.
    rows, problems = score_pairs([pair], RegionValues(NESTED, NESTED), SIMPLE, 1)
    assert rows.empty and "t.nii.gz: holds the label value 4" in str(problems["a"])
    values = RegionValues(NESTED, NESTED, background=frozenset({4}))
    rows, problems = score_pairs([pair], values, SIMPLE, 1)
    assert problems == {} and rows["dice"].iloc[2] == 0


def test_what_nobody_has_annotated_is_not_scored(tmp_path: Path) -> None:
    labels = random_labels(0)
    unknown = labels.copy()
    unknown[:4] = 9
    wrong = labels.copy()
    wrong[:4] = 1
    pair = ScoredPair("a", save(tmp_path / "t.nii.gz", unknown), save(tmp_path / "p.nii.gz", wrong))
    rows, problems = score_pairs([pair], RegionValues(NESTED, NESTED, ignored=9), SIMPLE, 1)
    assert problems == {} and list(rows["dice"]) == [1, 1, 1]


def test_a_label_map_on_another_grid_stops_no_other_case(tmp_path: Path) -> None:
    labels = random_labels(0)
    truth = save(tmp_path / "t.nii.gz", labels)
    pairs = [
        ScoredPair("short", truth, save(tmp_path / "short.nii.gz", labels[:-1])),
        ScoredPair("right", truth, truth),
        ScoredPair("lost", truth, Source(tmp_path / "lost.nii.gz")),
    ]
    rows, problems = score_pairs(pairs, RegionValues(NESTED, NESTED), SIMPLE, 1)
    assert set(rows["case"]) == {"right"} and set(rows["dice"]) == {1}
    assert "has shape 8x8x7 instead of 9x8x7" in str(problems["short"])
    assert "no such file" in str(problems["lost"])


def test_a_region_that_is_not_annotated_in_a_case_has_no_row(tmp_path: Path) -> None:
    labels = random_labels(0)
    truth = save(tmp_path / "t.nii.gz", labels)
    wrong = np.where(labels == 3, 1, labels).astype(np.uint8)
    predicted = save(tmp_path / "p.nii.gz", wrong)
    pairs = [ScoredPair(case, truth, predicted) for case in ("A_1", "B_1", "B_2")]
    values = RegionValues(NESTED, NESTED, not_annotated={"B_*": ["ET"], "B_2": ["WT", "TC"]})
    rows, problems = score_pairs(pairs, values, SIMPLE, 1)
    found = rows.groupby("case")["region"].agg(list).to_dict()
    assert found == {"A_1": ["WT", "TC", "ET"], "B_1": ["WT", "TC"]}
    assert dict(zip(rows["region"], rows["dice"], strict=True)) == {"WT": 1, "TC": 1, "ET": 0}
    assert "no region that is annotated" in str(problems["B_2"])
