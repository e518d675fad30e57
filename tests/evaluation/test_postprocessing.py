"""Post-processing: the choice on crops is that of exhaustive search on full volumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from references.postprocessing import (
    best_postprocessing,
    dice_scores,
    masks_of,
    mean_dice_scores,
)
from support.runs import preprocess_phantom, small_study
from voxelsoup.common.files import read_json, write_json
from voxelsoup.data.preprocessing.geometry import restore
from voxelsoup.data.preprocessing.store import load_case, load_ground_truth
from voxelsoup.data.regions import label_table, to_regions
from voxelsoup.evaluation import score
from voxelsoup.evaluation.metrics import Scoring, score_regions
from voxelsoup.evaluation.postprocessing import (
    Postprocessing,
    RegionRule,
    ReplacementRule,
    fewest_voxels,
    unchanged,
)
from voxelsoup.evaluation.postprocessing_search import (
    CroppedPrediction,
    StoredPrediction,
    WholePrediction,
    best_replacement,
    best_rule,
    choose,
    dice_scores_of_replacements,
    nothing_to_choose,
    predictions_of,
    score_rules,
)
from voxelsoup.models import networks
from voxelsoup.study.sections.evaluation import PostprocessingSearch, Replacement

REGIONS = ["TC", "WT", "ET"]
SEARCH = PostprocessingSearch(
    thresholds=[0.3, 0.7],
    smallest_components=[2, 5, 20],
    replace=Replacement(region="ET", by="TC", below=[3, 8, 40]),
)
Named = dict[tuple[str, str], WholePrediction]


def random_prediction(random: np.random.Generator) -> WholePrediction:
    """A small volume of some blobs and much emptiness; probabilities may lie on a threshold."""
    shape = (3, *(int(side) for side in random.integers(3, 9, 3)))
    smooth = ndimage.gaussian_filter(random.random(shape), (0, 0.6, 0.6, 0.6))
    spread = (smooth - 0.5) * random.uniform(1, 6) + random.uniform(0, 0.5, (3, 1, 1, 1))
    probabilities = np.clip(np.round(spread, 1), 0, 1).astype(np.float32)
    truth = smooth + 0.2 * random.random(shape) > random.uniform(0.5, 0.8, (3, 1, 1, 1))
    # A side without any prediction, so that truth lies outside of the box.
    probabilities[:, : int(random.integers(0, 3))] = 0
    for region in range(3):
        if random.random() < 0.25:
            probabilities[region] = 0
        if random.random() < 0.25:
            truth[region] = False
    return WholePrediction(probabilities, truth, tuple(random.choice([0.5, 1.0, 1.3], 3).tolist()))


def random_predictions(seed: int) -> Named:
    random = np.random.default_rng(seed)
    models, cases = random.integers(1, 3), random.integers(1, 4)
    names = product([f"model{n}" for n in range(models)], [f"case{n}" for n in range(cases)])
    return {name: random_prediction(random) for name in names}


def cropped(whole: Named, lowest: float = 0.3) -> list[CroppedPrediction]:
    return [CroppedPrediction.of(*name, prediction, lowest) for name, prediction in whole.items()]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_search_chooses_as_exhaustive_search_on_full_volumes(seed: int) -> None:
    whole = random_predictions(seed)
    chosen = choose(cropped(whole), SEARCH, REGIONS)
    assert chosen.postprocessing == best_postprocessing(whole, SEARCH, REGIONS)
    before = mean_dice_scores(whole, unchanged(REGIONS))
    after = mean_dice_scores(whole, chosen.postprocessing)
    for region in REGIONS:
        assert chosen.record["regions"][region]["unchanged"] == before[region]
        assert chosen.record["regions"][region]["score"] == after[region]
    assert chosen.record["score"] >= chosen.record["unchanged"]
    assert chosen.record["gain"] == fmean(after.values()) - fmean(before.values())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_every_score_of_the_grid_matches_the_full_volume(seed: int) -> None:
    whole = random_predictions(seed)
    tried = score_rules(cropped(whole), SEARCH, REGIONS)
    rules = [RegionRule(*pair) for pair in product([0.3, 0.5, 0.7], [0, 2, 5, 20])]
    for rule in rules:
        scores = mean_dice_scores(whole, Postprocessing(dict.fromkeys(REGIONS, rule)))
        assert {region: tried[region][rule] for region in REGIONS} == scores
    assert all(set(scores) == set(rules) for scores in tried.values())


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.builds(RegionRule, st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from([0.0, 2.0, 5.0])),
        min_size=3,
        max_size=3,
    ),
    st.none() | st.builds(ReplacementRule, st.just("ET"), st.just("TC"), st.floats(0.1, 60)),
)
def test_postprocessing_is_applied_as_recorded(
    seed: int, rules: list[RegionRule], replacement: ReplacementRule | None
) -> None:
    whole = random_prediction(np.random.default_rng(seed))
    chosen = Postprocessing(dict(zip(REGIONS, rules, strict=True)), replacement)
    before = whole.probabilities.copy()
    masks = chosen.apply(whole.probabilities, whole.spacing)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks, masks_of(whole, chosen))
    np.testing.assert_array_equal(whole.probabilities, before)
    rows = score_regions(masks, whole.truth, whole.spacing, Scoring())
    scores = [row["dice"] for row in rows]
    assert scores == pytest.approx([*dice_scores(whole, chosen).values()], abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_search_does_not_depend_on_the_order_of_models_and_cases(seed: int, shuffler: Any) -> None:
    predictions = cropped(random_predictions(seed))
    shuffled = list(predictions)
    shuffler.shuffle(shuffled)
    assert choose(shuffled, SEARCH, REGIONS) == choose(predictions, SEARCH, REGIONS)


def test_unchanged_predictions_are_thresholded_as_in_evaluation() -> None:
    whole = random_prediction(np.random.default_rng(1))
    assert RegionRule().threshold == score.THRESHOLD
    np.testing.assert_array_equal(
        unchanged(REGIONS).apply(whole.probabilities, whole.spacing),
        whole.probabilities > score.THRESHOLD,
    )


def test_search_scores_no_postprocessing_as_evaluation_does(
    phantom_folder: Path, tmp_path: Path
) -> None:
    """A network's predictions, put back into the voxels of the scan, kept and scored."""
    cases = preprocess_phantom(phantom_folder, tmp_path)[:2]
    study, cpu = small_study(), torch.device("cpu")
    torch.manual_seed(0)
    model = networks.build(study.network, 4, 3).eval()

    @torch.inference_mode()
    def predict(name: str) -> WholePrediction:
        case = load_case(tmp_path, name)
        logits = score.predict(model, case, study, cpu)
        truth = to_regions(load_ground_truth(tmp_path, name), label_table(study.regions))
        probabilities = restore(torch.sigmoid(logits).numpy(), case.geometry)
        return WholePrediction(probabilities, truth, case.geometry["spacing_before"])

    kept = predictions_of("best", "abc", cases, predict, tmp_path / "kept", "context", SEARCH)
    record = choose(kept, SEARCH, REGIONS).record
    rows = score.score_cases(model, cases, tmp_path, study, cpu)
    assert set(rows["region"]) == set(REGIONS)
    for region, part in rows.groupby("region"):
        assert record["regions"][region]["unchanged"] == pytest.approx(
            part["dice"].mean(), abs=1e-6
        )


