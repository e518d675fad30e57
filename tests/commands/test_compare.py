"""`voxelsoup compare`: what it writes and prints, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from support.scored_studies import (
    FOLDS,
    REGIONS,
    STUDY,
    patient_of,
    write_configurations,
    write_scored,
    write_truth,
)
from voxelsoup.commands.cli import main
from voxelsoup.commands.compare import names_of
from voxelsoup.common.files import read_json, write_json
from voxelsoup.comparison.statistics import holm, model_difference
from voxelsoup.comparison.study_entries import entry_of
from voxelsoup.evaluation.case_scores import by_case, read_rows, write_rows
from voxelsoup.runs.origins import Origin, path_of_origin, write_origin
from voxelsoup.study.loading import read_with_configurations

# A study that measures more, and searches for post-processing.
MORE: dict[str, Any] = {"metrics": {"names": ["hd95", "nsd"]}, "postprocessing": {}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], *targets: object) -> str:
    """What the command says when it refuses."""
    assert main(["compare", *map(str, targets)]) == 1
    return capsys.readouterr().err


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "compared" / "comparison.csv", float_precision="round_trip")


def scores(study: Path, fold: int, model: str, name: str = "test.csv") -> pd.DataFrame:
    return read_rows(study.parent / "results" / f"fold{fold}" / model / name)


def test_differences_are_those_of_the_statistics_over_the_folds(folder: Path) -> None:
    one = write_scored(folder / "one", 0.72, 1, **MORE)
    two = write_scored(folder / "two", 0.70, 2, **MORE)
    # A results folder and a study file mean the same.
    assert main(["compare", str(folder / "one" / "results"), str(two)]) == 0
    frame = table(folder)
    for kind, model in (
        ("models that the studies are about", "soups/greedy"),
        ("best single models", "best"),
    ):
        for processed, name in (("without", "test.csv"), ("with", "postprocessed.csv")):
            for metric, region in (("dice", "mean"), ("hd95", "ET"), ("nsd", "mean")):
                values = [
                    by_case(scores(one, fold, model, name), metric, region)
                    - by_case(scores(two, fold, model, name), metric, region)
                    for fold in FOLDS
                ]
                patients = [[patient_of(case) for case in value.index] for value in values]
                expected = model_difference([v.to_numpy() for v in values], patients=patients)
                row = frame[
                    (frame["compared"] == kind)
                    & (frame["postprocessing"] == processed)
                    & (frame["metric"] == metric)
                    & (frame["region"] == region)
                ].iloc[0]
                found = row[["difference", "low", "high", "cases", "patients"]].tolist()
                assert found == [
                    expected.mean,
                    expected.low,
                    expected.high,
                    expected.cases,
                    expected.patients,
                ]
                assert row["first_mean"] - row["second_mean"] == pytest.approx(expected.mean)
    # One pair is tested by itself.
    tested = frame.dropna(subset="p")
    assert tested[["metric", "region", "postprocessing"]].drop_duplicates().to_numpy().tolist() == [
        ["dice", "mean", "without"]
    ]
    assert (tested["p"] == tested["p_holm"]).all() and (tested["level"] == 0.05).all()


def test_all_pairs_of_several_studies_are_corrected_by_holm(folder: Path) -> None:
    files = [
        write_scored(folder / name, dice, seed)
        for seed, (name, dice) in enumerate({"one": 0.72, "two": 0.70, "three": 0.702}.items())
    ]
    assert main(["compare", *map(str, files)]) == 0
    frame = table(folder).dropna(subset="p")
    for _, family in frame.groupby("compared", sort=False):
        assert family[["first", "second"]].to_numpy().tolist() == [
            ["one", "two"],
            ["one", "three"],
            ["two", "three"],
        ]
        assert family["p_holm"].tolist() == holm(family["p"].tolist())
        for row in family.to_dict("records"):
            assert (row["low"] > 0 or row["high"] < 0) == (row["p_holm"] < 0.05)


def test_page_and_terminal_say_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write_scored(folder / n, dice) for n, dice in (("one", 0.8), ("two", 0.7))]
    main(["compare", *map(str, files), "--output", "there"])
    printed, page = capsys.readouterr().out, (folder / "there" / "comparison.html").read_text()
    sentence = "Greedy soup of one better than greedy soup of two by 10.0"
    assert sentence in printed and sentence in page
    assert "Best single model of one better than best single model of two" in page
    assert "+10.00" in printed and "+10.00" in page
    assert (
        "<svg" in page
        and "<title>case a0" in page
        and "http://" not in page.replace("http://www.w3.org", "")
    )
    assert (folder / "there" / "differences.png").stat().st_size > 0


def test_what_is_compared_is_the_model_of_the_primary_question(folder: Path) -> None:
    one = write_scored(folder / "one")
    two = write_scored(
        folder / "two",
        models=("soups/uniform", "best"),
        soup={"recipes": ["greedy", "uniform"]},
        comparison={"primary": {"model": "uniform"}},
    )
    assert main(["compare", str(one), str(two)]) == 0
    assert table(folder)[["first_model", "second_model"]].drop_duplicates().to_numpy().tolist() == [
        ["Greedy Soup", "Uniform Soup"],
        ["Best Model", "Best Model"],
    ]


# What differs -> the study's changes, what the refusal says, and what is left in common.
DIFFERENT: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "region": (
        {"regions": {"WT": [1, 2], "ET": [1]}},
        "region ET: label values [2] in one; label values [1] in two",
        {"region": ["mean", "WT"]},
    ),
    "missing region": (
        {"regions": {"WT": [1, 2]}},
        "region ET: label values [2] in one; none in two",
        {"region": ["mean", "WT"]},
    ),
    "surface tolerance": (
        {"metrics": {"names": ["hd95", "nsd"], "surface_tolerance": 2.0}},
        "metric nsd: surface_tolerance 1.0 in one; surface_tolerance 2.0 in two",
        {"metric": ["dice", "hd95"]},
    ),
    "penalty": (
        {"metrics": {"names": ["hd95", "nsd"], "penalty_distance": 100.0}},
        "metric hd95: penalty_distance 374.0 in one; penalty_distance 100.0 in two",
        {"metric": ["dice", "nsd"]},
    ),
    "metric": (
        {"metrics": {"names": ["nsd"]}},
        "metric hd95: scored in one; not scored in two",
        {"metric": ["dice", "nsd"]},
    ),
    "post-processing": (
        {"postprocessing": {"thresholds": [0.5]}},
        "postprocessing.thresholds: [0.3,",
        {"postprocessing": ["without"]},
    ),
    "cases": (
        {"folds": {"count": 2, "run": [0]}, "tested": {0: FOLDS[0]}},
        "7 cases that one has tested and two has not: b0, b1, b2, b3, b4 and 2 more",
        {"cases": [8]},
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_named_and_refused_and_left_out_on_demand(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, said, left = DIFFERENT[name]
    one = write_scored(folder / "one", **MORE)
    two = write_scored(folder / "two", seed=1, **{**MORE, **changes})
    assert said in refusal(capsys, one, two)
    assert not (folder / "compared").exists()
    assert main(["compare", str(one), str(two), "--common"]) == 0
    assert f"note: Not in common: {said}" in capsys.readouterr().err
    frame = table(folder)
    for column, values in left.items():
        assert list(dict.fromkeys(frame[column])) == values
    assert said in (folder / "compared" / "comparison.html").read_text()


def test_cases_tested_in_other_folds_are_named_and_are_blocks_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_scored(folder / "one")
    moved = {0: [*FOLDS[0][:7], "b0"], 1: [*FOLDS[1][1:], "a7"]}
    two = write_scored(folder / "two", tested=moved)
    said = refusal(capsys, one, two)
    assert "2 cases tested in other folds" in said and "(a7 in fold 0 of one and fold 1" in said
    assert main(["compare", str(one), str(two), "--common"]) == 0
    assert set(table(folder)["blocks"]) == {4}
    assert "4 combined folds" in capsys.readouterr().out


def test_another_ground_truth_under_the_same_name_is_noticed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = {"a0": "other scan", "a2": "other label", "a3": "unknown"}
    one, two = write_scored(folder / "one"), write_scored(folder / "two", hashes=hashes)
    label = np.zeros((4, 5, 6))
    label[1:3, 1:4, 2:4], label[1, 1, 2] = 1, 2
    for case in ("a0", "a2"):
        write_truth(one.parent / "results", case, label, (1, 1, 1))
    # The same voxels of the scan, cropped elsewhere, and a value that no region has.
    same = np.zeros((5, 6, 7))
    same[1:, 1:, 1:] = label
    same[0, 0, 0] = 7
    write_truth(two.parent / "results", "a0", same, (0, 0, 0))
    label[1, 1, 3] = 2
    write_truth(two.parent / "results", "a2", label, (1, 1, 1))
    said = refusal(capsys, one, two)
    assert "one case of the same name with another ground truth: a2" in said
    assert "one case of the same name with other files, and no preprocessed label map" in said
    assert "a3" in said and "a0" not in said
    assert main(["compare", str(one), str(two), "--common"]) == 0
    assert set(table(folder)["cases"]) == {len(FOLDS[0]) + len(FOLDS[1]) - 2}


def test_regions_that_one_study_has_no_scores_of_in_a_case_are_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_scored(folder / "one"), write_scored(folder / "two")
    for model in ("soups/greedy", "best"):
        for name in ("test.csv", "postprocessed.csv"):
            path = two.parent / "results" / "fold0" / model / name
            rows = read_rows(path)
            write_rows(path, rows[(rows["case"] != "a4") | (rows["region"] != "ET")])
    assert "annotated in some studies alone: ET of a4" in refusal(capsys, one, two)
    assert main(["compare", str(one), str(two), "--common"]) == 0
    assert table(folder).groupby("region")["cases"].unique().map(list).to_dict() == {
        "mean": [15],
        "WT": [15],
        "ET": [14],
    }


def test_scores_of_the_published_protocol_are_never_compared_with_held_out_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_scored(folder / "one")
    two = write_scored(folder / "two", evaluation={"protocol": "published"})
    for options in ([], ["--common"]):
        said = refusal(capsys, one, two, *options)
        assert "held-out in one; published in two" in said and "optimistic" in said
    three = write_scored(folder / "three", evaluation={"protocol": "published"})
    assert main(["compare", str(two), str(three)]) == 0
    assert "optimistic" in (folder / "compared" / "comparison.html").read_text()
    assert table(folder)["protocol"].str.contains("optimistic").all()


def test_an_unfinished_study_is_refused_with_what_it_lacks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_scored(folder / "one"), write_scored(folder / "two")
    (two.parent / "results" / "fold1" / "soups" / "greedy" / "test.csv").unlink()
    said = refusal(capsys, one, two)
    assert "is not finished: fold1/soups/greedy/test.csv is missing" in said
    assert "no such file or folder" in refusal(capsys, one, folder / "nothing")
    (folder / "empty").mkdir()
    assert "is no results folder whose study is known" in refusal(capsys, one, folder / "empty")


def test_results_of_an_older_version_are_adopted_or_refused_with_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_scored(folder / "one"), write_scored(folder / "two")
    # Results from before origins were kept.
    assert main(["compare", str(one), str(two)]) == 0
    assert "a version of voxelsoup that did not write down its code" in capsys.readouterr().err
    complete = two.parent / "results" / "report" / "study.yaml"
    complete.write_text(complete.read_text() + "folds_of_old: 3\n")
    said = refusal(capsys, one, two.parent / "results")
    assert "this version cannot read" in said and "folds_of_old" in said


def origin(study: Path, output: str, **changes: Any) -> Origin:
    """What a job of a study left beside an output."""
    content: dict[str, Any] = {"rule": "r", "settings": {}, "inputs": {}, "code": {}, **changes}
    made = Origin(**content)
    path = Path(path_of_origin(study.parent / "results", output))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_origin(str(path), made)
    return made


def test_scores_that_are_older_than_the_study_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_scored(folder / "one"), write_scored(folder / "two")
    folds = origin(two, "folds.json")
    metrics = {
        **STUDY["metrics"],
        "surface_tolerance": 1.0,
        "lesion_dilation": 3,
        "lesion_smallest": 50.0,
    }
    for fold in FOLDS:
        origin(
            two,
            f"fold{fold}/best/test.csv",
            settings={"metrics": metrics},
            inputs={"<results>/folds.json": folds.id},
            code={"evaluation.metrics": "1", "models.networks": "1"},
        )
        origin(one, f"fold{fold}/best/test.csv", code={"evaluation.metrics": "2"})
    assert main(["compare", str(one), str(two)]) == 0
    assert "different versions of the code (metrics)" in capsys.readouterr().err
    origin(two, "folds.json", settings={"seed": 1})
    assert "folds.json has changed since" in refusal(capsys, one, two)
    origin(two, "fold0/best/test.csv", settings={"metrics": {**metrics, "surface_tolerance": 2.0}})
    assert "`metrics.surface_tolerance` 2.0 -> 1.0" in refusal(capsys, one, two)
    origin(two, "fold0/best/test.csv", finished=False)
    assert "interrupted" in refusal(capsys, one, two)


def test_scores_of_other_cases_than_the_folds_have_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_scored(folder / "one"), write_scored(folder / "two")
    path = two.parent / "results" / "folds.json"
    content = read_json(path)
    content["folds"]["0"]["test"].remove("a5")
    write_json(path, content)
    assert "other cases than the test cases of its fold" in refusal(capsys, one, two)


def test_studies_without_a_common_case_or_region_cannot_be_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_scored(folder / "one")
    two = write_scored(folder / "two", tested={0: ["c0", "c1"], 1: ["d0", "d1"]})
    three = write_scored(folder / "three", regions={name.lower(): v for name, v in REGIONS.items()})
    for other in (two, three):
        assert "no case and region in common" in refusal(capsys, one, other, "--common")


def test_one_study_alone_or_twice_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_scored(folder / "one")
    assert "names one study" in refusal(capsys, one)
    assert "twice" in refusal(capsys, one, one.parent / "results")


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/results", "b/results"], ["a", "b"]),
        (["results-ct", "results-mr"], ["results-ct", "results-mr"]),
        (["x/a/results", "y/a/results"], ["x/a", "y/a"]),
        (["x/results", "x"], ["results", "x"]),
    ],
)
def test_studies_are_called_by_what_tells_their_folders_apart(
    folders: list[str], names: list[str]
) -> None:
    assert names_of(list(map(Path, folders))) == names


def test_a_study_of_configurations_stands_there_by_the_ensemble_that_was_chosen(
    folder: Path,
) -> None:
    write_configurations(folder / "one")
    two = write_scored(folder / "two", 0.7, seed=9)
    assert main(["compare", str(folder / "one" / "results"), str(two)]) == 0
    about, singles = (part.iloc[0] for _, part in table(folder).groupby("compared", sort=False))
    called = about[["first", "first_model", "first_configuration", "second"]].tolist()
    assert called == ["one (first + wide)", "Ensemble", "first + wide", "two"]
    assert singles[["first", "first_configuration"]].tolist() == ["one (wide)", "wide"]
    assert pd.isna(about["second_configuration"])
    files = (folder / "one/results/configurations").glob("fold*/test.csv")
    dice = pd.concat([by_case(read_rows(path)) for path in files])
    assert about["first_mean"] == pytest.approx(dice.mean(), abs=1e-12)
    page = (folder / "compared" / "comparison.html").read_text()
    assert "nsemble of one (first + wide) " in page and "best single model of one (wide)" in page
    assert "the best of the study by its selection cases" in page


@pytest.mark.parametrize("chosen", ["wide", "first"])
def test_a_study_of_configurations_stands_there_by_the_single_one_that_was_chosen(
    chosen: str, folder: Path
) -> None:
    file = write_configurations(folder / "one", (chosen,))
    results = file.parent / "results"
    entry = entry_of(results, read_with_configurations(file), "")
    own = {"wide": results / "configurations" / "wide", "first": results}[chosen]
    assert entry.configuration == chosen and entry.chosen and entry.own_results == own
    places = [(model.results, model.folder, model.configuration) for model in entry.models]
    assert places == [(own, "soups/greedy", chosen), (own, "best", chosen)]


def test_configurations_of_one_study_are_compared_by_name_or_by_folder(folder: Path) -> None:
    file = write_configurations(folder / "one")
    results = file.parent / "results"
    wide = results / "configurations" / "wide"
    assert main(["compare", str(wide), f"{file}:first", f"{results}:first+wide"]) == 0
    frame = table(folder).dropna(subset="p")
    about, singles = "models that the studies are about", "best single models"
    assert frame[["first", "second", "compared"]].to_numpy().tolist() == [
        ["one (wide)", "one (first)", about],
        ["one (wide)", "one (first + wide)", about],
        ["one (first)", "one (first + wide)", about],
        # The ensemble's is that of the best configuration, which is there already.
        ["one (wide)", "one (first)", singles],
    ]
    files = wide.glob("fold*/soups/greedy/test.csv")
    dice = pd.concat([by_case(read_rows(path)) for path in files])
    assert frame["first_mean"].iloc[0] == pytest.approx(dice.mean(), abs=1e-12)


# What is asked of a study of configurations, behind its results -> what the refusal says.
REFUSED = {
    ":wild": "has no configuration `wild`; did you mean `wide`?",
    ":first+wild": "has no configuration `first+wild`",
    "/configurations/wide:first": "names a configuration of the configuration wide",
    "/configurations": "is no results folder whose study is known",
    ":wide": "names the configuration wide of the results in",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_configurations_that_there_are_none_of_are_refused_with_those_that_there_are(
    asked: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_configurations(folder / "one", ("wide",)).parent / "results"
    said = refusal(capsys, f"{results}{asked}", results)
    assert REFUSED[asked] in said
    plain = write_scored(folder / "two")
    assert "no name of a configuration" in refusal(capsys, results, f"{plain}:wide")


def test_a_study_that_has_not_chosen_among_its_configurations_is_refused_with_the_fix(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_configurations(folder / "one"), write_scored(folder / "two")
    results = one.parent / "results"
    record = read_json(results / "configurations" / "chosen.json")
    (results / "configurations" / "chosen.json").unlink()
    said = refusal(capsys, one, two)
    assert "configurations/chosen.json is missing" in said and f"{results}:wide" in said
    assert entry_of(results, read_with_configurations(one), "wide").names == ("wide",)
    # Another one since.
    record["selection_dice"] = {"first": 0.7, "old": 0.7, "first + old": 0.7}
    write_json(results / "configurations" / "chosen.json", record)
    assert "has chosen among the configurations first and old" in refusal(capsys, one, two)


def test_scores_of_a_configuration_that_are_older_than_its_study_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_configurations(folder / "one"), write_scored(folder / "two")
    wide = one.parent / "results" / "configurations" / "wide"
    # As jobs of a configuration write it, beside results of its own.
    Path(path_of_origin(wide, "folds.json")).parent.mkdir(parents=True)
    folds = origin(one, "folds.json")
    copied = Origin("folds", {}, {"<study>/folds.json": folds.id}, {})
    write_origin(path_of_origin(wide, "folds.json"), copied)
    soup = Origin("soup", {}, {"<results>/folds.json": copied.id}, {})
    place = "fold0/soups/greedy/model.safetensors"
    Path(path_of_origin(wide, place)).parent.mkdir(parents=True)
    write_origin(path_of_origin(wide, place), soup)
    origin(
        one,
        "configurations/fold0/test.csv",
        inputs={f"<results>/configurations/wide/{place}": soup.id},
    )
    write_origin(path_of_origin(wide, place), replace(soup, settings={"seed": 1}))
    assert "wide/fold0/soups/greedy/model.safetensors has changed" in refusal(capsys, one, two)
    origin(one, "folds.json", settings={"seed": 1})
    assert "folds.json has changed since" in refusal(capsys, f"{one}:wide", two)
