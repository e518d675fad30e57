"""Per-case scores of a model: every number by hand, from the prediction in the scan's voxels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from support.runs import small_study
from voxelsoup.data.index.index import index_cases
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.data.preprocessing.geometry import restore
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.data.preprocessing.store import load_case, load_ground_truth
from voxelsoup.data.regions import label_table, to_regions
from voxelsoup.evaluation.case_scores import read_rows, write_rows
from voxelsoup.evaluation.metrics import METRICS, Scoring, score_regions
from voxelsoup.evaluation.postprocessing import Postprocessing, RegionRule, ReplacementRule
from voxelsoup.evaluation.score import (
    in_the_scan,
    predict,
    prediction_in_the_scan,
    score_before_and_after,
    score_case,
    score_cases,
    scoring_of,
)
from voxelsoup.models import networks
from voxelsoup.study.sections.data import Phantom
from voxelsoup.study.study import Study

CPU = torch.device("cpu")
# Of the scans' voxels along their own axes, the last of which runs from left to right.
STRETCHED = (3.0, 1.0, 2.0)
IN_RAS = [2.0, 1.0, 3.0]
# Neither the default values nor the order of the columns that scores come in.
METRICS_ASKED = {
    "names": ["precision", "lesion_hd95", "nsd", "hd95"],
    "surface_tolerance": 2.5,
    "lesion_dilation": 1,
    "lesion_smallest": 30.0,
}
POSTPROCESSING = Postprocessing(
    {
        "TC": RegionRule(0.52, 0.0),
        "WT": RegionRule(0.5, 40.0),
        "ET": RegionRule(0.48, 100.0),
    },
    ReplacementRule("ET", "TC", 1e9),
)


def study_with(**changes: Any) -> Study:
    return small_study(preprocess={"spacing": [1.5, 1.5, 1.5]}, **changes)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Three cases of long voxels in another orientation than RAS, resampled to cubes."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("preprocessed")
    write_phantom(raw, Phantom(cases=4, shape=[20, 32, 24]))
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = STRETCHED
    affine[3, 3] = 1
    for file in raw.rglob("*.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(file).dataobj), affine), file)
    study = study_with()
    found, rejected = index_cases(study.dataset, study.regions, raw, workers=1)
    assert not rejected
    preprocess_all(
        found,
        root=raw,
        settings=study.preprocess,
        patch=study.training.patch,
        folder=folder,
        manifest=folder / "manifest.tsv",
        workers=1,
    )
    return folder, [case.name for case in found]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Random weights, whose predictions are right and wrong in many places."""
    torch.manual_seed(0)
    return networks.build(study_with().network, 4, 3)


def by_hand(
    model: nn.Module,
    cases: tuple[Path, list[str]],
    study: Study,
    scoring: Scoring,
    postprocessing: Postprocessing | None = None,
) -> pd.DataFrame:
    """Scores of every case and region, from the prediction that was put back into the scan."""
    folder, names = cases
    rows: list[dict[str, object]] = []
    for name in names:
        case = load_case(folder, name)
        logits = predict(model.eval(), case, study, CPU)
        probabilities = restore(torch.sigmoid(logits).numpy(), case.geometry)
        mask = probabilities > 0.5
        if postprocessing is not None:
            mask = postprocessing.apply(probabilities, IN_RAS)
        truth = to_regions(load_ground_truth(folder, name), label_table(study.regions))
        assert mask.shape[1:] != case.image.shape[1:]
        scores = score_regions(mask, truth, IN_RAS, scoring)
        rows += [
            {"case": name, "region": region, **score}
            for region, score in zip(study.regions, scores, strict=True)
        ]
    return pd.DataFrame(rows)


def assert_same_scores(rows: pd.DataFrame, expected: pd.DataFrame) -> None:
    columns = [name for name in rows.columns if name != "loss"]
    assert set(columns) == set(expected.columns)
    pd.testing.assert_frame_equal(rows[columns], expected[columns], check_exact=True)


ASKED = Scoring(
    metrics=("precision", "lesion_hd95", "nsd", "hd95"),
    tolerance=2.5,
    lesion_dilation=1,
    lesion_smallest=30.0,
)


def test_test_cases_carry_all_metrics_of_the_study_in_its_order(
    cases: tuple[Path, list[str]], model: nn.Module
) -> None:
    folder, names = cases
    study = study_with(metrics=METRICS_ASKED)
    rows = score_cases(model, names, folder, study, CPU, measured=names)
    assert list(rows.columns) == ["case", "region", "dice", "loss", *METRICS_ASKED["names"]]
    assert_same_scores(rows, by_hand(model, cases, study, ASKED))
    assert rows["hd95"].between(0, 374, inclusive="neither").any()
    assert rows.groupby("case")["loss"].nunique().eq(1).all()