def one_case(
    places: dict[str, float], truth: Sequence[int], spacing: tuple[float, float, float] = (1, 1, 1)
) -> list[CroppedPrediction]:
    """One region on a line of voxels: probabilities by `first-last` voxel, and true voxels."""
    probabilities, true = np.zeros((1, 30, 1, 1), np.float32), np.zeros((1, 30, 1, 1), bool)
    for place, probability in places.items():
        first, last = map(int, place.split("-"))
        probabilities[0, first : last + 1] = probability
    true[0, list(truth)] = True
    return cropped({("model", "case"): WholePrediction(probabilities, true, spacing)})


def chosen_rule(predictions: list[CroppedPrediction], **search: Any) -> RegionRule:
    chosen = choose(predictions, PostprocessingSearch(**search), ["WT"])
    return chosen.postprocessing.regions["WT"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_masks_one_voxel_wide_have_components(axis: int) -> None:
    """cc3d 4.1.1 raises `maximum length exception` on these."""
    line = np.moveaxis(np.array([0.9, 0, 0.9, 0.9], np.float32).reshape(4, 1, 1), 0, axis)
    found = RegionRule(0.5, 2).apply(line, (1, 1, 1))
    assert found.ravel().tolist() == [False, False, True, True]


def test_search_prefers_the_mildest_rule_on_ties() -> None:
    perfect = one_case({"3-8": 0.9}, range(3, 9))
    assert chosen_rule(perfect) == RegionRule()
    # Dropped by any smallest component from 10 mm³ on.
    stray = one_case({"3-12": 0.9, "20-22": 0.9}, range(3, 13))
    assert chosen_rule(stray, smallest_components=[10, 4, 7]) == RegionRule(0.5, 4)
    # Better by 0.6 and by 0.7 alike.
    unsure = one_case({"3-12": 0.9, "20-22": 0.55}, range(3, 13))
    assert chosen_rule(unsure, smallest_components=[0]) == RegionRule(0.6, 0)
    timid = one_case({"3-12": 0.45}, range(3, 13))
    assert chosen_rule(timid) == RegionRule(0.4, 0)


def test_thresholds_equally_far_from_one_half_are_a_tie() -> None:
    scores = {RegionRule(0.6): 1.0, RegionRule(0.4, 10): 1.0, RegionRule(0.4): 1.0}
    assert best_rule(scores) == RegionRule(0.4)
    assert best_rule({RegionRule(0.6): 1.0, RegionRule(0.4, 10): 1.0}) == RegionRule(0.6)
    assert best_rule({RegionRule(0.7): 1.0, RegionRule(): 0.9}) == RegionRule(0.7)


def test_search_always_tries_no_postprocessing() -> None:
    perfect = one_case({"3-8": 0.55}, range(3, 9))
    assert chosen_rule(perfect, thresholds=[0.6], smallest_components=[50]) == RegionRule()


def test_smallest_volumes_are_in_cubic_mm() -> None:
    places, truth = {"3-12": 0.9, "20-22": 0.9}, range(3, 13)
    kept = one_case(places, truth, (2, 1, 2))
    assert chosen_rule(kept, smallest_components=[12]) == RegionRule()
    dropped = one_case(places, truth, (1, 1, 3.9))
    assert chosen_rule(dropped, smallest_components=[12]) == RegionRule(0.5, 12)


@pytest.mark.parametrize(
    ("volume", "spacing", "fewest"),
    [
        (0, (1, 1, 1), 0),
        (10, (1, 1, 1), 10),
        (10, (0.99999994, 1, 1), 10),
        (10, (1.0000001, 1, 1), 10),
        (10.5, (1, 1, 1), 11),
        (10, (2, 2, 2), 2),
        (50, (0.9375, 0.9375, 1.2), 48),
    ],
)
def test_a_rounded_voxel_size_removes_no_component(
    volume: float, spacing: tuple[float, ...], fewest: int
) -> None:
    assert fewest_voxels(volume, spacing) == fewest


def test_a_replacement_moves_voxels() -> None:
    probabilities = np.zeros((3, 6, 6, 6), np.float32)
    probabilities[0, :3] = 0.9
    probabilities[2, 2:5, 0, 0] = 0.9
    rules = dict.fromkeys(REGIONS, RegionRule())
    for below, spacing, moved in (
        (3, (1, 1, 1), False),
        (4, (1, 1, 1), True),
        (4, (1, 1, 2), False),
    ):
        masks = Postprocessing(rules, ReplacementRule("ET", "TC", below)).apply(
            probabilities, spacing
        )
        assert masks[2].any() != moved
        assert np.count_nonzero(masks[0]) == 108 + 2 * moved
        assert not masks[1].any()


def test_a_replacement_is_chosen_if_it_improves_dice() -> None:
    """One case without ET in which two voxels are found; one where there is much of it."""
    empty = WholePrediction(
        np.zeros((3, 6, 6, 6), np.float32), np.zeros((3, 6, 6, 6), bool), (1, 1, 1)
    )
    empty.probabilities[0, :3], empty.truth[0, :3] = 0.9, True
    empty.probabilities[2, 2:5, 0, 0] = 0.9
    full = WholePrediction(empty.probabilities.copy(), empty.truth.copy(), (1, 1, 1))
    full.probabilities[2, :3], full.truth[2, :3] = 0.9, True
    predictions = cropped({("model", "empty"): empty, ("model", "full"): full})
    search = PostprocessingSearch(
        smallest_components=[0], replace=Replacement(region="ET", by="TC", below=[2, 200, 50, 4])
    )
    chosen = choose(predictions, search, REGIONS)
    assert chosen.postprocessing.replacement == ReplacementRule("ET", "TC", 4)
    record = chosen.record["replacement"]
    assert [row["below"] for row in record["tried"]] == [None, 2, 4, 50, 200]
    assert record["chosen"] == 4
    assert record["gain"] > 0
    # The false ET lies outside of TC, which is the worse for it.
    assert chosen.record["regions"]["TC"]["gain"] < 0 < chosen.record["regions"]["ET"]["gain"]


def test_a_replacement_that_changes_nothing_is_not_chosen() -> None:
    dice_scores = {
        None: {"ET": [0.5], "TC": [0.7]},
        ReplacementRule("ET", "TC", 9): {"ET": [0.7], "TC": [0.5]},
    }
    assert best_replacement(dice_scores) is None
    better = {
        rule: {"ET": [0.7], "TC": [0.7]} for rule in (*dice_scores, ReplacementRule("ET", "TC", 2))
    }
    better[None] = dice_scores[None]
    assert best_replacement(better) == ReplacementRule("ET", "TC", 2)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_both_searches_score_the_same_without_a_replacement(seed: int) -> None:
    predictions = cropped(random_predictions(seed))
    tried = score_rules(predictions, SEARCH, REGIONS)
    rules = {region: best_rule(scores) for region, scores in tried.items()}
    assert SEARCH.replace is not None
    (before, *_) = dice_scores_of_replacements(predictions, SEARCH.replace, rules).values()
    for region in ("ET", "TC"):
        assert fmean(before[region]) == tried[region][rules[region]]


def test_search_of_empty_predictions_chooses_nothing() -> None:
    nothing = WholePrediction(
        np.zeros((3, 5, 6, 7), np.float32), np.ones((3, 5, 6, 7), bool), (1, 1, 1)
    )
    (prediction,) = cropped({("model", "case"): nothing})
    assert prediction.probabilities.shape == (3, 0, 0, 0)
    assert prediction.true_voxels == [210, 210, 210]
    chosen = choose([prediction], SEARCH, REGIONS)
    assert chosen.postprocessing == unchanged(REGIONS)
    assert chosen.record["gain"] == 0


def test_choose_needs_one_prediction_of_each_model_and_case() -> None:
    whole = random_predictions(0) | {
        ("another", "case7"): random_prediction(np.random.default_rng())
    }
    for predictions in ([], cropped(whole), 2 * cropped(whole)[:1]):
        with pytest.raises(ValueError, match="one prediction of each model and case"):
            choose(predictions, SEARCH, REGIONS)
    with pytest.raises(ValueError, match="above the lowest threshold"):
        choose(cropped(random_predictions(0), lowest=0.5), SEARCH, REGIONS)


def test_records_survive_json(tmp_path: Path) -> None:
    for number in range(20):
        chosen = choose(cropped(random_predictions(number)), SEARCH, REGIONS)
        write_json(tmp_path / "postprocessing.json", chosen.record)
        record = read_json(tmp_path / "postprocessing.json")
        assert record == chosen.record
        assert Postprocessing.from_record(record["postprocessing"]) == chosen.postprocessing
        assert list(record["postprocessing"]["regions"]) == REGIONS
        for region in REGIONS:
            row = record["regions"][region]
            assert {"threshold": 0.5, "smallest_component": 0, "score": row["unchanged"]} in row[
                "tried"
            ]


class Predictor:
    """Predicts cases, and counts them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, case: str) -> WholePrediction:
        self.asked.append(case)
        return random_prediction(np.random.default_rng(len(case)))


Stored = Callable[..., list[StoredPrediction]]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    def make(predict: Predictor, **changes: Any) -> list[StoredPrediction]:
        given = {"sha256": "abc", "context": "context", "search": SEARCH} | changes
        return predictions_of(
            model="greedy", cases=["a", "bb"], predict=predict, folder=tmp_path / "kept", **given
        )

    return make


def test_predictions_are_reused_after_a_kill(stored: Stored, tmp_path: Path) -> None:
    first, again = Predictor(), Predictor()
    kept = stored(first)
    assert first.asked == ["a", "bb"]
    assert stored(again) == kept
    assert again.asked == []
    assert {file.suffix for file in (tmp_path / "kept").iterdir()} == {".npz"}
    fresh = cropped({("greedy", case): Predictor()(case) for case in ("a", "bb")})
    assert choose(kept, SEARCH, REGIONS) == choose(fresh, SEARCH, REGIONS)
    for read, predicted in zip((one.read() for one in kept), fresh, strict=True):
        assert read.probabilities.dtype == np.float32
        np.testing.assert_array_equal(read.probabilities, predicted.probabilities)
        assert read.spacing == predicted.spacing


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # Within the probabilities, as a bad disk would.
    place = content.find(b"probabilities.npy") + 60
    content[place] ^= 0xFF
    path.write_bytes(content)


def of_another_kind(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


@pytest.mark.parametrize("damage", [empty, cut_off, flipped, of_another_kind, Path.unlink])
def test_a_damaged_prediction_is_made_again(stored: Stored, damage: Callable[[Path], None]) -> None:
    kept = stored(Predictor())
    before = kept[1].read()
    damage(kept[1].path)
    again = Predictor()
    assert stored(again) == kept
    assert again.asked == ["bb"]
    np.testing.assert_array_equal(kept[1].read().probabilities, before.probabilities)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"sha256": "another"}, 2),
        ({"context": "another"}, 2),
        ({"search": PostprocessingSearch(thresholds=[0.2])}, 2),
        ({"search": PostprocessingSearch(thresholds=[0.4])}, 0),
    ],
)
def test_a_prediction_is_reused_only_for_its_own_settings(
    stored: Stored, changes: dict[str, Any], asked: int
) -> None:
    stored(Predictor())
    predict = Predictor()
    stored(predict, **changes)
    assert len(predict.asked) == asked


def test_a_prediction_and_a_ground_truth_of_two_shapes_are_refused() -> None:
    whole = random_prediction(np.random.default_rng(0))
    with pytest.raises(ValueError, match="differ in shape"):
        CroppedPrediction.of("model", "case", whole._replace(truth=whole.truth[:, :-1]), 0.3)


def test_the_record_lists_what_was_tried() -> None:
    chosen = choose(cropped(random_predictions(3)), SEARCH, REGIONS)
    record = json.loads(json.dumps(chosen.record))
    assert len(record["regions"]["ET"]["tried"]) == 12
    assert record["models"] == sorted({name for name, _ in random_predictions(3)})
    assert record["cases"] == len({case for _, case in random_predictions(3)})
    alone = SEARCH.model_copy(update={"replace": None})
    assert choose(cropped(random_predictions(3)), alone, REGIONS).record["replacement"] is None


def test_a_grid_of_the_defaults_alone_searches_nothing() -> None:
    nothing = {"thresholds": [0.5], "smallest_components": [0]}
    assert not PostprocessingSearch.model_validate(nothing).searches
    assert PostprocessingSearch().searches
    assert PostprocessingSearch.model_validate(nothing | {"thresholds": [0.4]}).searches
    replace = {"region": "ET", "by": "TC", "below": [50]}
    assert PostprocessingSearch.model_validate(nothing | {"replace": replace}).searches


def test_nothing_to_choose_leaves_predictions_unchanged() -> None:
    chosen = nothing_to_choose(["TC", "WT"])
    assert chosen.postprocessing == unchanged(["TC", "WT"])
    assert (chosen.record["models"], chosen.record["cases"]) == ([], 0)
    assert Postprocessing.from_record(chosen.record["postprocessing"]) == chosen.postprocessing


def test_components_are_dropped_whole_and_scored_where_annotated() -> None:
    probabilities = np.zeros((1, 12, 6, 6), np.float32)
    probabilities[0, 1:4, 1:4, 1:4] = probabilities[0, 8, 1:3, 1] = 0.9
    truth = np.zeros(probabilities.shape, bool)
    truth[0, 1:4, 1:4, 1] = True
    known = np.ones(truth.shape[1:], bool)
    known[:, :, 2:] = False
    whole = WholePrediction(probabilities, truth, [1, 1, 1], known)
    cropped = CroppedPrediction.of("m", "c", whole, 0.5)
    search = PostprocessingSearch(thresholds=[0.5], smallest_components=[0, 10, 28])
    scores = score_rules([cropped], search, ["WT"])["WT"]
    # 9 of 27 voxels of the large component and both of the small one are annotated.
    assert scores == {
        RegionRule(0.5, 0): pytest.approx(18 / 20),
        RegionRule(0.5, 10): 1,
        RegionRule(0.5, 28): 0,
    }


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_search_leaves_out_regions_that_are_not_annotated_in_a_case(seed: int) -> None:
    """As if a region had the cases alone in which it is annotated."""
    whole = random_predictions(seed)
    other = {(model, "more"): random_prediction(np.random.default_rng(0)) for model, _ in whole}
    found = choose(cropped(whole | other), SEARCH, REGIONS, {"more": {"ET", "WT"}})
    tried = score_rules(cropped(whole), SEARCH, REGIONS)
    everywhere = score_rules(cropped(whole | other), SEARCH, REGIONS)
    for number, region in enumerate(REGIONS):
        expected = everywhere if region == "TC" else tried
        listed = found.record["regions"][region]["tried"]
        assert [one["score"] for one in listed] == list(expected[region].values()), number
    rules = found.postprocessing.regions
    counts = {
        len(values)
        for dice in dice_scores_of_replacements(
            cropped(whole | other), SEARCH.replace, rules, {"more": {"ET"}}
        ).values()
        for values in dice.values()
    }
    assert counts == {len(whole), len(whole | other)}
