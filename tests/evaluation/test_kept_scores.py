"""Scores that a training leaves for the rule that asks for them."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from support.runs import small_study
from voxelsoup.evaluation import run_scores
from voxelsoup.evaluation.case_scores import COLUMNS
from voxelsoup.evaluation.kept_scores import KeptScores, identities_of, kept_scores
from voxelsoup.evaluation.run_scores import score_at_once

FOLD = {"selection": ["s1", "s2"], "test": ["t1"], "training": []}
FINGERPRINTS = {"s1": "a", "s2": "b", "t1": "c"}


def rows_of(*cases: str) -> pd.DataFrame:
    """Scores with all that JSON has no numbers of."""
    rows = [
        {"case": case, "region": region, "dice": 1 / 3, "loss": np.nan, "hd95": np.inf}
        for case in cases
        for region in ("TC", "WT")
    ]
    return pd.DataFrame(rows)


def known(tmp_path: Path, weights: str = "model") -> KeptScores:
    model = tmp_path / f"{weights}.safetensors"
    model.write_text(weights)
    return KeptScores(tmp_path / "scores", model, {"s1": "1", "s2": "2", "t1": "3"})


def test_kept_rows_are_read_back_exactly_in_the_order_of_the_cases(tmp_path: Path) -> None:
    known(tmp_path).keep(rows_of("t1", "s1"))
    again = known(tmp_path)
    assert again.missing == ["s2"]
    expected = rows_of("s1", "t1")
    pd.testing.assert_frame_equal(again.rows(["t1", "s1"], ["hd95"]), expected, check_exact=True)
    assert list(again.rows(["s1"]).columns) == COLUMNS


def test_what_a_crash_cut_off_is_missing(tmp_path: Path) -> None:
    scores = known(tmp_path)
    scores.keep(rows_of("s1"))
    scores.keep(rows_of("s2"))
    scores.path.write_bytes(scores.path.read_bytes()[:-20])
    assert known(tmp_path).missing == ["s2", "t1"]


def test_scores_of_other_weights_or_of_another_identity_are_not_known(tmp_path: Path) -> None:
    scores = known(tmp_path)
    scores.keep(rows_of("s1", "s2", "t1"))
    assert known(tmp_path, "other").missing == ["s1", "s2", "t1"]
    changed = KeptScores(scores.path.parent, scores.model, {"s1": "1", "s2": "new", "t1": "3"})
    assert changed.missing == ["s2"]


def test_files_of_the_same_weights_share_their_scores(tmp_path: Path) -> None:
    models = [tmp_path / name for name in ("own", "same", "other")]
    for model, weights in zip(models, ("x", "x", "y"), strict=True):
        model.write_text(weights)
    own, same, other = kept_scores(models, tmp_path, small_study(), FOLD, FINGERPRINTS)
    assert own is same
    assert own is not other


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"dataset": {"root": "elsewhere"}}, []),
        ({"training": {"epochs": 9}}, []),
        ({"metrics": {"names": ["nsd"]}}, ["t1"]),
        ({"metrics": {"surface_tolerance": 9.0}}, ["t1"]),
        ({"evaluation": {"overlap": 0.75}}, ["s1", "s2", "t1"]),
        ({"training": {"patch": [16, 16, 32]}}, ["s1", "s2", "t1"]),
        ({"dataset": {"not_annotated": {"s2": ["ET"]}}}, ["s2"]),
    ],
)
def test_the_identity_of_a_score_is_what_it_depends_on(
    changes: dict[str, object], differ: list[str]
) -> None:
    def identities(study_changes: dict[str, object], **fingerprints: str) -> dict[str, str]:
        study = small_study(**study_changes)
        return identities_of(study, FINGERPRINTS, ["t1"], FINGERPRINTS | fingerprints)

    before, now = identities({}), identities(changes)
    assert [case for case in FINGERPRINTS if before[case] != now[case]] == differ
    other_case = identities({}, s1="z")
    assert [case for case in FINGERPRINTS if before[case] != other_case[case]] == ["s1"]


def test_a_training_leaves_what_it_cannot_score_to_the_rule(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_text("no weights")
    study, cpu = small_study(), torch.device("cpu")
    with caplog.at_level(logging.WARNING):
        score_at_once([model], tmp_path, FOLD, tmp_path, FINGERPRINTS, study, cpu)
    (record,) = caplog.records
    assert "left to the rule `evaluate`" in record.getMessage()
    assert str(model) in record.getMessage()


def test_scores_that_would_take_too_long_are_left_to_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, asked = known(tmp_path), []

    def scored(model: object, cases: list[str], *_: object, **__: object) -> pd.DataFrame:
        asked.append(cases)
        return rows_of(*cases)

    monkeypatch.setattr(run_scores, "AT_ONCE", 2)
    monkeypatch.setattr(run_scores, "load_model", lambda *_: None)
    monkeypatch.setattr(run_scores, "score_cases", scored)
    run_scores.score_models([scores], FOLD, tmp_path, small_study(), torch.device("cpu"), -1)
    assert (asked, scores.missing) == ([], ["s1", "s2", "t1"])
    monkeypatch.setattr(run_scores.time, "monotonic", iter([0.0, 1.0, 9.0]).__next__)
    run_scores.score_models([scores], FOLD, tmp_path, small_study(), torch.device("cpu"), 5)
    # What was scored in time is kept.
    assert (asked, known(tmp_path).missing) == ([["s1", "s2"]], ["t1"])


@pytest.mark.parametrize("rule", ["evaluate", "evaluate_soups", "postprocessing"])
def test_known_scores_are_written_down_without_starting_torch(rule: str) -> None:
    script = Path(__file__).parents[2] / f"workflow/scripts/{rule}.py"
    tree = ast.parse(script.read_text())
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.ImportFrom)]
    code = "\n".join([*imports, "import sys", "print({'torch', 'monai'} & sys.modules.keys())"])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