def test_scores_use_the_spacing_of_the_scan(
    cases: tuple[Path, list[str]], model: nn.Module
) -> None:
    folder, names = cases
    assert load_case(folder, names[0]).geometry["spacing_before"] == IN_RAS
    study = study_with(metrics={"names": ["hd95"]})
    rows = score_cases(model, names, folder, study, CPU, measured=names)
    # Distances along the axes are whole millimetres of the scan's voxels, and differ by another
    # order of the same sides.
    expected = by_hand(model, cases, study, Scoring(metrics=("hd95",)))
    assert rows["hd95"].tolist() == expected["hd95"].tolist()
    case = load_case(folder, names[0])
    mask = restore(torch.sigmoid(predict(model, case, study, CPU)).numpy(), case.geometry) > 0.5
    truth = to_regions(load_ground_truth(folder, names[0]), label_table(study.regions))
    for other in ([1.5, 1.5, 1.5], list(STRETCHED)):
        wrong = score_regions(mask, truth, other, Scoring(metrics=("hd95",)))
        assert [row["hd95"] for row in wrong] != rows["hd95"].tolist()[:3]


@pytest.mark.parametrize("share", [0, 1])
def test_selection_cases_are_scored_by_dice_and_loss_alone(
    cases: tuple[Path, list[str]], model: nn.Module, share: int
) -> None:
    folder, names = cases
    study = study_with(metrics=METRICS_ASKED)
    measured = names[:share]
    rows = score_cases(model, names, folder, study, CPU, measured)
    assert_same_scores(
        rows[["case", "region", "dice", "loss"]], by_hand(model, cases, study, Scoring())
    )
    # The columns are there for those that are measured.
    assert list(rows.columns[4:]) == (METRICS_ASKED["names"] if measured else [])
    assert rows.loc[rows["case"].isin(measured), rows.columns[4:]].notna().all(axis=None)
    assert rows.loc[~rows["case"].isin(measured), rows.columns[4:]].isna().all(axis=None)
    # What recipes choose by is one case of these.
    alone = pd.DataFrame(score_case(model.eval(), names[-1], folder, study, CPU))
    last = rows.loc[rows["case"] == names[-1], alone.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, last, check_exact=True)


def test_scores_keep_the_order_of_cases_and_repeat_bit_identically(
    cases: tuple[Path, list[str]], model: nn.Module
) -> None:
    """Scores are taken in a thread of their own, those of test cases for longer than others."""
    folder, names = cases
    study, backwards = study_with(), names[::-1]
    rows, again = (
        score_cases(model, backwards, folder, study, CPU, measured=backwards[:1]) for _ in range(2)
    )
    pd.testing.assert_frame_equal(again, rows, check_exact=True)
    assert rows["case"].tolist() == [name for name in backwards for _ in study.regions]
    assert rows["region"].tolist() == [*study.regions] * len(names)


def test_an_error_in_the_scoring_thread_is_raised(
    cases: tuple[Path, list[str]], model: nn.Module
) -> None:
    folder, names = cases
    rules = Postprocessing({"TC": RegionRule(0.5, 0.0)}, None)
    with pytest.raises(ValueError, match="shorter"):
        score_before_and_after(model, names, folder, study_with(), CPU, rules)


def test_images_of_float16_are_predicted_in_float32(
    cases: tuple[Path, list[str]], model: nn.Module
) -> None:
    folder, names = cases
    rounded = np.load(folder / f"{names[0]}.image.npy").astype(np.float16)
    stored, wide = (
        replace(load_case(folder, names[0]), image=image)
        for image in (rounded, rounded.astype(np.float32))
    )
    assert torch.equal(
        predict(model.eval(), stored, study_with(), CPU),
        predict(model.eval(), wide, study_with(), CPU),
    )


def test_a_study_without_metrics_measures_dice_and_loss(
    cases: tuple[Path, list[str]], model: nn.Module
) -> None:
    folder, names = cases
    study = study_with(metrics={"names": []})
    rows = score_cases(model, names, folder, study, CPU, measured=names)
    assert list(rows.columns) == ["case", "region", "dice", "loss"]
    pair = score_before_and_after(model, names, folder, study, CPU, POSTPROCESSING)
    pd.testing.assert_frame_equal(pair[0], rows, check_exact=True)
    assert list(pair[1].columns) == list(rows.columns)


def test_postprocessed_scores_are_those_of_the_postprocessed_masks(
    cases: tuple[Path, list[str]], model: nn.Module
) -> None:
    folder, names = cases
    study = study_with(metrics=METRICS_ASKED)
    before, after = score_before_and_after(model, names, folder, study, CPU, POSTPROCESSING)
    plain = score_cases(model, names, folder, study, CPU, measured=names)
    pd.testing.assert_frame_equal(before, plain, check_exact=True)
    assert_same_scores(after, by_hand(model, cases, study, ASKED, POSTPROCESSING))
    for region in study.regions:
        scores = [rows.loc[rows["region"] == region, "dice"].tolist() for rows in (before, after)]
        assert scores[0] != scores[1], region
    # The loss is one of probabilities, which stay as they are.
    assert after["loss"].tolist() == before["loss"].tolist()


