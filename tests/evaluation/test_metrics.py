"""Scores: by hand in small examples, and against other implementations on random volumes."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import cc3d
import nibabel as nib
import numpy as np
import pytest
import surface_distance
import torch
from monai.metrics import (
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
    get_confusion_matrix,
)
from numpy.typing import NDArray
from scipy import ndimage

from references import surfaces
from references.lesions import lesion_scores
from support.checks import nonempty
from voxelsoup.evaluation import metrics
from voxelsoup.evaluation.lesions import dilate, match_lesions
from voxelsoup.evaluation.metrics import METRICS, Scoring, score_regions
from voxelsoup.evaluation.surfaces import SurfacePair, hausdorff95, surface_dice

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

EVERYTHING = Scoring(metrics=tuple(METRICS), tolerance=1.0, lesion_dilation=3, lesion_smallest=50.0)
SHAPE = (24, 22, 20)


def scores(
    prediction: Mask, truth: Mask, spacing: Spacing = (1, 1, 1), scoring: Scoring = EVERYTHING
) -> dict[str, float]:
    """All scores of one region."""
    (row,) = score_regions(prediction[None], truth[None], spacing, scoring)
    return row


def box(start: tuple[int, int, int], size: tuple[int, int, int]) -> Mask:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def blobs(chance: np.random.Generator, number: int, largest: float, shape: tuple[int, ...]) -> Mask:
    """Ellipsoids anywhere, cut at the edges of the volume."""
    mask, places = np.zeros(shape, dtype=bool), np.indices(shape)
    for _ in range(number):
        centre, radii = chance.uniform(0, shape), chance.uniform(0.5, largest, 3)
        inside = sum(
            ((axis - c) / r) ** 2 for axis, c, r in zip(places, centre, radii, strict=True)
        )
        mask |= np.asarray(inside) <= 1
    return mask


def random_cases(number: int = 12, empty: bool = True) -> list[tuple[Mask, Mask, Spacing]]:
    """Predictions with their truths and spacings: shifted, unrelated, noise, sometimes empty."""
    chance, cases = np.random.default_rng(0), []
    for index in range(number):
        shape = tuple(chance.integers(8, 26, 3))
        a, b, c = np.round(chance.uniform(0.4, 3, 3), 2).tolist()
        blob = int(chance.integers(0 if empty else 1, 6))
        truth = blobs(chance, blob, chance.uniform(1, 7), shape)
        prediction = np.roll(truth, chance.integers(-2, 3, 3), (0, 1, 2))
        if index % 3 == 0:
            prediction = blobs(chance, int(chance.integers(1, 4)), 4, shape)
        if index % 4 == 1:
            prediction = prediction ^ (chance.random(shape) < 0.02)
        if empty or (truth.any() and prediction.any()):
            cases.append((prediction, truth, (a, b, c)))
    return nonempty(cases)


# Dice


def test_dice_alone_is_scored_by_default() -> None:
    half = np.stack([box((0, 0, 0), (4, 4, 4)), box((0, 0, 0), (2, 2, 2))])
    whole = np.stack([box((0, 0, 0), (4, 4, 4)), box((0, 0, 0), (2, 2, 6))])
    assert score_regions(half, whole, (1, 1, 1), Scoring()) == [{"dice": 1.0}, {"dice": 0.5}]


def test_dice_is_bit_identical_to_that_of_monai() -> None:
    for prediction, truth, _ in random_cases(60):
        pair = torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None]
        expected = compute_dice(pair[0][None], pair[1][None], ignore_empty=False)[0]
        assert scores(prediction, truth, scoring=Scoring())["dice"] == expected.tolist()[0]


def test_scoring_imports_no_torch() -> None:
    program = "import sys, voxelsoup.evaluation.metrics; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(Path(metrics.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0


# What is asked for


def test_metric_columns_have_a_fixed_order() -> None:
    asked = Scoring(metrics=("lesion_dice", "hd95"), tolerance=1.0)
    mask = box((1, 1, 1), (5, 5, 5))
    assert list(scores(mask, mask, scoring=asked)) == ["dice", "hd95", "lesion_dice"]
    assert list(scores(mask, mask)) == list(METRICS)


def test_each_column_is_the_same_alone_and_with_the_others() -> None:
    for prediction, truth, spacing in random_cases():
        together = scores(prediction, truth, spacing)
        for name in METRICS:
            alone = scores(prediction, truth, spacing, Scoring((name,)))
            assert alone == {"dice": together["dice"], name: together[name]}


def test_scores_do_not_depend_on_threads() -> None:
    chance = np.random.default_rng(0)
    prediction, truth = (
        np.stack([blobs(chance, number, 6, SHAPE) for number in (0, 3, 1, 4)]) for _ in range(2)
    )
    one, many = (score_regions(prediction, truth, (1, 1, 2), EVERYTHING, threads=n) for n in (1, 3))
    assert one == many


def test_an_unknown_metric_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="hd99"):
        Scoring(metrics=("hd99",))


@pytest.mark.parametrize("spacing", [(1, 1, 0), (1, -1, 1), (1, 1, math.nan), (math.inf, 1, 1)])
def test_an_invalid_spacing_is_refused(spacing: Spacing) -> None:
    mask = box((1, 1, 1), (2, 2, 2))
    with pytest.raises(ValueError, match="spacing"):
        scores(mask, mask, spacing)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        score_regions(
            np.zeros((1, 3, 3, 3), bool), np.zeros((1, 3, 3, 4), bool), (1, 1, 1), Scoring()
        )


# Nothing predicted, nothing there

NOTHING, SOMETHING = np.zeros(SHAPE, dtype=bool), box((5, 5, 5), (5, 5, 5))
PERFECT = [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
WRONG = [0.0, 374.0, 0.0, 0.0, 0.0, 0.0, 374.0]


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (NOTHING, NOTHING, PERFECT),
        (SOMETHING, SOMETHING, PERFECT),
        (SOMETHING, NOTHING, WRONG),
        (NOTHING, SOMETHING, WRONG),
    ],
    ids=["both empty", "equal", "no truth", "no prediction"],
)
def test_empty_regions_score_as_perfect_or_as_wrong(
    prediction: Mask, truth: Mask, expected: list[float]
) -> None:
    assert list(scores(prediction, truth).values()) == expected


# Voxels


def test_sensitivity_is_the_share_found_and_precision_the_share_correct() -> None:
    row = scores(box((0, 0, 0), (4, 4, 1)), box((0, 2, 0), (4, 6, 1)))
    assert (row["sensitivity"], row["precision"]) == (8 / 24, 8 / 16)


def test_sensitivity_and_precision_match_monai() -> None:
    for prediction, truth, spacing in random_cases(20, empty=False):
        # MONAI finds no true positives in booleans.
        pair = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
        matrix = get_confusion_matrix(*pair)
        row = scores(prediction, truth, spacing)
        for name in ("sensitivity", "precision"):
            expected = compute_confusion_matrix_metric(name, matrix).item()
            assert row[name] == pytest.approx(expected, abs=1e-6)


# Distances


@pytest.mark.parametrize(("axis", "expected"), [(0, 3 * 0.5), (1, 3 * 1.5), (2, 3 * 4.0)])
def test_the_distance_of_a_shifted_box_is_the_shift_in_mm(axis: int, expected: float) -> None:
    truth = box((5, 5, 5), (8, 8, 8))
    assert scores(np.roll(truth, 3, axis), truth, (0.5, 1.5, 4.0))["hd95"] == expected


def test_surface_distances_beyond_the_nearby_search_are_exact() -> None:
    truth = box((0, 0, 0), (3, 3, 3))
    assert scores(np.roll(truth, 15, 0), truth, (2, 1, 1))["hd95"] == 30.0


def test_hd95_ignores_a_spur_of_one_voxel() -> None:
    truth = box((2, 2, 2), (12, 12, 12))
    assert scores(truth | box((14, 8, 8), (6, 1, 1)), truth)["hd95"] == 0.0


def test_surface_dice_of_a_shifted_box_is_1_at_the_shift_and_less_below() -> None:
    truth = box((5, 5, 5), (8, 8, 8))
    for shift, spacing in ((1, 0.6), (2, 0.7)):
        surfaces = SurfacePair(np.roll(truth, shift, 2), truth, (1.0, 1.0, spacing)).distances()
        assert surface_dice(surfaces, shift * spacing) == 1
        # Four of the six sides slide along themselves.
        assert 0.5 < surface_dice(surfaces, 0.99 * shift * spacing) < 0.9


def test_a_spacing_rounded_up_does_not_put_a_surface_out_of_tolerance() -> None:
    truth = box((5, 5, 5), (8, 8, 8))
    surfaces = SurfacePair(np.roll(truth, 1, 2), truth, (1.0, 1.0, 1.0000001)).distances()
    assert surface_dice(surfaces, 1.0) == 1


def test_surface_distances_match_the_surface_distance_package() -> None:
    for prediction, truth, spacing in random_cases(60, empty=False):
        ours = SurfacePair(prediction, truth, spacing).distances()
        theirs = surface_distance.compute_surface_distances(truth, prediction, spacing)
        for found, expected in (
            (ours.from_truth, theirs["distances_gt_to_pred"]),
            (ours.from_prediction, theirs["distances_pred_to_gt"]),
            (ours.truth_areas, theirs["surfel_areas_gt"]),
        ):
            np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-12)
        assert hausdorff95(ours, math.inf) == pytest.approx(
            surface_distance.compute_robust_hausdorff(theirs, 95), rel=1e-12
        )
        for tolerance in (0.31, 1.003, 2.7):
            assert surface_dice(ours, tolerance) == pytest.approx(
                surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance), rel=1e-12
            )


def test_surface_distances_match_all_pairs_of_corners() -> None:
    for prediction, truth, spacing in random_cases(6, empty=False):
        ours = SurfacePair(prediction, truth, spacing).distances()
        there, found = (surfaces.surface(mask, spacing) for mask in (truth, prediction))
        np.testing.assert_allclose(ours.from_truth, surfaces.distances(there, found), atol=1e-9)
        np.testing.assert_allclose(
            ours.from_prediction, surfaces.distances(found, there), atol=1e-9
        )


def test_hd95_and_surface_dice_match_the_papers_reference() -> None:
    for prediction, truth, spacing in random_cases(8, empty=False):
        row = scores(prediction, truth, spacing, Scoring(("hd95", "nsd"), tolerance=1.003))
        assert row["hd95"] == pytest.approx(surfaces.hd95(prediction, truth, spacing), rel=1e-9)
        expected = surfaces.surface_dice(prediction, truth, spacing, 1.003)
        assert row["nsd"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("cost", [0.0, math.inf], ids=["tree", "transform"])
def test_both_searches_for_distant_surfaces_agree(
    cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [scores(*case) for case in random_cases(12)]
    monkeypatch.setattr("voxelsoup.evaluation.surfaces.TREE_COST", cost)
    for case, row in zip(random_cases(12), expected, strict=True):
        assert scores(*case) == pytest.approx(row, rel=1e-12)


def test_surface_dice_matches_monai_on_corners() -> None:
    for prediction, truth, spacing in random_cases(20, empty=False):
        pair = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
        expected = compute_surface_dice(
            *pair, [1.503], include_background=True, spacing=spacing, use_subvoxels=True
        )
        ours = surface_dice(SurfacePair(prediction, truth, spacing).distances(), 1.503)
        assert ours == pytest.approx(expected.item(), abs=1e-5)


def test_hd95_is_near_monais_distance_between_voxel_centres() -> None:
    for prediction, truth, spacing in random_cases(20, empty=False):
        pair = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
        theirs = compute_hausdorff_distance(
            *pair, include_background=True, percentile=100, spacing=spacing
        )
        surfaces = SurfacePair(prediction, truth, spacing).distances()
        greatest = max(surfaces.from_truth.max(), surfaces.from_prediction.max())
        assert greatest == pytest.approx(theirs.item(), abs=math.hypot(*spacing))


# Lesions


def test_a_missed_lesion_counts_as_0_and_374() -> None:
    found, missed = box((1, 1, 1), (4, 4, 4)), box((15, 15, 14), (4, 4, 4))
    row = scores(found, found | missed)
    assert (row["lesion_dice"], row["lesion_hd95"]) == (0.5, 187.0)


def test_a_false_positive_of_one_voxel_counts_as_0_and_374() -> None:
    truth = box((1, 1, 1), (4, 4, 4))
    row = scores(truth | box((20, 20, 18), (1, 1, 1)), truth)
    assert (row["lesion_dice"], row["lesion_hd95"]) == (0.5, 187.0)


def test_lesions_that_touch_once_dilated_are_one() -> None:
    one = box((1, 1, 1), (4, 4, 4))
    for gap, lesions in ((6, 1), (7, 2)):
        both = one | box((5 + gap, 1, 1), (4, 4, 4))
        assert len(match_lesions(one, both, dilation=3).voxels) == lesions
        expected = 2 / 3 if lesions == 1 else 0.5
        assert scores(one, both)["lesion_dice"] == pytest.approx(expected)


def test_a_predicted_component_belongs_to_every_lesion_it_meets() -> None:
    truth = box((1, 1, 1), (4, 4, 4)) | box((14, 1, 1), (4, 4, 4))
    row = scores(box((1, 1, 1), (17, 4, 4)), truth)
    assert row["lesion_dice"] == pytest.approx(2 * 64 / (64 + 17 * 16))
    assert row["lesion_hd95"] == 13.0


def test_a_prediction_beside_its_lesion_is_no_false_positive() -> None:
    truth = box((5, 5, 5), (4, 4, 4))
    near = scores(box((11, 5, 5), (4, 4, 4)), truth)
    assert (near["lesion_dice"], near["lesion_hd95"]) == (0.0, 6.0)
    # A voxel further, the lesion is missed and the prediction wrong: 374 mm twice, over two.
    far = scores(box((12, 5, 5), (4, 4, 4)), truth)
    assert (far["lesion_dice"], far["lesion_hd95"]) == (0.0, 374.0)


@pytest.mark.parametrize(
    ("spacing", "is_scored"),
    [((1.0, 1.0, 1.0), False), ((1.0, 1.0, 1.0000001), False), ((1.0, 1.0, 1.1), True)],
)
def test_a_lesion_of_the_smallest_volume_in_cubic_mm_is_not_scored(
    spacing: Spacing, is_scored: bool
) -> None:
    lesion, small = box((1, 1, 1), (4, 4, 4)), box((14, 14, 10), (5, 5, 2))
    row = scores(lesion, lesion | small, spacing)
    assert row["lesion_dice"] == (0.5 if is_scored else 1.0)
    # Nor is what was predicted for it a false positive.
    assert scores(lesion | small, lesion | small, spacing)["lesion_dice"] == 1.0


@pytest.mark.parametrize("smallest", [8.0, 50.0, 1e9])
def test_an_empty_prediction_is_wrong_however_small_all_lesions_are(smallest: float) -> None:
    """BraTS's own code takes lesions that are all too small for none, and nothing for perfect."""
    truth, scoring = box((5, 5, 5), (2, 2, 2)), Scoring(tuple(METRICS), lesion_smallest=smallest)
    assert list(scores(NOTHING, truth, scoring=scoring).values()) == WRONG
    assert list(scores(truth, truth, scoring=scoring).values()) == PERFECT
    half = scores(box((5, 5, 5), (1, 2, 2)), truth, scoring=scoring)
    assert half["lesion_dice"] == pytest.approx(2 / 3)


