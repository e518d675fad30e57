"""Successive halving: who goes on, what it spares, and that a rung is the beginning of the run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.runs import preprocess_phantom, small_study
from support.studies import copy_data, epochs_trained, run_locally, start_locally, write_tiny
from support.workflows import planned
from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.runs.guard import RunGuard
from voxelsoup.study.halving import (
    check_halving,
    kept_of,
    ranking,
    rung_epochs,
    rung_record,
    share_of_epochs,
    states_of_rung,
    trials_at_rungs,
)
from voxelsoup.study.sections.sweep import Halving
from voxelsoup.study.trials import trials
from voxelsoup.training.run import trial_run
from voxelsoup.training.train import train

CPU = torch.device("cpu")
halvings = st.builds(Halving, rungs=st.integers(2, 5), keep=st.floats(0.05, 0.95))


def test_a_third_goes_on_at_each_of_three_rungs() -> None:
    halving = Halving(rungs=3, keep=0.33)
    assert rung_epochs(halving, 90) == [10, 30, 90]
    assert trials_at_rungs(halving, 100) == [100, 33, 11]
    # 100 x 10 + 33 x 20 + 11 x 60 epochs instead of 100 x 90.
    assert share_of_epochs(halving, 90, 100) == pytest.approx(2320 / 9000)


@given(halvings, st.integers(1, 2000))
def test_somebody_always_goes_on_and_never_more_than_before(halving: Halving, count: int) -> None:
    counts = trials_at_rungs(halving, count)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 1
    assert all(now >= halving.keep * before - 1e-6 for before, now in pairwise(counts))


@given(halvings, st.integers(1, 1000), st.integers(1, 500))
def test_halving_never_costs_more_than_the_full_grid(
    halving: Halving, epochs: int, count: int
) -> None:
    assert rung_epochs(halving, epochs)[-1] == epochs
    assert share_of_epochs(halving, epochs, count) <= 1 + 1e-12


def test_a_share_that_is_a_whole_number_is_not_rounded_up() -> None:
    # In binary, 0.07 x 100 is a little more than 7.
    assert kept_of(Halving(rungs=2, keep=0.07), 100) == 7


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1) | st.just(math.nan), min_size=1))
def test_the_best_go_on_whatever_the_order(scores: dict[str, float]) -> None:
    record = rung_record(0, 1, 3, Halving(rungs=2, keep=0.5), scores)
    again = dict(reversed(scores.items()))
    assert record == rung_record(0, 1, 3, Halving(rungs=2, keep=0.5), again)
    numbers = {trial: -1 if math.isnan(score) else score for trial, score in scores.items()}
    dropped = [numbers[trial] for trial in scores if trial not in record["kept"]]
    assert min(numbers[trial] for trial in record["kept"]) >= max(dropped, default=-1)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_equal_scores_are_ranked_by_id() -> None:
    assert ranking({"b": 0.5, "a": 0.5, "c": math.nan, "d": 0.9}) == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    ("grid", "epochs", "said"),
    [
        (
            {"optimizer.schedule": ["schedule-free", "cosine"]},
            9,
            "learning rates depend on its len",
        ),
        ({"training.epochs": [9, 18]}, 9, "trials of one length"),
        ({"optimizer.lr": [0.01, 0.02]}, 2, "end after epochs 1, 1, 2"),
    ],
)
def test_what_cannot_be_halved_is_refused_with_the_reason(
    grid: dict[str, list[Any]], epochs: int, said: str
) -> None:
    halving = {"rungs": 3, "keep": 0.33}
    study = small_study(training={"epochs": epochs}, sweep={"grid": grid, "halving": halving})
    with pytest.raises(InputError, match=said):
        check_halving(Halving(**halving), trials(study), "config.yaml")


@pytest.mark.parametrize("checkpoints", [1, 3])
def test_a_run_continued_from_its_rung_is_the_straight_one_to_the_bit(
    phantom_folder: Path, tmp_path: Path, checkpoints: int
) -> None:
    cases = preprocess_phantom(phantom_folder, tmp_path / "cases")
    study = small_study(training={"epochs": 6, "checkpoints": checkpoints})
    run = trial_run(trials(study)[0], 0, cases, tmp_path / "cases", initial=None)
    straight = train(run, CPU)
    for end in (2, 4, None):
        with RunGuard(tmp_path / "states", run.settings(), run.steps, study.recovery) as guard:
            trained = train(replace(run, pause_after=end), CPU, guard)
            guard.finish()
    assert epochs_trained(tmp_path / "states") == [1, 2, 3, 4, 5, 6]
    assert trained.history.equals(straight.history)
    assert trained.beside.keys() == straight.beside.keys()
    for name, value in straight.weights.items():
        assert torch.equal(trained.weights[name], value)
    # A rung that is asked for afterwards is trained aside: the run's last state stays.
    rung = replace(run, pause_after=2)
    assert states_of_rung(tmp_path / "states", 1, rung.last_step) == tmp_path / "states/rung1"
    assert states_of_rung(tmp_path / "new", 1, rung.last_step) == tmp_path / "new"


GRID = {"optimizer.lr": [0.01, 0.02], "training.seed": [0, 1]}
HALVED = {"halving": {"rungs": 3, "keep": 0.5}}
TRAINING = {"epochs": 8, "steps_per_epoch": 5}


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A halved study of four trials, run into its report; for reading and planning only."""
    folder = tmp_path_factory.mktemp("halved")
    write_tiny(folder, stem={"epochs": 2}, training=TRAINING, sweep={"grid": GRID} | HALVED)
    plan = run_locally(folder, "-n", "--quiet", "rules")
    # What follows a rung is not known yet: the plan names the rungs and what waits for them.
    assert planned(plan)["rung"] == 4 and planned(plan)["halve"] == 2
    assert "2 of 4 trials go on, to epoch 4" in run_locally(folder, "-n")
    run_locally(folder)
    return folder


