"""A tracker that is not installed is said before anything is computed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.fabricated_results import write_study
from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.study.sections.tracking import Tracking
from voxelsoup.tracking.installed import check_installed


def test_check_ends_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Python takes None for a package that is missing; torch is not asked for either.
    for package in ("mlflow", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main(["check", str(write_study(tmp_path, tracking="mlflow"))]) == 1
    said = capsys.readouterr().err
    assert "`tracking: mlflow` needs the package mlflow" in said
    assert "pip install 'voxelsoup[mlflow]'" in said


def test_a_folder_of_offline_runs_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [one for one in sys.meta_path if "Path" in str(one)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(InputError, match="needs the package wandb"):
        check_installed(Tracking(tool="wandb"), "study.yaml")


def test_a_study_without_a_tracker_needs_nothing() -> None:
    assert check_installed(Tracking(), "study.yaml") is None


def test_track_without_a_tracker_names_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["track", str(write_study(tmp_path))]) == 1
    assert "expected: `tracking: mlflow` or `tracking: wandb`" in capsys.readouterr().err
