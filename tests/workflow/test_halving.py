"""Successive halving of whole studies: a rung begins a run, and dropped trials stop there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.halving import DIVERGES, GRID, HALVED, TRAINING, write_halved
from support.runs import preprocess_phantom, small_study
from support.studies import copy_data, epochs_trained, run_locally, start_locally, write_tiny
from support.workflows import planned
from voxelsoup.commands.cli import main
from voxelsoup.common.files import sha256
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.rungs import states_of_rung
from voxelsoup.study.trials import trials
from voxelsoup.training.run import trial_run
from voxelsoup.training.train import train

CPU = torch.device("cpu")


@pytest.mark.parametrize("checkpoints", [1, 3])
def test_a_run_continued_from_its_rung_is_bit_identical_to_an_uninterrupted_one(
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


# Epochs at the end of the rungs.
ENDS = [1, 3, 8]


def kept(folder: Path, rung: int) -> list[str]:
    record = json.loads((folder / f"results/fold0/rungs/{rung}.json").read_text())
    found: list[str] = record["kept"]
    return found


def test_only_the_best_are_trained_to_their_end(halved: Path) -> None:
    assert len(kept(halved, 1)) == 2 and len(kept(halved, 2)) == 1
    assert kept(halved, 2)[0] in kept(halved, 1)
    trained = [epochs_trained(run) for run in halved.glob("results/.state/fold0/trials/*")]
    assert sorted(map(len, trained)) == [0, 1, 1, 3, 8]
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in trained)
    models = [path.parent.name for path in halved.glob("results/fold0/trials/*/model.safetensors")]
    assert models == kept(halved, 2)


def test_the_report_and_the_tables_have_the_finalists(halved: Path) -> None:
    assert (halved / "results/report.html").is_file()
    listed = (halved / "results/fold0/candidates.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[0] for line in listed] == kept(halved, 2)
    methods = (halved / "results/report/methods.md").read_text()
    assert "all trials of a fold were trained to epoch 1" in methods
    assert "One run diverged (NaN or infinite loss or weights) and is left out" in methods


def test_the_list_of_trials_says_which_were_dropped(
    halved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(halved)
    assert main(["trials", "study.yaml", "--json"]) == 0
    states = {
        trial["id"]: trial["state"] for trial in json.loads(capsys.readouterr().out)["trials"]
    }
    assert {trial for trial, state in states.items() if state == "done"} == set(kept(halved, 2))
    assert sorted(states.values()) == ["diverged", "done", "dropped", "dropped", "dropped"]


def test_the_status_says_which_trial_was_dropped_and_where_it_stopped(
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
    (diverged,) = (trial for trial, row in rows.items() if row["state"] == "diverged")
    assert shown.pop(diverged) == ("diverged", "at epoch 1, step 2", 0)
    after = {trial: 1 + (trial in kept(halved, 1)) for trial in shown}
    assert shown == {
        trial: ("done", "", 8)
        if trial in kept(halved, 2)
        else ("dropped", f"after rung {after[trial]}", ENDS[after[trial] - 1])
        for trial in shown
    }
    scored = {name for name, row in rows.items() if row["selection_score"] is not None}
    assert scored == {"stem", *shown}


def test_a_finished_study_repeats_nothing(halved: Path) -> None:
    assert "Nothing to be done" in run_locally(halved, "-n")


def test_a_new_trial_starts_with_the_first_rung(halved: Path) -> None:
    grid = GRID | {"training.seed": [0, 1, 2]}
    before = (halved / "study.yaml").read_text()
    try:
        write_halved(halved, {"grid": grid} | DIVERGES | HALVED)
        plan = planned(run_locally(halved, "-n", "--quiet", "rules"))
    finally:
        (halved / "study.yaml").write_text(before)
    assert plan["rung"] == 2
    assert "stem" not in plan and "trial" not in plan and "evaluate" not in plan


def test_without_halving_dropped_trials_continue(halved: Path) -> None:
    before = (halved / "study.yaml").read_text()
    try:
        write_halved(halved, {"grid": GRID})
        printed = run_locally(halved, "-n")
    finally:
        (halved / "study.yaml").write_text(before)
    assert printed.count("continues after epoch 1 of 8") == 2
    assert printed.count("continues after epoch 3 of 8") == 1


def test_a_finalist_is_bit_identical_to_a_run_without_halving(halved: Path, tmp_path: Path) -> None:
    (finalist,) = kept(halved, 2)
    model = f"results/fold0/trials/{finalist}/model.safetensors"
    copy_data(halved, tmp_path)
    write_halved(tmp_path, {"grid": GRID})
    run_locally(tmp_path, model)
    assert sha256(tmp_path / model) == sha256(halved / model)


def test_a_scheduled_trial_is_refused_before_anything_runs(tmp_path: Path) -> None:
    grid = {"optimizer.schedule": ["schedule-free", "constant"]}
    write_tiny(tmp_path, training=TRAINING, sweep={"grid": grid} | HALVED)
    assert start_locally(tmp_path, "-n").wait() != 0
    printed = (tmp_path / "printed.txt").read_text()
    assert "has the schedule `constant`" in printed and "Traceback" not in printed
