"""What a start finds done is known from the results: by a plan of a study with empty files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from support.forked import SEARCHED, from_one_that_imported_them
from support.studies import write_tiny
from support.workflows import REPOSITORY, planned
from voxelsoup.common.files import write_json
from voxelsoup.runs.record import RECORD, RunRecord, SavedState

NOTHING = "Nothing to be done"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with empty files, as if all of its jobs had ended."""
    folder = tmp_path_factory.mktemp("finished")
    write_tiny(folder)
    command = [sys.executable, str(REPOSITORY / "bench" / "dag.py"), "finish", "--nolock"]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", "study.yaml"]
    subprocess.run([*command, "--cores", "1", "--no-hooks"], cwd=folder, check=True)
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """Its results and study copied elsewhere, with new dates and nothing of Snakemake's own."""
    for file in sorted((finished / "results").rglob("*"), reverse=True):
        copy = tmp_path / file.relative_to(finished)
        if file.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        else:
            copy.mkdir(parents=True, exist_ok=True)
    write_tiny(tmp_path)
    return tmp_path


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkout of the project."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "rules", "workflow", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    return folder


def plan(folder: Path, *arguments: str, project: Path = REPOSITORY, succeeds: bool = True) -> str:
    """What a dry run says; with other arguments than -n, what a start says."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")]
    command += ["--configfile", "study.yaml", "--cores", "1", "--nolock", "--quiet", "rules"]
    result = subprocess.run(
        [*command, *(arguments or ["-n"])],
        cwd=folder,
        capture_output=True,
        text=True,
        # The library of the checkout is found by itself.
        env=from_one_that_imported_them() | {"PYTHONPATH": str(SEARCHED)},
    )
    printed = result.stdout + result.stderr
    assert (result.returncode == 0) == succeeds, printed[-6000:]
    return printed


def table(printed: str) -> dict[str, tuple[int, str]]:
    """What is to do -> how many jobs and why, by the table of a plan."""
    rows = re.findall(r"^(\S.*?)  +(\d+)  (\S.*)$", printed, re.MULTILINE)
    return {what: (int(count), why) for what, count, why in rows}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_copied_results_with_new_dates_are_done(study: Path) -> None:
    assert NOTHING in plan(study)


def test_results_are_done_from_another_folder_and_by_their_absolute_path(
    study: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    text = f"results: {study / 'results'}/\n{(study / 'study.yaml').read_text()}"
    (elsewhere / "study.yaml").write_text(text)
    assert NOTHING in plan(elsewhere)


def test_a_changed_setting_is_found_in_copied_results_and_named(study: Path) -> None:
    write_tiny(study, stem={"epochs": 41})
    assert table(plan(study))["stems to train"] == (1, "`stem.epochs` 40 -> 41")
    write_tiny(study, metrics={"surface_tolerance": 2.0})
    rows = table(plan(study))
    assert rows["trials to score"] == (2, "`metrics.surface_tolerance` 1.0 -> 2.0")
    assert not {"stems to train", "trials to train"} & rows.keys()


def test_a_new_trial_is_all_that_is_trained(study: Path) -> None:
    write_tiny(study, sweep={"grid": {"optimizer.lr": [0.01, 0.02, 0.03]}})
    rows = table(plan(study))
    assert (rows["trials to train"], rows["trials to score"]) == ((1, "new"), (1, "new"))
    assert "stems to train" not in rows


def test_a_deleted_trial_is_trained_again_and_no_other(study: Path) -> None:
    shutil.rmtree(next((study / "results/fold0/trials").iterdir()))
    printed = plan(study)
    assert table(printed)["trials to train"] == (1, "files missing")
    assert (planned(printed)["trial"], planned(printed)["evaluate"]) == (1, 1)


def test_a_file_that_was_copied_in_part_is_made_again(study: Path) -> None:
    (study / "results/fold0/basin.json").write_text("{")
    why = "fold0/basin.json has 1 bytes instead of 0"
    assert table(plan(study))["folds to measure barriers in"] == (1, why)


def test_other_words_and_dates_of_the_code_repeat_nothing(study: Path, project: Path) -> None:
    for file in (project / "workflow" / "scripts").glob("*.py"):
        file.write_text(file.read_text() + "\n# A remark.\n")
    edit(project / "src/voxelsoup/models/losses.py", '"""Losses', '"""Other losses')
    assert NOTHING in plan(study, project=project)


def test_changed_code_stops_the_start_until_the_user_has_decided(
    study: Path, project: Path
) -> None:
    edit(project / "src/voxelsoup/models/losses.py", "SURELY_NOT = -1e4", "SURELY_NOT = -1e3")
    printed = plan(study, project=project, succeeds=False)
    assert "code changed: losses: results/fold0/" in printed
    assert "on_code_change=keep" in printed and "on_code_change=redo" in printed
    redo = plan(study, "-n", "--config", "on_code_change=redo", project=project)
    assert table(redo)["stems to train"] == (1, "code changed: losses")

    assert NOTHING in plan(study, "--config", "on_code_change=keep", project=project)
    # Once is enough, and for the code of before they are what they were.
    assert NOTHING in plan(study, project=project)
    assert NOTHING in plan(study)


def test_a_run_that_would_continue_from_a_state_of_other_code_is_asked_about(study: Path) -> None:
    trial = next((study / "results/fold0/trials").iterdir())
    states = study / "results/.state/fold0/trials" / trial.name
    shutil.rmtree(trial)
    saved = SavedState({"settings": {}, "code": {"models.losses": "other"}}, 10)
    write_json(states / RECORD, asdict(RunRecord("stopped", "", steps=100, saved=saved)))
    assert "losses" in plan(study, succeeds=False)
    assert table(plan(study, "-n", "--config", "on_code_change=keep"))["trials to train"][0] == 1


def test_results_of_versions_without_origins_are_adopted_on_demand(study: Path) -> None:
    shutil.rmtree(study / "results/.state/origins")
    assert "nothing is written down of what it was made from" in plan(study, succeeds=False)
    assert NOTHING in plan(study, "--config", "on_code_change=keep")
    assert NOTHING in plan(study)


def test_a_plan_writes_nothing(study: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in (study / "results").rglob("*")}
    write_tiny(study, stem={"epochs": 41})
    plan(study)
    assert files == {path: path.stat().st_mtime_ns for path in (study / "results").rglob("*")}
