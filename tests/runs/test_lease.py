"""Leases: one owner at a time, although owners die, hang or have another time of day."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.studies import wait_for
from voxelsoup.common.errors import InputError
from voxelsoup.runs.lease import (
    RELEASED,
    Lease,
    LeaseLost,
    LeaseTaken,
    Owner,
    is_alive,
    look_at,
    server_time,
)

SOURCES = str(Path(__file__).parents[2] / "src")

HOLD = """
import sys
from pathlib import Path
from voxelsoup.runs.lease import Lease, LeaseLost
lease = Lease(Path(sys.argv[1]), 2)
lease.acquire()
print("held", flush=True)
sys.stdin.readline()
try:
    lease.confirm()
    print("still held")
except LeaseLost as error:
    print(error)
"""

TAKE_TURNS = """
import os, sys, time
from pathlib import Path
from voxelsoup.runs.lease import Lease
folder = Path(sys.argv[1])
for _ in range(8):
    with Lease(folder / "leased", 2) as lease:
        with (folder / "log").open("a") as log:
            log.write(f"in {os.getpid()}\\n")
            log.flush()
            time.sleep(0.05)
            lease.confirm()
            log.write(f"out {os.getpid()}\\n")
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": SOURCES}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def held_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the lease of ``folder``, and confirms it once a line is sent to it."""
    process = python(HOLD, folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def file_of(folder: Path) -> Path:
    (path,) = [path for path in folder.glob("lease.*") if path.suffix[1:].isdecimal()]
    return path


def move_to_another_host(folder: Path) -> Path:
    """Make the lease's owner one that is known by its heartbeat alone."""
    path = file_of(folder)
    owner = json.loads(path.read_text())
    path.write_text(json.dumps(owner | {"host": "elsewhere", "boot": "another"}))
    return path


def test_processes_take_turns(tmp_path: Path) -> None:
    processes = [python(TAKE_TURNS, tmp_path) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) == 2 * 2 * 8 * 4
    for position in range(0, len(lines), 4):
        entered, owner, left, other = lines[position : position + 4]
        assert (entered, left) == ("in", "out")
        assert owner == other


def test_a_killed_owner_is_followed_at_once(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    process.kill()
    process.wait()
    lease = Lease(tmp_path, seconds=3600)
    lease.acquire()
    assert lease.taken_from is not None
    assert lease.taken_from.process == process.pid
    lease.release()


def test_a_living_owner_is_named_to_a_caller_that_does_not_wait(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    try:
        with pytest.raises(LeaseTaken, match=f"process {process.pid} on"):
            Lease(tmp_path, seconds=3600, wait=False).acquire()
    finally:
        process.kill()
        process.wait()


def test_a_dead_owner_on_another_host_expires(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    process.kill()
    process.wait()
    move_to_another_host(tmp_path)
    lease, began = Lease(tmp_path, seconds=1.5), time.monotonic()
    lease.acquire()
    assert time.monotonic() - began >= 1.5
    lease.release()


@pytest.mark.parametrize("minutes", [-1, 1, 60])
def test_clocks_that_differ_do_no_harm(tmp_path: Path, minutes: int) -> None:
    owner = held_elsewhere(tmp_path)
    owner.kill()
    owner.wait()
    path = move_to_another_host(tmp_path)
    released = threading.Event()

    def beat() -> None:
        """What the owner would do on its host: beat by its own clock, and release in the end."""
        for _ in range(15):
            now = time.time() + 60 * minutes
            os.utime(path, (now, now))
            released.wait(0.2)
        released.set()
        path.with_name(path.name + RELEASED).touch()

    thread = threading.Thread(target=beat)
    thread.start()
    second = Lease(tmp_path, seconds=1.5)
    second.acquire()
    # Twice the lease's length has passed, and the owner's heartbeat was believed all the time.
    assert released.is_set()
    thread.join()
    second.release()


def test_an_owner_hands_over_when_another_process_waits(tmp_path: Path) -> None:
    first, second = Lease(tmp_path, seconds=1.5), Lease(tmp_path, seconds=1.5)
    first.acquire()
    thread = threading.Thread(target=second.acquire)
    thread.start()
    wait_for(lambda: first.wanted, 60)
    assert second.path is None
    first.confirm()
    first.release()
    thread.join()
    second.confirm()
    second.release()


def test_a_hung_owner_is_fenced_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxelsoup.runs.lease.PATIENCE", 2)
    first, second = Lease(tmp_path, seconds=1.5), Lease(tmp_path, seconds=1.5)
    first.acquire()
    # It beats, but does not check whether the lease is wanted.
    second.acquire()
    with pytest.raises(LeaseLost, match="taken over by process"):
        first.confirm()
    second.confirm()
    first.release()
    second.confirm()
    second.release()


def test_a_stopped_process_finds_that_it_lost_its_lease(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    process.send_signal(signal.SIGSTOP)
    try:
        move_to_another_host(tmp_path)
        lease = Lease(tmp_path, seconds=1.5)
        lease.acquire()
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("confirm\n", timeout=60)
        assert "taken over by process" in said
        lease.confirm()
        lease.release()
    finally:
        process.kill()
        process.wait()


def test_a_removed_folder_ends_the_lease(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lease = Lease(folder, seconds=1.5)
    lease.acquire()
    shutil.rmtree(folder)
    with pytest.raises(LeaseLost, match="was removed"):
        lease.confirm()
    lease.release()


def test_a_released_lease_is_free(tmp_path: Path) -> None:
    for _ in range(3):
        with Lease(tmp_path, seconds=3600) as lease:
            lease.confirm()
            assert lease.taken_from is None
    assert len(list(tmp_path.iterdir())) == 2


def test_a_lease_that_was_cut_off_while_written_expires(tmp_path: Path) -> None:
    (tmp_path / "lease.000007").write_text('{"id": "3f')
    lease = Lease(tmp_path, seconds=1.5)
    lease.acquire()
    assert lease.path is not None
    assert lease.path.name == "lease.000008"
    lease.release()


def test_a_process_number_that_was_given_again_is_another_process() -> None:
    here = Owner.this_process()
    assert not here.is_dead()
    assert Owner(**(vars(here) | {"started": 1})).is_dead()
    assert not Owner(**(vars(here) | {"started": 1, "boot": "another"})).is_dead()


def alive(folder: Path, seconds: float = 60) -> bool:
    return is_alive(look_at(folder), server_time(folder), seconds)


def test_is_alive_reports_a_living_owner_and_changes_nothing(tmp_path: Path) -> None:
    assert not alive(tmp_path / "nothing")
    process = held_elsewhere(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert alive(tmp_path)
    process.kill()
    process.wait()
    assert not alive(tmp_path)
    # An owner on another host is judged by the date of its file.
    path = move_to_another_host(tmp_path)
    assert alive(tmp_path)
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert not alive(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with Lease(tmp_path, 1.5):
        assert alive(tmp_path)
    assert not alive(tmp_path)


def test_the_time_is_that_of_the_file_server(tmp_path: Path) -> None:
    assert server_time(tmp_path) == pytest.approx(time.time(), abs=1)
    assert list(tmp_path.iterdir()) == []
    assert server_time(tmp_path / "nowhere") == pytest.approx(time.time(), abs=1)


def test_a_lease_on_a_full_disk_is_one_message_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def open_on_a_full_disk(path: Path, flags: int, mode: int = 0o777) -> int:
        os.close(opened(path, flags, mode))
        return opened("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", open_on_a_full_disk)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        Lease(tmp_path, 2).acquire()
    assert not list(tmp_path.iterdir())
