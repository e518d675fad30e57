"""A run on several processes ends as in one, up to rounding, and all of its processes end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from runs import preprocess_phantom, small_run, small_study
from studies import wait_for

from segsoup.distributed import ProcessLost, Shared, train_together
from segsoup.errors import InputError
from segsoup.guard import Guard
from segsoup.interruption import Interrupted
from segsoup.journal import read_journal
from segsoup.logs import appended_log
from segsoup.networks import build
from segsoup.ranks import check_network
from segsoup.runs import Run
from segsoup.training import Trained, train

CPU = torch.device("cpu")
HERE = Path(__file__).parent

# Long enough to be caught at work; what is compared is written after every epoch.
LONG = {"epochs": 500, "steps_per_epoch": 2, "batch_size": 2}
RUN_IN_TWO = """
import sys
from pathlib import Path
from test_distributed import in_two, long_run
in_two(long_run(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def folder(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preprocessed")
    preprocess_phantom(phantom_folder, folder)
    return folder


def run_with(folder: Path, optimizer: dict[str, object], **training: object) -> Run:
    """A small run whose result does not hang on rounding.

    Adam divides gradients by their size: weights whose gradient is zero but for rounding, as
    biases before a normalisation have, move as far as any other. SGD leaves them in place.
    """
    names = sorted(path.stem for path in folder.glob("*.json"))
    return small_run(small_study(optimizer=optimizer, training=training), folder, names)


def long_run(folder: Path) -> Run:
    return run_with(folder, {"name": "sgd", "lr": 0.01}, **LONG)


def in_two(run: Run, states: Path) -> None:
    """Train a run with two processes; what they log goes to a file beside the states."""
    states.mkdir(exist_ok=True, parents=True)
    log = states / "log.txt"
    with appended_log(log):
        train_together(Shared(run, {"settings": run.settings()}, states, None, log, 2), 2)


def guard_of(run: Run, states: Path) -> Guard:
    return Guard(states, {"settings": run.settings()}, run.steps, run.study.recovery)


def finish(run: Run, states: Path) -> Trained:
    """Go on from the last state in this process, as a job does after its processes have ended."""
    with guard_of(run, states) as guard:
        return train(run, CPU, guard)


def assert_close(one: Trained, other: Trained, tolerance: float) -> None:
    assert one.history["step"].tolist() == other.history["step"].tolist()
    np.testing.assert_allclose(one.history["training_loss"], other.history["training_loss"], 1e-6)
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("over", "optimizer"),
    [
        ("batch", {"name": "sgd", "lr": 0.1}),
        ("sample", {"name": "sgd", "schedule": "polynomial", "lr": 0.1}),
    ],
)
def test_two_processes_train_what_one_trains(
    folder: Path, tmp_path: Path, over: str, optimizer: dict[str, object]
) -> None:
    run = run_with(folder, optimizer, batch_size=4, augmentation="full", loss_over=over)
    alone = train(run, CPU)
    in_two(run, tmp_path)
    together = finish(run, tmp_path)
    assert_close(together, alone, tolerance=1e-6)
    # It was not this process that trained.
    owners = [event["owner"] for event in read_journal(tmp_path) if event["event"] == "epoch"]
    assert len(owners) == 2
    assert len(set(owners)) == 1
    assert "2 processes on cpu" in (tmp_path / "log.txt").read_text()
    # The weights moved by far more than the tolerance.
    start = train(run_with(folder, optimizer, epochs=1, steps_per_epoch=1, batch_size=4), CPU)
    moved = [(start.weights[name] - value).abs().max() for name, value in alone.weights.items()]
    assert max(moved) > 1e-3


def start_in_two(folder: Path, states: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])}
    command = [sys.executable, "-c", RUN_IN_TWO, str(folder), str(states)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=HERE)


def epochs_of(states: Path) -> list[int]:
    return [event["epoch"] for event in read_journal(states) if event["event"] == "epoch"]


def ranks_of(process: int) -> dict[int, int]:
    """Rank -> number of the process, of the processes that another one has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = {}
    for child in map(int, children):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [value for value in variables if value.startswith(b"RANK=")]
        found |= {int(rank.removeprefix(b"RANK=")): child for rank in ranks}
    return found


@pytest.mark.parametrize("rank", [0, 1, None])
def test_a_signal_to_any_process_ends_all_after_the_same_step(
    folder: Path, tmp_path: Path, rank: int | None
) -> None:
    process = start_in_two(folder, tmp_path)
    wait_for(lambda: 2 in epochs_of(tmp_path), 120)
    ranks = ranks_of(process.pid)
    assert ranks.keys() == {0, 1}
    os.kill(process.pid if rank is None else ranks[rank], signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert Interrupted.__name__ in errors, errors
    assert "stopped by SIGUSR1" in errors
    wait_for(lambda: not any(Path(f"/proc/{number}").exists() for number in ranks.values()), 10)
    # The state is of the last step, and one process goes on from it as from its own.
    run = long_run(folder)
    with guard_of(run, tmp_path) as guard:
        state = guard.newest()
    assert state is not None
    assert len(state["rows"]) == len(epochs_of(tmp_path))
