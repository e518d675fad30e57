"""Snakemake on one machine: killed, started twice, and asked for more epochs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.studies import (
    STEM_STATES,
    TINY,
    copy_data,
    epochs_trained,
    run_locally,
    start_locally,
    wait_for,
    wait_for_epoch,
    write_tiny,
)
from voxelsoup.common.files import sha256
from voxelsoup.runs.record import read_record
from voxelsoup.study.loading import read
from voxelsoup.study.trials import trials

SWEEP = {"grid": {"optimizer.schedule": ["schedule-free", "cosine"]}}
STEM_EPOCHS = list(range(1, TINY["stem"]["epochs"] + 1))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that nothing happened to."""
    folder = tmp_path_factory.mktemp("calm")
    write_tiny(folder, sweep=SWEEP)
    run_locally(folder, *models(folder))
    return folder


def models(folder: Path) -> list[str]:
    """The stem and the trials; what follows them depends on nothing else."""
    of_trials = [f"trials/{trial.id}" for trial in trials(read(folder / "study.yaml"))]
    return [f"results/fold0/{name}/model.safetensors" for name in ("stem", *of_trials)]


def states_of(folder: Path, schedule: str) -> Path:
    """Where the trial with a schedule keeps its states."""
    study = read(folder / "study.yaml")
    (trial,) = [t.id for t in trials(study) if t.parameters["optimizer.schedule"] == schedule]
    return folder / "results/.state/fold0/trials" / trial


def test_a_second_snakemake_is_refused_and_one_after_a_kill_resumes(
    calm: Path, tmp_path: Path
) -> None:
    copy_data(calm, tmp_path)
    write_tiny(tmp_path, sweep=SWEEP)
    states = tmp_path / STEM_STATES
    targets = models(tmp_path)
    first = start_locally(tmp_path, *targets)
    wait_for_epoch(states, 5)
    # Its training is held still meanwhile, so that it is not done too early.
    record = read_record(states)
    assert record is not None
    (orphan,) = [attempt.owner.process for attempt in record.attempts]
    os.kill(orphan, signal.SIGSTOP)
    assert start_locally(tmp_path, *targets).wait() == 1
    printed = (tmp_path / "printed.txt").read_text()
    assert f"is in use by process {first.pid} on" in printed

    first.kill()
    first.wait()
    second = start_locally(tmp_path, *targets)
    wait_for(lambda: list(states.glob("*.wanted")))
    os.kill(orphan, signal.SIGCONT)
    assert second.wait() == 0, (tmp_path / "printed.txt").read_text()[-6000:]
    for model in targets:
        assert sha256(tmp_path / model) == sha256(calm / model)
    assert epochs_trained(states) == STEM_EPOCHS


def test_more_epochs_continue_runs_without_a_schedule_end_as_planned(calm: Path) -> None:
    before = {schedule: states_of(calm, schedule) for schedule in ("schedule-free", "cosine")}
    write_tiny(calm, sweep=SWEEP, training={"epochs": 7})
    plan = run_locally(calm, "-n", *models(calm))
    free, cosine = before["schedule-free"].name, before["cosine"].name
    assert f"Trial {free} of fold 0: continues after epoch 5 of 7." in plan
    over = "starts over with 7 epochs: its schedule was made for 5 epochs"
    assert f"Trial {cosine} of fold 0: {over}." in plan
    assert "Stem of fold" not in plan

    run_locally(calm, *models(calm))
    assert epochs_trained(before["schedule-free"]) == [1, 2, 3, 4, 5, 6, 7]
    assert epochs_trained(before["cosine"]) == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6, 7]
    assert epochs_trained(calm / STEM_STATES) == STEM_EPOCHS
    assert "Nothing to be done" in run_locally(calm, *models(calm))
