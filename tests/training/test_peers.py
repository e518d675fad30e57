"""The processes of a run know which of them died, and end for the reason of the failed one."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from voxelsoup.common.errors import InputError, Stopped
from voxelsoup.common.files import write_json
from voxelsoup.runs.lease import Owner
from voxelsoup.runs.watchdog import Hung
from voxelsoup.training import peers
from voxelsoup.training.data_workers import WorkerLost
from voxelsoup.training.peers import Peers, ProcessLost, read_report, write_report

UNREADABLE = InputError("one.npy", "cannot be read", "a file", "copy it")


def dead(folder: Path, rank: int) -> None:
    """A process that named itself and died."""
    process = subprocess.Popen(["true"])
    process.wait()
    owner = asdict(Owner.this_process()) | {"process": process.pid}
    write_json(folder / f"{rank}.process", owner)


def test_a_process_that_ended_as_it_should_is_not_lost(tmp_path: Path) -> None:
    with Peers(tmp_path, 0, 2) as own:
        assert own.lost() is None
        with Peers(tmp_path, 1, 2) as other:
            assert own.lost() is None
            assert other.lost() is None
        assert own.lost() is None


def test_a_process_that_died_is_lost_to_the_others(tmp_path: Path) -> None:
    with Peers(tmp_path, 0, 2) as own:
        dead(tmp_path, 1)
        assert "process 1 of the 2 that train this run died" in str(own.lost())
        assert isinstance(own.cause(), ProcessLost)


def test_the_cause_is_what_the_failed_process_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SECONDS_TO_REPORT", 0.2)
    with Peers(tmp_path, 0, 2) as own:
        assert own.cause() is None
        write_report(tmp_path, 1, UNREADABLE)
        dead(tmp_path, 1)
        assert str(own.cause()) == str(UNREADABLE)


@pytest.mark.parametrize(
    "reported",
    [UNREADABLE, Hung("no step"), WorkerLost("one of the 2 data workers"), Stopped("SIGTERM")],
)
def test_a_report_says_what_was_raised(tmp_path: Path, reported: Exception) -> None:
    write_report(tmp_path, 1, RuntimeError("connection closed"))
    write_report(tmp_path, 0, reported)
    read = read_report(tmp_path)
    assert type(read) is type(reported)
    assert str(read) == str(reported)


def test_what_the_others_met_when_a_process_was_killed_is_no_reason(tmp_path: Path) -> None:
    write_report(tmp_path, 1, RuntimeError("connection closed"))
    assert read_report(tmp_path, killed=True) is None
    assert isinstance(read_report(tmp_path), RuntimeError)
