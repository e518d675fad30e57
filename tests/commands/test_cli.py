"""The command `voxelsoup`: what it prints, and how it says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from voxelsoup import __version__
from voxelsoup.commands.cli import main
from voxelsoup.study.loading import load
from voxelsoup.study.study import Study
from voxelsoup.study.trials import trials

CONFIG = {
    "dataset": {"layout": "phantom", "channels": ["t1n"]},
    "regions": {"WT": [1, 2, 3]},
    "folds": {"count": 3},
    "network": {"size": "S"},
    "sweep": {"grid": {"optimizer.lr": [0.01, 0.02], "training.loss": ["dice", "dice-bce"]}},
}
HALVED_COSINE = {"grid": {"optimizer.schedule": ["schedule-free", "cosine"]}, "halving": {}}
SUPERVISED = {"name": "DynUNet", "deep_supervision": True}


@pytest.fixture
def write(tmp_path: Path):
    """Write a study file that differs from ``CONFIG`` in the given sections."""

    def written(**changes: object) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(CONFIG | changes))
        return path

    return written


def test_version_names_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"voxelsoup {__version__}\n"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("voxelsoup st", ["status", "stop"]),
        ("voxelsoup status --so", ["--sort"]),
        ("voxelsoup pr", ["predict", "prune"]),
    ],
)
def test_a_shell_completes_commands_and_options_without_importing_torch(
    tmp_path: Path, line: str, offered: list[str]
) -> None:
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n"}
    command = [sys.executable, "-X", "importtime", "-m", "voxelsoup.commands.cli"]
    result = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True)
    assert sorted(word.strip() for word in answer.read_text().splitlines()) == offered
    imported = {text.rpartition("|")[2].strip() for text in result.stderr.splitlines()}
    assert "argcomplete" in imported
    assert not imported & {"torch", "monai", "pandas"}


def test_check_counts_the_runs(write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write())]) == 0
    # 3 folds, each with a stem and 2 x 2 trials.
    assert "4 trials x 3 folds + 3 stems = 15 runs" in capsys.readouterr().out
    assert main(["check", str(write(stem="none"))]) == 0
    assert "4 trials x 3 folds + 0 stems = 12 runs" in capsys.readouterr().out


def test_trials_lists_every_id_with_its_parameters(write, capsys) -> None:
    assert main(["trials", str(write())]) == 0
    lines = capsys.readouterr().out.splitlines()
    for trial in trials(load(CONFIG)):
        (line,) = [line for line in lines if trial.id in line]
        assert all(str(value) in line for value in trial.parameters.values())


@pytest.mark.parametrize(
    ("command", "changes", "named"),
    [
        ("check", {"folds": {"cuont": 3}}, "did you mean `count`"),
        ("check", {"dataset": {"layout": "brats", "root": "/no/such", "channels": ["a"]}}, "/no"),
        ("check", {"sweep": HALVED_COSINE}, "has the schedule `cosine`"),
        ("check", {"folds": {"file": "no/such.json"}}, "folds.file: there is no file no/such.json"),
        ("check", {"network": SUPERVISED}, "`network.arguments: {deep_supervision: true, "),
        ("trials", {"sweep": {"grid": {"network.size": ["S", "B"]}}}, "network.size"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_1(write, capsys, command, changes, named) -> None:
    assert main([command, str(write(**changes))]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("voxelsoup: ") and named in captured.err
    assert "Traceback" not in captured.err and "fix:" in captured.err


def test_check_refuses_a_pattern_of_cases_that_fits_none(
    write, capsys, phantom_folder: Path, tmp_path: Path
) -> None:
    dataset = {"layout": "brats", "root": str(phantom_folder)}
    dataset |= {"channels": ["t1n", "t1c", "t2w", "t2f"], "not_annotated": {"SITE_*": ["ET"]}}
    regions = {"WT": [1, 2, 3], "ET": [3]}
    assert main(["check", str(write(dataset=dataset, regions=regions))]) == 1
    assert "names `SITE_*`, which no case of the data set is called" in capsys.readouterr().err

    # It may be of a test set alone.
    (tmp_path / "other" / "SITE_1").mkdir(parents=True)
    comparison = {"test_sets": {"other": str(tmp_path / "other")}}
    assert main(["check", str(write(dataset=dataset, regions=regions, comparison=comparison))]) == 0


def test_a_missing_study_is_named(tmp_path: Path, capsys) -> None:
    assert main(["check", str(tmp_path / "nowhere.yaml")]) == 1
    assert "nowhere.yaml: no such file" in capsys.readouterr().err


def test_reference_writes_files_that_it_then_finds_current(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reference", "--check"]) == 1
    assert "run `voxelsoup reference`" in capsys.readouterr().err
    assert main(["reference"]) == 0
    assert main(["reference", "--check"]) == 0
    (tmp_path / "docs" / "configuration.md").write_text("stale")
    assert main(["reference", "--check"]) == 1


def test_the_reference_states_the_defaults_that_a_study_gets(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["reference"])
    text = (tmp_path / "docs" / "configuration.md").read_text()
    study = load(CONFIG)
    for section in ("preprocess", "training", "evaluation", "tables"):
        needs = getattr(study.resources, section)
        part = text.split(f"## `resources.{section}`\n")[1].split("\n## ")[0]
        for key in ("threads", "gpu", "mem_mb", "runtime"):
            (line,) = [line for line in part.splitlines() if line.startswith(f"| `{key}` |")]
            assert f"| `{getattr(needs, key)}` |" in line
    for key in Study.model_fields:
        assert f"| `{key}` |" in text
