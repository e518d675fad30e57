"""The study as it was when it was started."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.workflows import REPOSITORY
from voxelsoup.common.code_version import check_started_with
from voxelsoup.runs.snapshot import (
    KEPT,
    STARTS,
    last_start,
    record_beside,
    write_copy,
    write_snapshot,
)
from voxelsoup.study.loading import load, read

STUDIES = [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "examples").glob("*.yaml"))]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_snapshot_is_read_as_the_very_study(file: Path, tmp_path: Path) -> None:
    study = read(file)
    content = study.model_dump(mode="json", exclude_unset=True)
    snapshot = write_snapshot(tmp_path, content, [file])
    assert snapshot.name == file.name
    assert load(yaml.safe_load(snapshot.read_text()), str(snapshot)) == study


def test_paths_of_a_snapshot_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANS", "/data/scans")
    content = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    content |= {"results": "$SCANS/../out/"}
    study = load(content)
    snapshot = write_snapshot(tmp_path, study.model_dump(mode="json", exclude_unset=True), [])
    monkeypatch.delenv("SCANS")
    assert load(yaml.safe_load(snapshot.read_text())).results == "/data/out"


def test_a_start_knows_which_of_its_files_were_edited_since(tmp_path: Path) -> None:
    first, second = tmp_path / "study.yaml", tmp_path / "more.yaml"
    for file in (first, second):
        file.write_text("a: 1\n")
    assert last_start(tmp_path / "results") is None
    snapshot = write_snapshot(tmp_path / "results", {"a": 1}, [first, second])
    start = last_start(tmp_path / "results")
    assert start is not None and start.edited_since() == []
    first.write_text("a: 2\n")
    second.unlink()
    assert start.edited_since() == [str(first), str(second)]
    record = record_beside(snapshot)
    assert record is not None and record_beside(first) is None
    check_started_with(record)


def test_the_last_starts_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        (tmp_path / STARTS / f"2025{number:02d}").mkdir(parents=True)
    snapshot = write_snapshot(tmp_path, {}, [])
    kept = sorted((tmp_path / STARTS).iterdir())
    assert len(kept) == KEPT and kept[-1] == snapshot.parent


def test_a_copy_of_a_copy_knows_the_users_file(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("a: 1\n")
    copy = write_copy(tmp_path / "submitted", {"a": 1}, [file])
    file.write_text("a: 2\n")
    write_snapshot(tmp_path / "results", {"a": 1}, [copy])
    start = last_start(tmp_path / "results")
    assert start is not None and start.edited_since() == [str(file)]