def kept(folder: Path, rung: int) -> list[str]:
    record = json.loads((folder / f"results/fold0/rungs/{rung}.json").read_text())
    found: list[str] = record["kept"]
    return found


def test_only_the_best_are_trained_to_their_end(halved: Path) -> None:
    assert len(kept(halved, 1)) == 2 and len(kept(halved, 2)) == 1
    assert kept(halved, 2)[0] in kept(halved, 1)
    trained = [epochs_trained(run) for run in halved.glob("results/.state/fold0/trials/*")]
    assert sorted(map(len, trained)) == [2, 2, 4, 8]
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in trained)
    models = [path.parent.name for path in halved.glob("results/fold0/trials/*/model.safetensors")]
    assert models == kept(halved, 2)


def test_the_report_and_the_tables_have_the_finalists(halved: Path) -> None:
    assert (halved / "results/report.html").is_file()
    listed = (halved / "results/fold0/candidates.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[0] for line in listed] == kept(halved, 2)


def test_the_list_of_trials_says_who_was_dropped(
    halved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(halved)
    assert main(["trials", "study.yaml", "--json"]) == 0
    states = {
        trial["id"]: trial["state"] for trial in json.loads(capsys.readouterr().out)["trials"]
    }
    assert {trial for trial, state in states.items() if state == "done"} == set(kept(halved, 2))
    assert sorted(states.values()) == ["done", "dropped", "dropped", "dropped"]


def test_the_status_says_who_was_dropped_and_where_it_stopped(
    halved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(halved)
    assert main(["status", "study.yaml", "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    shown = {
        trial: (row["state"], row["detail"], row["epoch"])
        for trial, row in rows.items()
        if trial != "stem"
    }
    after = {trial: 1 + (trial in kept(halved, 1)) for trial in shown}
    assert shown == {
        trial: ("done", "", 8)
        if trial in kept(halved, 2)
        else ("dropped", f"after rung {after[trial]}", 2 * after[trial])
        for trial in shown
    }
    assert all(row["selection_score"] is not None for row in rows.values())


def test_a_finished_study_repeats_nothing(halved: Path) -> None:
    assert "Nothing to be done" in run_locally(halved, "-n")


def test_a_new_trial_starts_with_the_first_rung(halved: Path) -> None:
    grid = GRID | {"training.seed": [0, 1, 2]}
    before = (halved / "study.yaml").read_text()
    try:
        write_tiny(halved, stem={"epochs": 2}, training=TRAINING, sweep={"grid": grid} | HALVED)
        plan = planned(run_locally(halved, "-n", "--quiet", "rules"))
    finally:
        (halved / "study.yaml").write_text(before)
    assert plan["rung"] == 2
    assert "stem" not in plan and "trial" not in plan and "evaluate" not in plan


def test_without_halving_the_dropped_go_on(halved: Path) -> None:
    before = (halved / "study.yaml").read_text()
    try:
        write_tiny(halved, stem={"epochs": 2}, training=TRAINING, sweep={"grid": GRID})
        printed = run_locally(halved, "-n")
    finally:
        (halved / "study.yaml").write_text(before)
    assert printed.count("continues after epoch 2 of 8") == 2
    assert printed.count("continues after epoch 4 of 8") == 1


def test_the_finalist_has_the_very_bytes_of_a_run_that_was_never_halved(
    halved: Path, tmp_path: Path
) -> None:
    (finalist,) = kept(halved, 2)
    model = f"results/fold0/trials/{finalist}/model.safetensors"
    copy_data(halved, tmp_path)
    write_tiny(tmp_path, stem={"epochs": 2}, training=TRAINING, sweep={"grid": GRID})
    run_locally(tmp_path, model)
    assert sha256(tmp_path / model) == sha256(halved / model)


def test_a_scheduled_trial_is_refused_before_anything_runs(tmp_path: Path) -> None:
    grid = {"optimizer.schedule": ["schedule-free", "constant"]}
    write_tiny(tmp_path, training=TRAINING, sweep={"grid": grid} | HALVED)
    assert start_locally(tmp_path, "-n").wait() != 0
    printed = (tmp_path / "printed.txt").read_text()
    assert "has the schedule `constant`" in printed and "Traceback" not in printed