def test_a_missed_region_counts_the_penalty_or_the_diagonal_of_the_volume() -> None:
    truth, mouse = box((5, 5, 5), (2, 2, 2)), (0.15, 0.15, 0.2)
    diagonal = math.hypot(24 * 0.15, 22 * 0.15, 20 * 0.2)
    for penalty, expected in ((17.5, 17.5), (None, diagonal)):
        row = scores(NOTHING, truth, mouse, Scoring(tuple(METRICS), penalty=penalty))
        assert row["hd95"] == row["lesion_hd95"] == pytest.approx(expected)


@pytest.mark.parametrize(("dilation", "smallest"), [(3, 50.0), (1, 2.0), (1, 0.0)])
def test_lesion_scores_match_the_challenges_definition(dilation: int, smallest: float) -> None:
    scoring = Scoring(tuple(METRICS), 1.0, dilation, smallest)
    for prediction, truth, spacing in random_cases(40):
        row = scores(prediction, truth, spacing, scoring)
        expected = lesion_scores(prediction, truth, spacing, dilation, smallest)
        assert (row["lesion_dice"], row["lesion_hd95"]) == pytest.approx(expected, rel=1e-9)


def test_components_match_scipy() -> None:
    for prediction, truth, _ in random_cases(30):
        for mask in (prediction, truth):
            ours, number = cc3d.connected_components(mask, connectivity=26, return_N=True)
            theirs, expected = ndimage.label(mask, np.ones((3, 3, 3)))
            assert number == expected
            assert len(set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))) == (
                number + (not mask.all())
            )


