"""The final model: the folds choose what is trained on all cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from support.runs import SETTINGS
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_json
from voxelsoup.comparison.final import in_words
from voxelsoup.comparison.score_summary import means_of
from voxelsoup.runs.final_plan import trials_of_final
from voxelsoup.soups.candidates import Candidate
from voxelsoup.soups.final import BEST, KEPT, all_cases, final_plan
from voxelsoup.status.read_runs import known_runs
from voxelsoup.study.loading import load
from voxelsoup.study.trials import trials


def kept(*models: str) -> dict[str, Any]:
    return {"ingredients": [{"trial": model} for model in models]}


def scored(**scores: float) -> list[Candidate]:
    return [Candidate(model, True, score, "") for model, score in scores.items()]


def names(plan: dict[str, Any]) -> list[str]:
    return [one["model"] for one in plan["models"]]


ALL = {fold: scored(a=0.7, b=0.8, c=0.9) for fold in range(3)}


def test_trials_that_greedy_kept_in_at_least_half_of_the_folds_are_taken_best_first() -> None:
    plan = final_plan({0: kept("a", "b"), 1: kept("b"), 2: kept("c", "a")}, ALL, [])
    assert names(plan) == ["b", "a"] and plan["because"] == KEPT
    assert {one["model"]: one["kept_in"] for one in plan["models"]} == {"a": [0, 2], "b": [0, 1]}
    # Half of two folds is one.
    assert names(final_plan({0: kept("a"), 1: kept("b")}, ALL, [])) == ["b", "a"]


def test_without_any_the_best_by_mean_selection_score_is_taken() -> None:
    greedy = {0: kept("a"), 1: kept("b"), 2: kept("c")}
    candidates = {0: scored(a=0.9, b=0.5), 1: scored(a=0.4, b=0.9), 2: scored(a=0.4, b=0.4, c=1)}
    plan = final_plan(greedy, candidates, [])
    # `c` was dropped in two folds, whose cases may be harder.
    assert names(plan) == ["b"] and plan["because"] == BEST
    assert plan["models"][0]["selection_score"] == pytest.approx(0.6)


def tried(**scores: float | None) -> dict[str, Any]:
    listed = [{"lr": float(lr[1:]), "selection_score": s} for lr, s in scores.items()]
    return {"finish": {"tried": listed}}


def test_the_rate_is_that_of_the_highest_mean_selection_score() -> None:
    greedy = dict.fromkeys(range(2), kept("a"))
    finished = [tried(_1=0.7, _2=0.8), tried(_1=0.9, _2=0.7)]
    assert final_plan(greedy, ALL, finished)["lr"] == 1.0
    assert final_plan(greedy, ALL, [tried(_1=0.7, _2=0.8), tried(_1=None, _2=0.1)])["lr"] == 2.0
    assert final_plan(greedy, ALL, [])["lr"] is None
    with pytest.raises(InputError, match="each of 1, 2 diverged in some fold"):
        final_plan(greedy, ALL, [tried(_1=None, _2=0.8), tried(_1=0.9, _2=None)])


def test_all_cases_are_those_of_all_parts_of_all_folds() -> None:
    folds = {
        "0": {"training": ["b"], "selection": ["c"], "test": ["a"]},
        "1": {"training": ["a"], "selection": ["c"], "test": ["d"]},
    }
    assert all_cases(folds) == ["a", "b", "c", "d"]


def test_the_statement_has_the_expected_score_and_what_differs() -> None:
    rows = [
        pd.DataFrame(
            {"case": [f"{fold}{n}" for n in range(4)], "region": "WT", "dice": [0.8, 0.9, 0.7, 0.8]}
        ).assign(loss=0.1)
        for fold in range(2)
    ]
    plan = {"models": [{"model": "a"}, {"model": "b"}], "folds": 2, "lr": 0.003, "because": KEPT}
    expected, records = means_of(rows, {}), [kept("a"), kept("a", "b")]
    finished = " ".join(in_words(plan, 12, "train", expected, records))
    assert "2 trials" in finished and "all 12 labelled cases" in finished and "0.003" in finished
    assert "A mean Dice of 0.8000 [" in finished and "1 or 2 trials" in finished
    assert "the ensemble of its own trials" in finished
    averaged = " ".join(in_words(plan | {"lr": None}, 12, "none", expected, records[:1]))
    assert "finish" not in averaged and "from random weights" in averaged
    # Several checkpoints of one trial are several models.
    several = plan | {"models": [{"model": "a"}, {"model": "a/checkpoint-1"}]}
    of_checkpoints = " ".join(in_words(several, 12, "train", expected, records))
    assert "2 models of the study's trials" in of_checkpoints
    assert "1 or 2 models" in of_checkpoints and "2 trials" not in of_checkpoints


@pytest.mark.parametrize(
    ("soup", "message"),
    [
        ({"recipes": ["uniform"]}, "without a greedy soup"),
        ({"finish": {"of": "uniform"}}, "`final` with `soup.finish.of: uniform`"),
    ],
)
def test_a_final_model_needs_greedy_and_its_finish(soup: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(SETTINGS | {"final": True, "soup": soup})


def test_the_status_knows_the_runs_of_the_final_model_as_they_are_chosen(tmp_path: Path) -> None:
    sweep = {"grid": {"training.seed": [0, 1]}}
    study = load(
        SETTINGS | {"final": True, "sweep": sweep, "soup": {"finish": {}}, "results": str(tmp_path)}
    )
    found = trials(study)

    def of_final() -> list[str]:
        return [run.name for run in known_runs(study, found) if run.name.startswith("final/")]

    assert of_final() == ["final/stem", "final/finish"]
    plan = {"models": [{"model": f"{found[1].id}/raw-1"}, {"model": found[1].id}]}
    write_json(tmp_path / "final" / "plan.json", plan)
    assert trials_of_final(tmp_path) == [found[1].id]
    assert of_final() == ["final/stem", f"final/{found[1].id}", "final/finish"]
