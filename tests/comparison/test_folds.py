"""Which model of a fold is the best one, what its soups are compared on, and from which files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from support.compared_folds import scored
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_tsv
from voxelsoup.comparison.folds import FoldComparison, compare_study, points
from voxelsoup.comparison.names import (
    OPTIMISTIC,
    in_a_sentence,
    primary_titles,
    protocol_mark,
    soup_title,
)
from voxelsoup.comparison.overview import overview, write_fold_table, write_overview
from voxelsoup.comparison.postprocessing_effect import write_without_and_with
from voxelsoup.evaluation.case_scores import mean_dice, read_rows, write_rows
from voxelsoup.study.sections.evaluation import Primary

TRIALS = {
    # Better on the test cases, but not on those that choose.
    "aaaa0000": ([0.7, 0.6], [0.95, 0.75]),
    "bbbb0000": ([0.8, 0.7], [0.5, 0.625]),
    "bbbb0000/raw-1": ([0.5, 0.5], [0.25, 0.25]),
}
SOUPS = {"greedy": (2, None, [0.875, 0.5]), "ensemble": (3, 3, [0.9, 0.8])}


def write_fold(results: Path, fold: int = 0) -> None:
    """What the jobs of a fold leave behind."""
    write_cases(results)
    folder = results / f"fold{fold}"
    for trial, (selection, test) in TRIALS.items():
        write_rows(created(folder / "trials" / trial) / "selection.csv", scored(selection))
        write_rows(folder / "trials" / trial / "test.csv", scored(test))
    for recipe, (ingredients, cost, test) in SOUPS.items():
        record = {"score": 0.75, "ingredients": [{"trial": "bbbb0000"}] * ingredients}
        if cost is not None:
            record["models_per_prediction"] = cost
        (created(folder / "soups" / recipe) / "recipe.json").write_text(json.dumps(record))
        write_rows(folder / "soups" / recipe / "test.csv", scored(test))
        after = scored([dice + 0.03125 for dice in test])
        write_rows(folder / "soups" / recipe / "postprocessed.csv", after)
    write_rows(created(folder / "best") / "postprocessed.csv", scored([0.75, 0.75]))


def created(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def write_cases(results: Path, cases: int = 3) -> None:
    """The cases of a study, of which the first two are one patient's."""
    names = [f"case{number:02}" for number in range(cases)]
    rows = [{"case": name, "patient": f"of {name.replace('01', '00')}"} for name in names]
    write_tsv(results / "cases.tsv", ["case", "patient"], rows)


def read_fold(results: Path, **changes: bool) -> FoldComparison:
    (fold,) = compare_study(results, {0: list(TRIALS)}, list(SOUPS), "held-out", **changes)
    return fold


def test_the_best_model_is_chosen_by_selection_not_by_test(tmp_path: Path) -> None:
    write_fold(tmp_path)
    fold = read_fold(tmp_path)
    assert fold.case_scores["aaaa0000"].mean() > fold.case_scores["bbbb0000"].mean()
    assert fold.best_trial == "bbbb0000"
    assert list(fold.columns) == ["Best Model", "Greedy Soup", "Ensemble"]
    assert fold.columns["Best Model"] == {
        "test_avg": 0.5625,
        "test_tc": 0.625,
        "test_wt": 0.46875,
        "test_et": 0.59375,
        "test_loss": 0.4375,
    }
    assert fold.trials == list(TRIALS)
    assert fold.ingredients == {"Best Model": 1, "Greedy Soup": 2, "Ensemble": 3}
    # A recipe that does not say how many networks run makes one model.
    assert fold.models_per_prediction == {"Best Model": 1, "Greedy Soup": 1, "Ensemble": 3}


def test_every_fold_is_read_from_its_own_folder(tmp_path: Path) -> None:
    for fold in (0, 3):
        write_fold(tmp_path, fold)
    write_rows(tmp_path / "fold3/soups/greedy/test.csv", scored([0.25, 0.5]))
    folds = compare_study(tmp_path, {3: list(TRIALS), 0: list(TRIALS)}, list(SOUPS), "published")
    assert [fold.fold for fold in folds] == [3, 0]
    greedy = [fold.columns["Greedy Soup"]["test_avg"] for fold in folds]
    assert greedy == [0.375, 0.6875]
    assert {fold.protocol for fold in folds} == {"published"}


def test_postprocessed_scores_are_read_for_the_compared_models_only(tmp_path: Path) -> None:
    write_fold(tmp_path)
    fold = read_fold(tmp_path)
    means = {title: rows["dice"].mean() for title, rows in fold.postprocessed.items()}
    assert means == pytest.approx(
        {"Best Model": 0.75, "Greedy Soup": 0.71875, "Ensemble": 0.88125}, rel=1e-12
    )
    for path in tmp_path.rglob("postprocessed.csv"):
        path.unlink()
    assert read_fold(tmp_path, postprocessed=False).postprocessed == {}


def test_points_are_every_model_of_every_fold(tmp_path: Path) -> None:
    write_fold(tmp_path)
    found = points([read_fold(tmp_path)])
    assert found["name"].tolist() == [*TRIALS, "Greedy Soup", "Ensemble"]
    kinds = ["Trial", "Best Model", "Trial", "Greedy Soup", "Ensemble"]
    assert found["kind"].tolist() == kinds
    assert found["test"].tolist() == pytest.approx([0.85, 0.5625, 0.25, 0.6875, 0.85], rel=1e-12)
    assert found["selection"].tolist() == pytest.approx([0.65, 0.75, 0.5, 0.75, 0.75], rel=1e-12)
    assert found["fold"].tolist() == [0] * 5
    assert list(points([])) == list(found)