def test_scores_read_from_their_file_are_bit_identical(
    cases: tuple[Path, list[str]], model: nn.Module, tmp_path: Path
) -> None:
    folder, names = cases
    study = study_with()
    rows = score_cases(model, names, folder, study, CPU, measured=names)
    write_rows(tmp_path / "test.csv", rows)
    again = read_rows(tmp_path / "test.csv")
    assert [name for name in METRICS if name != "dice"] == list(rows.columns[4:])
    pd.testing.assert_frame_equal(again, rows, check_exact=True)


def test_what_is_predicted_where_nobody_annotated_changes_no_score(
    model: nn.Module, cases: tuple[Path, list[str]]
) -> None:
    folder, (name, *_) = cases
    study = small_study(
        dataset={"ignore_label": 2},
        regions={"TC": [1], "WT": [1, 3], "ET": [3]},
        preprocess={"spacing": [1.5, 1.5, 1.5]},
        metrics=METRICS_ASKED,
    )
    scan = prediction_in_the_scan(model.eval(), name, folder, study, CPU)
    assert scan.known is not None and np.count_nonzero(~scan.known) > 0
    assert not (scan.truth & ~scan.known).any()
    rows = scan.rows(study, scoring_of(study.scored_metrics))
    for value in (0.0, 1.0):
        other = np.where(scan.known, scan.probabilities, np.float32(value))
        assert (
            replace(scan, probabilities=other).rows(study, scoring_of(study.scored_metrics)) == rows
        )
    # Dice by numbers of annotated voxels.
    for row, mask, truth in zip(rows, scan.probabilities > 0.5, scan.truth, strict=True):
        mask, truth = mask[scan.known], truth[scan.known]
        expected = 2 * np.count_nonzero(mask & truth) / (mask.sum() + truth.sum())
        assert row["dice"] == pytest.approx(expected, rel=1e-6)


def test_the_loss_leaves_out_what_nobody_annotated(
    model: nn.Module, cases: tuple[Path, list[str]]
) -> None:
    folder, (name, *_) = cases
    study = study_with(dataset={"ignore_label": 2}, regions={"TC": [1], "WT": [1, 3], "ET": [3]})
    case = load_case(folder, name)
    logits = predict(model.eval(), case, study, CPU)
    before = in_the_scan(logits, case, folder, study).loss
    unknown = torch.from_numpy(np.asarray(case.label) == 2)
    assert in_the_scan(logits.masked_fill(unknown, 7), case, folder, study).loss == before
    assert in_the_scan(logits.masked_fill(~unknown, 7), case, folder, study).loss != before


def test_regions_that_are_not_annotated_have_no_rows_and_change_no_other(
    model: nn.Module, cases: tuple[Path, list[str]]
) -> None:
    folder, names = cases
    study, first = study_with(metrics=METRICS_ASKED), names[0]
    partly = study_with(
        metrics=METRICS_ASKED, dataset={"not_annotated": {first: ["TC", "ET"], "x*": ["WT"]}}
    )
    before, after = (
        score_cases(model.eval(), names, folder, one, CPU, measured=names)
        for one in (study, partly)
    )
    hidden = (before["case"] == first) & before["region"].isin(["TC", "ET"])
    assert hidden.sum() == 2
    # The loss of the case alone is another one; it is over the regions that are annotated.
    expected = before[~hidden].reset_index(drop=True)
    assert_same_scores(after, expected.drop(columns="loss"))
    others = expected["case"] != first
    assert after.loc[others, "loss"].equals(expected.loc[others, "loss"])
    assert (after.loc[~others, "loss"] != expected.loc[~others, "loss"]).all()
    scan = prediction_in_the_scan(model, first, folder, partly, CPU)
    assert not scan.truth[[0, 2]].any() and scan.truth[1].any()


def test_what_is_predicted_of_a_region_that_is_not_annotated_changes_no_loss(
    model: nn.Module, cases: tuple[Path, list[str]]
) -> None:
    folder, (name, *_) = cases
    study = study_with(dataset={"not_annotated": {name: ["ET"]}})
    case = load_case(folder, name)
    logits = predict(model.eval(), case, study, CPU)
    before = in_the_scan(logits, case, folder, study).loss
    for region, changes in enumerate([True, True, False]):
        other = logits.clone()
        other[region] = 7
        assert (in_the_scan(other, case, folder, study).loss != before) == changes
