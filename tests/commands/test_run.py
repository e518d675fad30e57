"""`voxelsoup run`, `demo` and `eject`, up to where Snakemake takes over (see tests/workflow)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from support.documents import REPOSITORY
from voxelsoup.commands.cli import main
from voxelsoup.common.workflow_files import workflow_files
from voxelsoup.runs.invocation import remember_study


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What this process was replaced by."""
    commands: list[list[str]] = []

    def become(program: str, command: list[str]) -> None:
        assert program == command[0]
        commands.append(command[3:])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    return commands


def start(*arguments: str) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "handed_on"),
    [
        ((), ()),
        (("-n", "--cores", "2"), ("-n", "--cores", "2")),
        (("--profile", "none", "evaluate"), ("evaluate",)),
        (("report", "--config", "a=1", "b=2"), ("report", "--config", "a=1", "b=2")),
        (("--config", "a=1", "--", "report"), ("--config", "a=1", "--", "report")),
        (("--forcerun", "x", "--profile", "none", "-k"), ("--forcerun", "x", "-k")),
    ],
)
def test_run_hands_on_what_is_snakemakes(
    arguments: tuple[str, ...], handed_on: tuple[str, ...], started: list[list[str]]
) -> None:
    Path("study.yaml").write_text("")
    start("run", "study.yaml", *arguments)
    ((*_, configfile, study, _, profile), options) = started[0][:6], tuple(started[0][6:])
    assert (configfile, study) == ("--configfile", "study.yaml")
    assert profile == ("none" if "none" in arguments else f"{REPOSITORY}/profiles/local")
    assert options == handed_on


def test_run_wants_the_study_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.yaml").write_text("")
    assert main(["run", "--cores", "2", "study.yaml"]) == 1
    assert "fix: name it first" in capsys.readouterr().err


def test_the_demo_leaves_its_study_to_be_read_changed_and_resumed(
    started: list[list[str]],
) -> None:
    start("demo", "-n")
    shipped = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert yaml.safe_load(Path("config.yaml").read_text()) == shipped
    first = Path("config.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={REPOSITORY}/schema/study.schema.json"
    start("demo")
    assert started[0] == [*started[1], "-n"]
    assert started[1][2:4] == ["--configfile", "config.yaml"]


def test_the_demo_touches_no_other_study(
    capsys: pytest.CaptureFixture[str], folder: Path, started: list[list[str]]
) -> None:
    Path("config.yaml").write_text("results: results\n")
    assert main(["demo"]) == 1
    assert "voxelsoup: config.yaml: is of another study" in capsys.readouterr().err
    Path("config.yaml").unlink()
    remember_study(folder / "results", [folder / "study.yaml"])
    assert main(["demo"]) == 1
    assert "voxelsoup: results: is of another study" in capsys.readouterr().err
    assert not started and not Path("config.yaml").exists()


def test_eject_writes_the_workflow_that_can_be_changed(folder: Path) -> None:
    Path("empty").mkdir()
    for name in ("new", "empty"):
        assert main(["eject", name]) == 0
        assert set(workflow_files(Path(name))) == set(workflow_files(REPOSITORY))
        assert Path(name, "Snakefile").read_bytes() == (REPOSITORY / "Snakefile").read_bytes()
        assert Path(name, "rules").stat().st_mode & stat.S_IWUSR


@pytest.mark.parametrize("place", ["file", "folder"])
def test_eject_replaces_nothing(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    Path("folder").mkdir()
    Path("folder/file").write_text("mine")
    assert main(["eject", place]) == 1
    assert "a new or an empty folder" in capsys.readouterr().err
    assert Path("file").read_text() == Path("folder/file").read_text() == "mine"
