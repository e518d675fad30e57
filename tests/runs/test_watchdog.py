"""A process in which no step ends is ended, and says where it stood; others are left alone."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Generator

import pytest

from support.studies import wait_for
from voxelsoup.common.errors import Stopped
from voxelsoup.runs import watchdog
from voxelsoup.runs.watchdog import Hung, Watchdog, show_stacks_on_request

MINUTES = 0.5 / 60


@pytest.fixture(autouse=True)
def no_timer_ends_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the watchdog would end is the process that tests it.
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback_later", lambda *_, **__: None)


def steps(seconds: float, count: int) -> Generator[int, None, None]:
    """Batches, of which each takes so long to come."""
    for number in range(count):
        time.sleep(seconds)
        yield number


def ends_of(seconds: float, count: int) -> list[Stopped]:
    """Why a training with such steps was ended."""
    ends: list[Stopped] = []
    with Watchdog(MINUTES, ends.append) as dog:
        assert list(dog.over(steps(seconds, count))) == list(range(count))
    return ends


def test_steps_that_end_in_time_are_left_alone() -> None:
    assert ends_of(MINUTES * 60 * 0.3, 5) == []


def test_the_first_step_may_take_twice_as_long_and_the_next_may_not() -> None:
    assert ends_of(MINUTES * 60 * 1.5, 1) == []
    (end,) = ends_of(MINUTES * 60 * 1.7, 2)
    assert isinstance(end, Hung)


def test_what_is_no_step_may_take_any_time() -> None:
    ends: list[Stopped] = []
    with Watchdog(MINUTES, ends.append) as dog:
        time.sleep(3 * MINUTES * 60)
        list(dog.over(steps(0, 2)))
        time.sleep(3 * MINUTES * 60)
    assert ends == []


def wait_in_a_worker() -> None:
    show_stacks_on_request()
    threading.Event().wait()


def test_the_log_says_where_threads_and_workers_stand(caplog: pytest.LogCaptureFixture) -> None:
    ends: list[Stopped] = []
    worker = multiprocessing.get_context("fork").Process(target=wait_in_a_worker)
    with caplog.at_level(logging.ERROR), Watchdog(MINUTES, ends.append) as dog:
        worker.start()
        list(dog.over(steps(MINUTES * 60 * 3, 1)))
        wait_for(lambda: ends)
    worker.kill()
    assert "no step has ended for 0.00833333 minutes (`training.watchdog`)" in str(ends[0])
    assert "stood in watchdog.py line" in str(ends[0])
    assert "thread MainThread:" in caplog.text
    assert "time.sleep(seconds)" in caplog.text
    assert f"process {worker.pid}: " in caplog.text
    assert "in wait_in_a_worker" in caplog.text


def test_a_process_that_cannot_end_by_itself_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "GRACE", 0.2)
    monkeypatch.setattr(watchdog, "LOOK", 0.05)
    ends: list[Stopped] = []
    trouble = [Stopped("the others are gone")]
    with Watchdog(30, ends.append, lambda: trouble[0] if trouble else None):
        wait_for(lambda: ends)
    assert ends == trouble
    trouble.clear()
    with Watchdog(30, ends.append, lambda: trouble[0] if trouble else None):
        time.sleep(0.4)
    assert len(ends) == 1
