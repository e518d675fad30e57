"""The list of a fold's single models, which all later steps read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_json
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.runs.divergence import DivergedTrial
from voxelsoup.runs.rungs import diverged_at_rungs, trials_at_the_end
from voxelsoup.soups.candidates import (
    Candidate,
    diverged_trials,
    list_candidates,
    models_of_folds,
    ranking,
    read_candidates,
    read_diverged,
    rung_record,
    runs_of_folds,
    scores_at_rung,
    write_candidates,
)
from voxelsoup.soups.soup import ingredients_of_fold
from voxelsoup.study.loading import load
from voxelsoup.study.sections.sweep import Halving
from voxelsoup.study.trials import trials

STUDY = {"dataset": {"channels": ["t1n"]}, "regions": {"WT": [1]}}
MODELS = ["aaaa0000", "aaaa0000/raw-1", "bbbb0000"]


def write_fold(results: Path) -> Path:
    """Two trials, one of them with other weights beside its model; returns their folder."""
    trials = results / "fold0" / "trials"
    for number, model in enumerate(MODELS):
        dice = [0.1 * number, 0.3]
        rows = pd.DataFrame({"case": ["a", "b"], "region": "WT", "dice": dice, "loss": 0.5})
        (trials / model).mkdir(parents=True)
        write_rows(trials / model / "selection.csv", rows)
        (trials / model / "model.safetensors").touch()
    hashes = {"model.safetensors": "first", "raw-1/model.safetensors": "beside"}
    write_json(trials / "aaaa0000" / "run.json", {"models": hashes})
    write_json(trials / "bbbb0000" / "run.json", {"models": {"model.safetensors": "second"}})
    return trials


def test_ingredients_have_their_score_and_the_hash_written_by_training(tmp_path: Path) -> None:
    listed = list_candidates(write_fold(tmp_path), MODELS, {"aaaa0000/raw-1", "bbbb0000"})
    assert [(one.model, one.ingredient, one.sha256) for one in listed] == [
        ("aaaa0000", False, "first"),
        ("aaaa0000/raw-1", True, "beside"),
        ("bbbb0000", True, "second"),
    ]
    assert [one.selection_score for one in listed] == pytest.approx([0.15, 0.2, 0.25])


def test_the_list_of_candidates_survives_a_round_trip(tmp_path: Path) -> None:
    listed = [Candidate("aaaa0000", True, 1 / 3, "ff"), Candidate("b/raw-2", False, 0.1, "00")]
    path = tmp_path / "candidates.tsv"
    write_candidates(path, listed)
    assert read_candidates(path) == listed


def test_a_trial_that_diverged_is_listed_as_that_and_is_no_candidate(tmp_path: Path) -> None:
    trials = write_fold(tmp_path)
    write_json(trials / "bbbb0000" / "run.json", {"diverged": {"epoch": 2, "step": 7}})
    path = tmp_path / "fold0" / "candidates.tsv"
    write_candidates(path, list_candidates(trials, MODELS, MODELS, ["bbbb0000"]), ["bbbb0000"])
    assert [one.model for one in read_candidates(path)] == MODELS[:2]
    assert models_of_folds(tmp_path, [0]) == {0: MODELS[:2]}
    assert read_diverged(path) == ["bbbb0000"]
    study = load(STUDY | {"results": str(tmp_path), "folds": {"count": 3, "run": [0]}})
    assert diverged_trials(study) == [DivergedTrial(0, "bbbb0000", 2, 7)]


def test_a_trial_that_diverged_before_a_rung_has_no_score_and_never_continues(
    tmp_path: Path,
) -> None:
    for trial, loss in {"aaaa0000": "0.5", "bbbb0000": "nan", "cccc0000": "0.4"}.items():
        rows = pd.DataFrame({"case": ["a"], "region": "WT", "dice": [0.3], "loss": 0.5})
        write_rows(tmp_path / trial / "selection.csv", rows[: int(loss != "nan")])
        history = f"epoch,step,training_loss,lr\n1,3,0.7,0.1\n2,5,{loss},0.1\n"
        (tmp_path / trial / "history.csv").write_text(history)
    scores, diverged = scores_at_rung(0, sorted(tmp_path.iterdir()))
    assert scores == {"aaaa0000": 0.3, "cccc0000": 0.3}
    assert diverged == [DivergedTrial(0, "bbbb0000", epoch=2, step=5)]
    record = rung_record(0, 1, 2, Halving(keep=0.9), scores, diverged)
    assert record["kept"] == ["aaaa0000", "cccc0000"]
    assert record["diverged"] == {"bbbb0000": {"epoch": 2, "step": 5}}
    write_json(tmp_path / "fold0" / "rungs" / "1.json", record)
    halved = {"results": str(tmp_path), "folds": {"count": 3, "run": [0]}}
    study = load(STUDY | halved | {"sweep": {"halving": {"keep": 0.9}}})
    assert diverged_at_rungs(study) == diverged
    assert trials_at_the_end(study, tmp_path / "fold0", [*scores, "bbbb0000"]) == [*scores]


def test_the_runs_of_a_fold_are_its_stem_and_its_trials_each_once(tmp_path: Path) -> None:
    (tmp_path / "fold0").mkdir()
    listed = [Candidate(model, True, 0.5, "") for model in MODELS]
    write_candidates(tmp_path / "fold0" / "candidates.tsv", listed)
    models = models_of_folds(tmp_path, [0])
    assert models == {0: MODELS}
    names = ["stem", "trials/aaaa0000", "trials/bbbb0000"]
    assert runs_of_folds(tmp_path, models, stems=True) == [
        (0, tmp_path / "fold0" / name) for name in names
    ]


def test_only_ingredients_go_into_soups(tmp_path: Path) -> None:
    trials = write_fold(tmp_path)
    path = tmp_path / "fold0" / "candidates.tsv"
    write_candidates(path, list_candidates(trials, MODELS, {"bbbb0000"}))
    (ingredient,) = ingredients_of_fold(path)
    assert (ingredient.trial, ingredient.sha256) == ("bbbb0000", "second")
    assert ingredient.score == pytest.approx(0.25)
    assert ingredient.name == "bbbb0000"
    ingredient.path.unlink()
    with pytest.raises(InputError, match="is missing"):
        ingredients_of_fold(path)


def test_ingredients_are_named_by_what_distinguishes_their_trials(tmp_path: Path) -> None:
    grid = {"optimizer.lr": [0.1, 0.2]}
    data = {"dataset": {"channels": ["t1n"]}, "regions": {"WT": [1]}}
    study = load(data | {"results": str(tmp_path), "sweep": {"grid": grid}})
    first = trials(study)[0].id
    fold = write_fold(tmp_path)
    (fold / "aaaa0000").rename(fold / first)
    path = fold.parent / "candidates.tsv"
    write_candidates(path, [Candidate(f"{first}/raw-1", True, 0.5, "")])
    (ingredient,) = ingredients_of_fold(path, study=study)
    assert ingredient.name == f"lr 0.1, raw-1 ({first}/raw-1)"


def test_a_malformed_list_of_candidates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "candidates.tsv"
    path.write_text("trial\tscore\n")
    with pytest.raises(InputError, match="trial, score"):
        read_candidates(path)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1) | st.just(math.nan), min_size=1))
def test_best_trials_continue_in_any_order_of_the_list(scores: dict[str, float]) -> None:
    record = rung_record(0, 1, 3, Halving(rungs=2, keep=0.5), scores)
    again = dict(reversed(scores.items()))
    assert record == rung_record(0, 1, 3, Halving(rungs=2, keep=0.5), again)
    numbers = {trial: -1 if math.isnan(score) else score for trial, score in scores.items()}
    dropped = [numbers[trial] for trial in scores if trial not in record["kept"]]
    assert min(numbers[trial] for trial in record["kept"]) >= max(dropped, default=-1)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_equal_scores_are_ranked_by_name_and_nan_comes_last() -> None:
    assert ranking({"b": 0.5, "a": 0.5, "c": math.nan, "d": 0.9}) == ["d", "a", "b", "c"]
    assert ranking({"b": math.nan, "a": math.nan}) == ["a", "b"]
