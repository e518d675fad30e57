"""`voxelsoup trials`: every trial, how far it has come, and those that the study does not name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.fabricated_results import begin, files_of, finish, trials_in, write, write_study
from voxelsoup.commands.cli import main
from voxelsoup.common.files import read_json, write_json
from voxelsoup.runs.lease import Lease

GRID = {"optimizer.lr": [0.01, 0.02], "training.seed": [0, 1]}


def listed(study: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, Any]]]:
    assert main(["trials", str(study), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def states(study: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [trial["state"] for trial in listed(study, capsys)["trials"]]


def test_before_anything_ran_all_trials_are_new(tmp_path: Path, capsys) -> None:
    study = write_study(tmp_path, sweep={"grid": GRID})
    assert main(["trials", str(study)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for trial in trials_in(study):
        (line,) = [line for line in lines if trial.id in line]
        assert [cell.strip() for cell in line.strip("│").split("│")] == [
            trial.id,
            *map(str, trial.parameters.values()),
            "new",
        ]
    assert lines[-1] == "4 trials x 2 folds: 8 new."
    assert not (tmp_path / "results").exists()


def test_every_state_is_counted_over_all_folds(tmp_path: Path, capsys) -> None:
    study = write_study(tmp_path, sweep={"grid": GRID})
    results = tmp_path / "results"
    done, partly, running, stopped = trials_in(study)
    for fold in (0, 1):
        finish(results, fold, done)
    finish(results, 1, partly)
    begin(results, 0, stopped)
    before = files_of(results)
    with Lease(begin(results, 1, running), 60), Lease(begin(results, 0, partly), 60):
        found = listed(study, capsys)["trials"]
        assert [trial["state"] for trial in found] == [
            "done",
            "1 of 2 folds done, 1 running",
            "0 of 2 folds done, 1 running",
            "0 of 2 folds done, 1 stopped",
        ]
        assert found[1]["folds"] == {"0": "running", "1": "done"}
        assert found[1]["parameters"] == partly.parameters
        main(["trials", str(study)])
        summary = capsys.readouterr().out.splitlines()[-1]
        assert summary == "4 trials x 2 folds: 3 done, 2 running, 1 stopped, 2 new."
    # Both runs have ended, and handed their leases back.
    assert "running" not in " ".join(states(study, capsys))
    # It only looks.
    assert files_of(results) - before == {
        f".state/fold1/trials/{running.id}/status.json",
        f".state/fold0/trials/{partly.id}/status.json",
    }


def test_a_trial_that_diverged_is_listed_as_that_until_its_settings_change(
    tmp_path: Path, capsys
) -> None:
    study = write_study(tmp_path, folds={"count": 2, "run": [0]})
    trained, diverged = trials_in(study)
    finish(tmp_path / "results", 0, trained)
    finish(tmp_path / "results", 0, diverged)
    record = tmp_path / "results/fold0/trials" / diverged.id / "run.json"
    write_json(record, read_json(record) | {"diverged": {"epoch": 1, "step": 3}})
    assert states(study, capsys) == ["done", "diverged"]
    write_study(tmp_path, folds={"count": 2, "run": [0]}, training={"augmentation": "none"})
    assert states(study, capsys) == ["outdated", "outdated"]


@pytest.mark.parametrize(("age", "state"), [(10, "running"), (100, "lost")])
def test_a_run_on_another_host_lives_as_long_as_its_lease_changes(
    tmp_path: Path, capsys, age: float, state: str
) -> None:
    study = write_study(tmp_path, folds={"count": 2, "run": [0]})
    folder = begin(tmp_path / "results", 0, trials_in(study)[0])
    with Lease(folder, 60) as lease:
        assert lease.path is not None
        owner, path = json.loads(lease.path.read_text()), lease.path
    (path.with_name(path.name + ".released")).unlink()
    path.write_text(json.dumps(owner | {"host": "elsewhere", "boot": "another"}))
    changed = path.stat().st_mtime - age
    os.utime(path, (changed, changed))
    assert states(study, capsys) == [state, "new"]
    # The process has ended here, which its own host would know.
    path.write_text(json.dumps(owner | {"started": 1}))
    assert states(study, capsys) == ["lost", "new"]


@pytest.mark.parametrize("changes", [{"augmentation": "none"}, {"epochs": 200}])
def test_runs_that_a_changed_base_setting_trains_again_are_outdated(
    tmp_path: Path, capsys, changes: dict[str, Any]
) -> None:
    study = write_study(tmp_path)
    for fold in (0, 1):
        for trial in trials_in(study):
            finish(tmp_path / "results", fold, trial)
    assert states(study, capsys) == ["done", "done"]
    write_study(tmp_path, training=changes)
    assert states(study, capsys) == ["outdated", "outdated"]


def test_a_removed_value_is_listed_below_with_its_settings(tmp_path: Path, capsys) -> None:
    study = write_study(tmp_path)
    kept, removed = trials_in(study)
    for trial in (kept, removed):
        finish(tmp_path / "results", 0, trial)
    # States alone, whose settings no record holds, and a folder that is no trial.
    write(tmp_path / "results/.state/fold1/trials/0123abcd/status.json", "{}")
    write(tmp_path / "results/fold0/trials/notes.txt")
    write_study(tmp_path, sweep={"grid": {"optimizer.lr": [0.01]}})
    found = listed(study, capsys)
    assert [trial["id"] for trial in found["trials"]] == [kept.id]
    assert {trial["id"]: trial["parameters"] for trial in found["not_in_the_study"]} == {
        removed.id: {"optimizer.lr": 0.02},
        "0123abcd": None,
    }
    main(["trials", str(study)])
    printed = capsys.readouterr().out
    assert printed.index("not in this study") < printed.index(removed.id)
    assert "2 trials in" in printed and "`voxelsoup prune` lists what no study names" in printed


def test_trials_may_have_different_keys(tmp_path: Path, capsys) -> None:
    trials = [{"optimizer.lr": 0.5}, {"training.loss": "dice"}]
    study = write_study(tmp_path, sweep={"trials": trials})
    assert [trial["parameters"] for trial in listed(study, capsys)["trials"]] == [
        {"optimizer.lr": 0.5, "training.loss": "dice-bce"},
        {"optimizer.lr": 0.0027, "training.loss": "dice"},
    ]