def test_dilation_matches_scipy() -> None:
    edges = ndimage.generate_binary_structure(3, 2)
    for (mask, _, _), times in itertools.product(random_cases(8), (1, 2, 3)):
        expected = ndimage.binary_dilation(mask, edges, iterations=times)
        np.testing.assert_array_equal(dilate(mask, times), expected)


def test_scores_do_not_depend_on_a_regions_position() -> None:
    for prediction, truth, spacing in random_cases(20):
        wide = (np.pad(mask, ((9, 3), (0, 30), (5, 0))) for mask in (prediction, truth))
        assert scores(*wide, spacing) == scores(prediction, truth, spacing)


def test_a_volume_in_another_memory_order_scores_the_same() -> None:
    for prediction, truth, spacing in random_cases(8):
        turned = (np.asfortranarray(mask) for mask in (prediction, truth))
        assert scores(*turned, spacing) == scores(prediction, truth, spacing)


# A real case


@pytest.mark.real_data
def test_scores_of_a_real_case_match_the_references(brats_folder: Path) -> None:
    image = nib.load(brats_folder / "TCGA-DU-7294" / "TCGA-DU-7294-seg.nii.gz")
    label = np.asarray(image.dataobj)
    truth = np.stack([label > 0, label == 1])
    chance = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(chance.standard_normal(label.shape, dtype=np.float32), 4)
    prediction = np.roll(truth, (1, 2), (1, 2)) & (noise < 2 * noise.std())
    prediction[:, 200:203, 30:33, 70:72] = True
    found = score_regions(prediction, truth, (1, 1, 1), EVERYTHING, threads=2)
    for row, *pair in zip(found, prediction, truth, strict=True):
        assert (row["lesion_dice"], row["lesion_hd95"]) == pytest.approx(
            lesion_scores(*pair, (1, 1, 1), dilation=3, smallest=50.0), rel=1e-9
        )
