"""Scores of compared models: what is known is not predicted again, and nothing is taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from voxelsoup.common.files import sha256
from voxelsoup.evaluation.case_scores import read_rows, write_rows
from voxelsoup.runs.origins import (
    Origin,
    code_of_rule,
    path_of_origin,
    read_origin,
    write_origin,
)
from voxelsoup.soups.candidates import Candidate, write_candidates
from voxelsoup.soups.compared_scores import BothScores, compared_scores, known_scores
from voxelsoup.study.loading import load

STUDY = load(
    {"dataset": {"channels": ["t1n"]}, "regions": {"WT": [1]}, "metrics": {"names": ["hd95"]}}
)
SETTINGS = {"evaluation": {"overlap": 0.5}, "metrics": {"names": ["hd95"]}}
CASES = ["a", "b"]
FOLD = "fold0/trials"


def rows(dice: float, cases: list[str] = CASES) -> pd.DataFrame:
    """Scores with all digits, and with what is no number."""
    content = {"case": cases, "region": "WT", "dice": dice, "loss": 1 / 3, "hd95": float("nan")}
    return pd.DataFrame(content)


class Predicting:
    """Scores that say of which file they are, and what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def before(self, model: Path) -> pd.DataFrame:
        self.asked.append(f"before {model.name}")
        return rows(0.1)

    def after(self, model: Path) -> pd.DataFrame:
        self.asked.append(f"after {model.name}")
        return rows(0.2)

    def both(self, model: Path) -> BothScores:
        self.asked.append(f"both {model.name}")
        return BothScores(rows(0.1), rows(0.2))


# Whether post-processing changes anything -> the predictions that are asked for.
ASKED = {False: ["before greedy"], True: ["after best", "both greedy"]}


@pytest.mark.parametrize("changes", ASKED)
def test_weights_are_predicted_once_and_not_at_all_where_all_of_their_scores_are_known(
    changes: bool, tmp_path: Path
) -> None:
    models = [tmp_path / name for name in ("best", "uniform", "greedy", "again")]
    for model, weights in zip(models, ("one", "one", "two", "two"), strict=True):
        model.write_text(weights)
    write_rows(tmp_path / "test.csv", rows(0.9))
    scorer = Predicting()
    known = {sha256(models[0]): tmp_path / "test.csv"}
    found = compared_scores(models, known, scorer, changes)
    assert scorer.asked == ASKED[changes]
    assert found[0] is found[1] and found[2] is found[3]
    pd.testing.assert_frame_equal(found[0].before, rows(0.9), check_exact=True)
    assert found[0].after["dice"].tolist() == ([0.2, 0.2] if changes else [0.9, 0.9])


def written(results: Path, output: str, **content: Any) -> Origin:
    """An origin as a job leaves it."""
    made = Origin(**{"rule": "r", "settings": {}, "inputs": {}, "code": {}} | content)
    path = Path(path_of_origin(results, output))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_origin(str(path), made)
    return made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A fold with a trial and a given model, both scored as the study is now."""
    models = [Candidate("aaaa0000", True, 0.5, "trained"), Candidate("elsewhere-x", True, 0.5, "x")]
    for model in models:
        write_rows(tmp_path / FOLD / model.model / "test.csv", rows(0.5))
    write_candidates(tmp_path / "fold0" / "candidates.tsv", models)
    made = {
        f"<results>/{name}": written(tmp_path, name).id
        for name in ("folds.json", "preprocessed.tsv")
    }
    model = f"{FOLD}/aaaa0000/model.safetensors"
    code, own = code_of_rule("evaluate"), {f"<results>/{model}": written(tmp_path, model).id}
    shared = {"settings": {**SETTINGS, "folder": "f"}, "code": code}
    written(tmp_path, f"{FOLD}/aaaa0000/selection.csv", inputs=made | own, **shared)
    written(tmp_path, f"{FOLD}/elsewhere-x/model.safetensors", inputs=made, **shared)
    return tmp_path


def known(results: Path, settings: dict[str, Any] = SETTINGS, cases: list[str] = CASES) -> set[str]:
    """The hashes of weights whose scores are known."""
    return {*known_scores(results / "fold0" / "candidates.tsv", STUDY, cases, settings)}


def test_scores_of_trials_and_given_models_are_known_by_the_hashes_of_their_weights(
    results: Path,
) -> None:
    found = known_scores(results / "fold0" / "candidates.tsv", STUDY, CASES, SETTINGS)
    assert {*found} == {"trained", "x"}
    pd.testing.assert_frame_equal(read_rows(found["trained"]), rows(0.5), check_exact=True)
    assert known(results / "nothing") == set()


def test_scores_by_other_settings_or_of_other_cases_are_not_known(results: Path) -> None:
    assert known(results, SETTINGS | {"evaluation": {"overlap": 0.25}}) == set()
    assert known(results, cases=["a", "b", "c"]) == set()
    (results / FOLD / "aaaa0000" / "test.csv").unlink()
    assert known(results) == {"x"}


# What is no longer as it was when a trial was scored: output -> its changes.
SINCE: dict[str, dict[str, Any]] = {
    "folds.json": {"settings": {"seed": 1}},
    "preprocessed.tsv": {"settings": {"spacing": 1}},
    f"{FOLD}/aaaa0000/model.safetensors": {"settings": {"seed": 1}},
    f"{FOLD}/aaaa0000/selection.csv": {"code": {"evaluation.metrics": "other"}},
}


@pytest.mark.parametrize("output", SINCE)
def test_scores_of_what_has_changed_since_are_not_known(output: str, results: Path) -> None:
    written(results, output, **SINCE[output])
    assert "trained" not in known(results)


def test_scores_of_an_interrupted_job_are_not_known(results: Path) -> None:
    path = path_of_origin(results, f"{FOLD}/aaaa0000/selection.csv")
    before = read_origin(path)
    assert before is not None
    write_origin(path, replace(before, finished=False))
    assert known(results) == {"x"}
