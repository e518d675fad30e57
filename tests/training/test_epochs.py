"""The time of an epoch, the estimated end of the last one, and its line in a log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from voxelsoup.training import epochs
from voxelsoup.training.epochs import Epoch, Pace


class Clock:
    """A clock that moves only when it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which epochs are measured."""
    clock = Clock()
    monkeypatch.setattr(epochs, "time", clock)
    return clock


def row(epoch: int, step: int) -> dict[str, float]:
    return {"epoch": epoch, "step": step, "training_loss": 0.5, "lr": 0.01}


def test_an_epoch_takes_the_time_between_the_ends_of_two_epochs(clock: Clock) -> None:
    pace = Pace(epochs=4, steps_per_epoch=10, step=10)
    clock.now += 3
    assert pace.epoch(row(2, 20)).seconds == 3
    clock.now += 5
    assert pace.epoch(row(3, 30)).seconds == 5


def test_an_epoch_that_an_earlier_attempt_began_is_scaled_up_from_its_rest(clock: Clock) -> None:
    pace = Pace(epochs=4, steps_per_epoch=10, step=15)
    clock.now += 2
    assert pace.epoch(row(2, 20)).seconds == 4


def test_the_end_is_estimated_by_the_mean_pace_of_the_attempt(clock: Clock) -> None:
    pace = Pace(epochs=100, steps_per_epoch=10, step=500)
    clock.now += 20
    pace.epoch(row(51, 510))
    clock.now += 40
    earliest = datetime.now().astimezone()
    epoch = pace.epoch(row(52, 520))
    latest = datetime.now().astimezone()
    # 48 epochs of the mean, 30 s, are left.
    left = timedelta(seconds=48 * 30)
    assert earliest + left <= epoch.estimated_end <= latest + left


EPOCH = Epoch(
    number=3,
    epochs=50,
    step=30,
    training_loss=0.23414,
    lr=0.00025,
    seconds=12.34,
    memory_mb=1229,
    gpu_memory_mb=None,
    estimated_end=datetime.now().astimezone().replace(hour=18, minute=40),
)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "epoch  3 of 50   loss 0.2341   lr 2.50e-04     12.3 s   1.2 GB   ends 18:40"),
        ({"number": 50}, "epoch 50 of 50   loss 0.2341   lr 2.50e-04     12.3 s   1.2 GB"),
        (
            {"gpu_memory_mb": 14300.2},
            "epoch  3 of 50   loss 0.2341   lr 2.50e-04     12.3 s   1.2 GB, GPU 14.3 GB   "
            "ends 18:40",
        ),
        (
            {"estimated_end": datetime(2031, 5, 9, 7, 5).astimezone()},
            "epoch  3 of 50   loss 0.2341   lr 2.50e-04     12.3 s   1.2 GB   ends 09 May 07:05",
        ),
    ],
)
def test_the_line_of_an_epoch_is_short(changes: dict[str, object], line: str) -> None:
    assert str(replace(EPOCH, **changes)) == line