@pytest.mark.parametrize(
    ("recipe", "title"),
    [
        ("greedy", "Greedy Soup"),
        ("uniform", "Uniform Soup"),
        ("best", "Best Single"),
        ("ensemble", "Ensemble"),
        ("finished", "Finished Soup"),
        ("finished-best", "Finished Best Model"),
        ("long-run", "Long Run"),
    ],
)
def test_recipes_have_titles(recipe: str, title: str) -> None:
    assert soup_title(recipe) == title


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Best Model", "best single model"),
        ("Best Single", "best ingredient"),
        ("Greedy Soup", "greedy soup"),
        ("Finished Soup", "finished soup"),
        ("Finished Best Model", "finished best single model"),
        ("Long Run", "long run"),
    ],
)
def test_models_have_names_in_sentences(title: str, words: str) -> None:
    assert in_a_sentence(title) == words


def test_the_primary_models_have_their_titles() -> None:
    assert primary_titles(Primary(model="greedy")) == ("Greedy Soup", "Best Model")
    other = Primary(model="finished", against="finished-best")
    assert primary_titles(other) == ("Finished Soup", "Finished Best Model")


@pytest.mark.parametrize(
    ("hashes", "same"), [(("a", "a"), True), (("a", "b"), False), ((None, None), False)]
)
def test_both_finished_models_are_one_if_their_files_are(
    tmp_path: Path, hashes: tuple[str | None, str | None], same: bool
) -> None:
    write_fold(tmp_path)
    for recipe, digest in zip(("finished", "finished-best"), hashes, strict=True):
        finish = {"lr": 0.1} | ({"sha256": digest} if digest else {})
        record = {"score": 0.75, "ingredients": [{"trial": "bbbb0000"}], "finish": finish}
        folder = created(tmp_path / "fold0/soups" / recipe)
        (folder / "recipe.json").write_text(json.dumps(record))
        write_rows(folder / "test.csv", scored([0.9, 0.8]))
    recipes = ["finished", "finished-best"]
    (fold,) = compare_study(tmp_path, {0: list(TRIALS)}, recipes, "held-out", False)
    assert fold.one_finish is same


def test_the_cases_of_a_fold_have_their_patients(tmp_path: Path) -> None:
    write_fold(tmp_path)
    fold = read_fold(tmp_path)
    assert fold.patients_of(["case00", "case01", "case02"]) == [
        "of case00",
        "of case00",
        "of case02",
    ]
    # Elsewhere each case is one.
    assert fold.patients_of(["another"]) == ["another"]


def test_the_published_protocol_is_marked() -> None:
    assert protocol_mark("held-out") == "held-out"
    assert protocol_mark("published") == f"published ({OPTIMISTIC})"


@pytest.mark.parametrize(
    "file",
    ["trials/bbbb0000/test.csv", "trials/bbbb0000/selection.csv", "soups/greedy/test.csv"],
)
@pytest.mark.parametrize(
    "other",
    [
        scored([0.5]),
        scored([0.5, 0.5, 0.5]),
        scored([0.5, 0.5]).replace({"region": {"TC": "tc"}}),
        scored([0.5, 0.5]).replace({"case": {"case01": "case02"}}),
    ],
)
def test_models_scored_on_other_cases_are_refused(
    tmp_path: Path, file: str, other: pd.DataFrame
) -> None:
    write_fold(tmp_path)
    write_rows(tmp_path / "fold0" / file, other)
    with pytest.raises(InputError, match=f"{file}.*other cases or regions"):
        read_fold(tmp_path)


def test_models_scored_in_another_order_of_cases_are_accepted(tmp_path: Path) -> None:
    write_fold(tmp_path)
    expected = read_fold(tmp_path)
    path = tmp_path / "fold0/trials/bbbb0000/test.csv"
    write_rows(path, scored(TRIALS["bbbb0000"][1]).iloc[::-1])
    found = read_fold(tmp_path).case_scores["bbbb0000"]
    pd.testing.assert_series_equal(found, expected.case_scores["bbbb0000"])


def test_a_fold_may_have_no_soups(tmp_path: Path) -> None:
    write_fold(tmp_path)
    (fold,) = compare_study(tmp_path, {0: list(TRIALS)}, [], "held-out")
    assert list(fold.rows) == ["Best Model"]


def test_folds_are_compared_where_regions_are_not_annotated(tmp_path: Path) -> None:
    write_fold(tmp_path)
    for file in tmp_path.rglob("*.csv"):
        rows = read_rows(file)
        first = rows["case"].iloc[0]
        write_rows(file, rows[(rows["case"] != first) | (rows["region"] != "TC")])
    fold = read_fold(tmp_path)
    after = fold.rows["Greedy Soup"]
    assert list(fold.columns["Greedy Soup"]) == [
        "test_avg",
        "test_tc",
        "test_wt",
        "test_et",
        "test_loss",
    ]
    tested = points([fold]).set_index("name")["test"]
    assert tested["Greedy Soup"] == mean_dice(after) == fold.columns["Greedy Soup"]["test_avg"]
    frame = overview([fold]).set_index(["model", "region"])
    assert frame.loc[("Greedy Soup", "TC"), "cases"] == 1
    assert frame.loc[("Greedy Soup", "mean"), "cases"] == 2
    assert frame.loc[("Greedy Soup", "mean"), "dice_mean"] == mean_dice(after)
    write_overview(overview([fold]), tmp_path / "overview", 1.0)
    write_without_and_with([fold], [], tmp_path / "postprocessing")
    write_fold_table(fold, tmp_path / "fold0")
    for name in ("overview", "fold0", "postprocessing"):
        shown = (tmp_path / f"{name}.md").read_text()
        assert "Of 2 cases, TC is annotated in 1: the mean of a region is over those cases" in shown
