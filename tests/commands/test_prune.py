"""`voxelsoup prune`: what no study names is listed, and removed on `--yes`; nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fabricated_results import (
    begin,
    files_of,
    finish,
    finish_others,
    trials_in,
    write,
    write_study,
)
from voxelsoup.commands.cli import main
from voxelsoup.runs.invocation import RECORD, recorded_studies, remember_study
from voxelsoup.runs.lease import Lease

ONE_RATE = {"grid": {"optimizer.lr": [0.01]}}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study that has run: two folds with two trials, a stem and two soups each."""
    file, results = write_study(tmp_path), tmp_path / "results"
    for fold in (0, 1):
        for trial in trials_in(file):
            finish(results, fold, trial)
        finish_others(results, fold, ("greedy", "uniform"))
    for name in ("cases.tsv", "folds.json", "report.html", "models/manifest.tsv", "own/notes.txt"):
        write(results / name)
    write(results / "fold0" / "basin.json")
    for recipe in ("greedy", "uniform"):
        write(results / "figures" / f"differences_{recipe}.svg")
    for fold in (0, 1):
        write(results / "comparison" / f"fold{fold}.csv")
    remember_study(results, [file])
    return file


def pruned(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command prints; it must succeed."""
    assert main(["prune", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What is wrong; nothing else may be printed."""
    assert main(["prune", *map(str, arguments)]) == 1
    return capsys.readouterr().err


def about(folder: Path, *parts: str) -> set[str]:
    """The files in whose path one of the parts is."""
    return {name for name in files_of(folder) if any(part in name for part in parts)}


def test_prune_keeps_everything_that_the_study_names(study: Path, capsys) -> None:
    before = files_of(study.parent)
    for arguments in ([study], [study, "--yes"]):
        assert "There is nothing else." in pruned(capsys, *arguments)
        assert files_of(study.parent) == before


def test_soups_of_recipes_that_were_removed_are_listed(study: Path, capsys) -> None:
    finish_others(study.parent / "results", 0, ("learned",))
    assert "soup learned of fold 0" in pruned(capsys, study)


def test_the_finish_and_the_long_run_of_a_former_study_are_listed(study: Path, capsys) -> None:
    results, before = study.parent / "results", files_of(study.parent / "results")
    finished = {
        "fold0/finish/greedy/0.003/model.safetensors",
        "fold0/finish/targets.json",
        "fold0/soups/finished/recipe.json",
        "fold0/soups/finished-best/recipe.json",
        "fold0/soups/long-run/model.safetensors",
        ".state/fold0/finish/greedy/0.003/status.json",
        ".state/fold0/targets/a.npy",
        ".state/fold0/long-run/status.json",
        "logs/fold0/finish/greedy/0.003.log",
        "logs/fold0/finish_targets.log",
        "figures/differences_finished-best.svg",
    }
    for name in finished:
        write(results / name)
    soup = {"recipes": ["greedy", "uniform"], "finish": {}}
    write_study(study.parent, soup=soup, comparison={"long_run": True})
    assert "There is nothing else." in pruned(capsys, study)
    write_study(study.parent)
    printed = pruned(capsys, study)
    for name in ("finishes", "soup finished", "soup finished-best", "soup long-run"):
        assert f"{name} of fold 0\n" in printed
    assert "figures of soup finished-best" in printed
    pruned(capsys, study, "--yes")
    assert files_of(results) == before


def test_a_removed_value_is_listed_with_its_size_and_removed_if_asked(study: Path, capsys) -> None:
    results, (_, removed) = study.parent / "results", trials_in(study)
    write_study(study.parent, sweep=ONE_RATE)
    before = files_of(results)
    write(results / "fold1" / "trials" / removed.id / "model.safetensors", "x" * 7_000_000)
    printed = pruned(capsys, study)
    assert f"7.0 MB  trial {removed.id} of fold 1" in printed
    assert f"0.0 MB  trial {removed.id} of fold 0" in printed
    assert "7.0 MB  in all. Nothing was removed" in printed
    assert before <= files_of(results)
    expected = before - about(results, removed.id)
    assert f"removed: trial {removed.id} of fold 0" in pruned(capsys, study, "--yes")
    assert files_of(results) == expected
    assert not list(results.rglob(f"*{removed.id}*"))
    assert "There is nothing else." in pruned(capsys, study)


def test_folds_soups_and_stems_that_no_study_names_are_removed(study: Path, capsys) -> None:
    results, before = study.parent / "results", files_of(study.parent / "results")
    folds = {"count": 3, "run": [0]}
    write_study(study.parent, folds=folds, stem="none", soup={"recipes": ["uniform"]})
    printed = pruned(capsys, study, "--yes")
    for name in (
        "fold 1",
        "stem of fold 0",
        "soup greedy of fold 0",
        "figures of soup greedy",
        "tables of fold 1",
    ):
        assert f"removed: {name}\n" in printed
    assert before - files_of(results) == {
        name for name in before if "fold1" in name or "stem" in name or "greedy" in name
    }


def test_another_study_of_the_same_folder_keeps_its_own(study: Path, capsys) -> None:
    results, before = study.parent / "results", files_of(study.parent / "results")
    other = write_study(study.parent, "other.yaml", sweep={"grid": {"optimizer.lr": [0.02]}})
    remember_study(results, [other])
    write_study(study.parent, sweep=ONE_RATE, folds={"count": 3, "run": [0]})
    printed = pruned(capsys, study, "--yes")
    assert str(study) in printed and str(other) in printed
    # The value that the first study has given up is the other one's, and fold 1 is too.
    (own,) = trials_in(study)
    assert before - files_of(results) == {
        name for name in before if own.id in name and "fold1" in name
    }


def test_a_recorded_study_that_is_gone_is_named_and_keeps_nothing(study: Path, capsys) -> None:
    results, (_, second) = study.parent / "results", trials_in(study)
    other = write_study(study.parent, "other.yaml")
    remember_study(results, [other])
    write_study(study.parent, sweep=ONE_RATE)
    assert "There is nothing else." in pruned(capsys, study)
    other.unlink()
    printed = pruned(capsys, study)
    assert f"{other} is gone" in printed
    assert f"trial {second.id} of fold 0" in printed


def test_a_recorded_study_that_cannot_be_read_stops_everything(study: Path, capsys) -> None:
    results = study.parent / "results"
    other = write_study(study.parent, "other.yaml")
    remember_study(results, [other])
    other.write_text("sweep: [")
    write_study(study.parent, sweep=ONE_RATE)
    before = files_of(results)
    assert f"{other}: is not YAML" in refused(capsys, study, "--yes")
    assert files_of(results) == before


def test_studies_of_several_files_are_merged_as_snakemake_does(study: Path, capsys) -> None:
    results = study.parent / "results"
    write(change := study.parent / "change.yaml", "sweep: {grid: {optimizer.lr: [0.02]}}")
    (results / RECORD).unlink()
    remember_study(results, [study, change])
    remember_study(results, [study, change])
    assert recorded_studies(results) == [(study, change)]
    only_first = write_study(study.parent, "first.yaml", sweep=ONE_RATE)
    assert f"{study} + {change}" in pruned(capsys, only_first)
    assert "There is nothing else." in pruned(capsys, only_first)


def test_a_run_that_is_alive_is_left_alone(study: Path, capsys) -> None:
    results, (_, removed) = study.parent / "results", trials_in(study)
    write_study(study.parent, sweep=ONE_RATE)
    with Lease(begin(results, 0, removed), 60):
        assert f"trial {removed.id} of fold 0, in use" in pruned(capsys, study)
        printed = pruned(capsys, study, "--yes")
        assert f"not removed, because it is in use: trial {removed.id} of fold 0" in printed
        assert f"removed: trial {removed.id} of fold 1" in printed
        left = about(results, removed.id)
        assert left and all("fold0" in name for name in left)
        # Nor is a fold removed that a run of it is alive in.
        write_study(study.parent, folds={"count": 3, "run": [1]})
        assert "not removed, because it is in use: fold 0" in pruned(capsys, study, "--yes")
        assert about(results, "fold0")
    pruned(capsys, study, "--yes")
    assert not about(results, "fold0")


def test_while_a_snakemake_works_nothing_is_removed(study: Path, capsys) -> None:
    results = study.parent / "results"
    write_study(study.parent, sweep=ONE_RATE)
    before = files_of(results)
    with Lease(results / ".state", 60):
        assert "trial" in pruned(capsys, study)
        assert "nothing was removed" in refused(capsys, study, "--yes")
    assert files_of(results) == before
    pruned(capsys, study, "--yes")
    assert files_of(results) < before


def test_nothing_behind_a_symbolic_link_is_touched(study: Path, capsys) -> None:
    results, (_, removed) = study.parent / "results", trials_in(study)
    write_study(study.parent, sweep=ONE_RATE)
    elsewhere = study.parent / "elsewhere"
    elsewhere.mkdir()
    # A fold that was moved to another disk, and a trial too.
    (results / "fold1").rename(elsewhere / "fold1")
    (results / "fold1").symlink_to(elsewhere / "fold1")
    (results / "fold0" / "trials" / removed.id).rename(elsewhere / "trial")
    (results / "fold0" / "trials" / removed.id).symlink_to(elsewhere / "trial")
    before = files_of(elsewhere)
    printed = pruned(capsys, study, "--yes")
    assert f"{results / 'fold1'} is a symbolic link" in printed
    assert files_of(elsewhere) == before
    assert not (results / "fold0" / "trials" / removed.id).is_symlink()
    assert (results / "fold1").is_symlink()


def test_prune_leaves_a_living_run_before_a_rung_alone(study: Path, capsys) -> None:
    results, (_, removed) = study.parent / "results", trials_in(study)
    write_study(study.parent, sweep=ONE_RATE)
    with Lease(begin(results, 0, removed) / "rung1", 60):
        printed = pruned(capsys, study, "--yes")
    assert f"not removed, because it is in use: trial {removed.id} of fold 0" in printed
    assert f"removed: trial {removed.id} of fold 1" in printed


def test_prune_of_a_study_without_results_finds_nothing(tmp_path: Path, capsys) -> None:
    study = write_study(tmp_path, results=str(tmp_path / "nowhere"))
    for options in ([], ["--yes"]):
        printed = pruned(capsys, study, *options)
        assert "nothing to prune" in printed and str(tmp_path / "nowhere") in printed
    assert not (tmp_path / "nowhere").exists()


def test_mistakes_are_reported(study: Path, tmp_path: Path, capsys) -> None:
    elsewhere = write_study(tmp_path, "elsewhere.yaml", results=str(tmp_path / "nowhere"))
    assert "different results folders" in refused(capsys, study, elsewhere)
    assert "no such file" in refused(capsys, tmp_path / "missing.yaml")


def test_the_record_names_every_study_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("a.yaml", "b.yaml", tmp_path / "a.yaml"):
        remember_study(tmp_path / "results", [file])
    lines = (tmp_path / "results" / RECORD).read_text().splitlines()
    assert lines == [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
