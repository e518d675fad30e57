"""The mirror beside Snakemake: it ends, whatever the tracker does."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest

from support.tracked import tracked_demo
from voxelsoup.tracking.observer import LOG, Observer


def test_a_tracker_that_hangs_is_left_after_a_while(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = Observer()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        study = tracked_demo(demo, tmp_path / "study", tool="mlflow", address=address)
        observer.start(study, tmp_path)
        process = observer._process
        assert process is not None
        # It is asked, and never answers.
        server.settimeout(120)
        connection, _ = server.accept()
        began = time.monotonic()
        observer.end(seconds=1)
        connection.close()
    assert time.monotonic() - began < 10
    assert process.wait(10) == -signal.SIGKILL
    assert "Tracking: incomplete" in capsys.readouterr().out


def test_a_mirror_that_cannot_start_is_said_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").touch()
    observer = Observer()
    observer.start(tmp_path / "study.yaml", tmp_path / "logs")
    observer.end()
    assert "Tracking: not started" in capsys.readouterr().out


def test_a_study_that_is_gone_is_one_line_of_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = Observer()
    observer.start(tmp_path / "study.yaml", tmp_path)
    observer.end(seconds=60)
    assert "study.yaml: no such file" in (tmp_path / LOG).read_text()
    assert "Tracking: incomplete" in capsys.readouterr().out
