"""Curves of trainings, dated by the attempts of their runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxelsoup.runs.lease import Owner
from voxelsoup.runs.record import Attempt, RunRecord
from voxelsoup.tracking.curves import Histories, Span, curve, seconds, spans_of_record

OWNER = Owner("a", "host", "boot", 1, 1, None)
NINE = "2026-11-30T09:00:00.000+00:00"


def at(minute: int) -> str:
    return f"2026-11-30T09:{minute:02}:00.000+00:00"


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "step": 20 * epoch, "training_loss": 1 / epoch, "lr": 0.01}


def test_epochs_are_spread_over_the_attempt_that_trained_them_last() -> None:
    attempts = [
        # It was killed after epoch 3; its state was that of epoch 2.
        Attempt(at(0), OWNER, first_step=at(0), to_epoch=3),
        Attempt(at(20), OWNER, from_step=40, first_step=at(30), to_epoch=4, ended=at(50)),
    ]
    record = RunRecord("finished", at(50), steps=80, attempts=attempts)
    points = curve([row(epoch) for epoch in (1, 2, 3, 4)], spans_of_record(record, 20))
    minutes = [(point.time - seconds(NINE)) / 60 for point in points]
    assert minutes == pytest.approx([20 / 3, 40 / 3, 40, 50])
    assert [point.step for point in points] == [20, 40, 60, 80]
    assert points[1].values == {"training/loss": 0.5, "training/learning rate": 0.01, "epoch": 2}


def test_a_step_that_stands_twice_counts_once() -> None:
    points = curve([row(1), row(2), row(2)], [Span(0, 40, 0.0, 60.0)])
    assert [point.step for point in points] == [20, 40]


def test_the_history_of_the_states_is_newer_than_that_of_the_results(tmp_path: Path) -> None:
    for name, epochs in (("states", 2), ("results", 1)):
        lines = [f"{n},{20 * n},0.5,0.01" for n in range(1, epochs + 1)]
        (tmp_path / name).mkdir()
        text = "\n".join(["epoch,step,training_loss,lr", *lines, ""])
        (tmp_path / name / "history.csv").write_text(text)
    places = (str(tmp_path / "states"), str(tmp_path / "results"))
    histories = Histories()
    assert len(histories.of(*places)) == 2
    (tmp_path / "states" / "history.csv").unlink()
    assert len(histories.of(*places)) == 1
