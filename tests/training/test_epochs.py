"""What an epoch took, when the last one will be done, and how a log tells it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from voxelsoup.training.epochs import Epoch, Pace


def row(epoch: int, step: int) -> dict[str, float]:
    return {"epoch": epoch, "step": step, "training_loss": 0.5, "lr": 0.01}


def test_an_epoch_that_an_earlier_attempt_began_counts_whole() -> None:
    pace = Pace(epochs=4, steps_per_epoch=10, step=15)
    began = time.monotonic()
    time.sleep(0.1)
    rest = pace.epoch(row(2, 20))
    assert 0.2 <= rest.seconds <= 2 * (time.monotonic() - began)
    between = time.monotonic()
    time.sleep(0.05)
    whole = pace.epoch(row(3, 30))
    assert 0.05 <= whole.seconds <= time.monotonic() - between + 0.01


def test_the_end_is_estimated_by_the_mean_pace_of_the_attempt() -> None:
    pace = Pace(epochs=100, steps_per_epoch=10, step=500)
    time.sleep(0.1)
    before = datetime.now().astimezone()
    epoch = pace.epoch(row(51, 510))
    left = epoch.estimated_end - before
    # 49 epochs as long as this one.
    assert timedelta(seconds=4.9) <= left <= timedelta(seconds=49 * epoch.seconds + 1)


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
def test_a_line_says_it_in_short(changes: dict[str, object], line: str) -> None:
    assert str(replace(EPOCH, **changes)) == line
