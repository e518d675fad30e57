"""A run on several processes ends as in one, up to rounding, and they end together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.runs import preprocess_phantom, small_run, small_study
from support.studies import epochs_trained, wait_for_epoch
from voxelsoup.common.errors import InputError
from voxelsoup.common.logs import appended_log
from voxelsoup.models.networks import build
from voxelsoup.runs.divergence import Diverged
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.record import read_record
from voxelsoup.study.sections.resources import Recovery
from voxelsoup.training.data_parallel import check_network
from voxelsoup.training.launch import ProcessLost, _lost, train_together
from voxelsoup.training.run import Job, Run
from voxelsoup.training.train import Trained, train

CPU = torch.device("cpu")
HERE = Path(__file__).parents[1]

# Long enough to be caught at work.
LONG = {"epochs": 30, "steps_per_epoch": 2, "batch_size": 2}
RUN_IN_TWO = """
import sys
from pathlib import Path
from training.test_launch import in_two, long_run
in_two(long_run(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def folder(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preprocessed")
    preprocess_phantom(phantom_folder, folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors take longer on several threads, and the processes have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_with(folder: Path, optimizer: dict[str, object], **training: object) -> Run:
    """A small run whose result does not depend on rounding.

    Adam divides gradients by their size: weights whose gradient is zero but for rounding, as
    biases before a normalisation have, move as far as any other. SGD leaves them in place.
    """
    names = sorted(path.stem for path in folder.glob("*.json"))
    return small_run(small_study(optimizer=optimizer, training=training), folder, names)


def long_run(folder: Path) -> Run:
    """A run whose loss is the mean over its samples, with states at every chance."""
    scheduled = {"name": "sgd", "schedule": "polynomial", "lr": 0.01}
    run = run_with(folder, scheduled, loss_over="sample", **LONG)
    often = run.study.model_copy(update={"recovery": Recovery(save_minutes=0.002)})
    return replace(run, study=often)


def in_two(run: Run, states: Path) -> None:
    """Train a run with two processes; what they log goes to a file beside the states."""
    states.mkdir(exist_ok=True, parents=True)
    log = states / "log.txt"
    with appended_log(log):
        identity = {"settings": run.settings()}
        train_together(Job(run, 0, "trial", "trial", {}, identity, states, None, log, 2), 2)


def guard_of(run: Run, states: Path) -> RunGuard:
    return RunGuard(states, {"settings": run.settings()}, run.steps, run.study.recovery)


def finish(run: Run, states: Path) -> Trained:
    """Resume from the last state in this process, as a job does after its processes have ended."""
    with guard_of(run, states) as guard:
        return train(run, CPU, guard)


def assert_close(one: Trained, other: Trained, tolerance: float) -> None:
    assert one.history["step"].tolist() == other.history["step"].tolist()
    np.testing.assert_allclose(one.history["training_loss"], other.history["training_loss"], 1e-6)
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=0, atol=tolerance)


def test_two_processes_train_the_same_weights_as_one(folder: Path, tmp_path: Path) -> None:
    optimizer = {"name": "sgd", "lr": 0.1}
    run = run_with(folder, optimizer, batch_size=4, augmentation="full")
    alone = train(run, CPU)
    in_two(run, tmp_path)
    together = finish(run, tmp_path)
    assert_close(together, alone, tolerance=1e-6)
    # It was not this process that trained.
    record = read_record(tmp_path)
    assert record is not None
    trained, finished = record.attempts
    assert (trained.to_epoch, finished.from_step) == (2, run.steps)
    assert trained.owner.process != finished.owner.process == os.getpid()
    assert "2 processes on cpu" in (tmp_path / "log.txt").read_text()
    # The weights moved by far more than the tolerance.
    start = train(run_with(folder, optimizer, epochs=1, steps_per_epoch=1, batch_size=4), CPU)
    moved = [(start.weights[name] - value).abs().max() for name, value in alone.weights.items()]
    assert max(moved) > 1e-3


def start_in_two(folder: Path, states: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])}
    command = [sys.executable, "-c", RUN_IN_TWO, str(folder), str(states)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=HERE)


def ranks_of(process: int) -> dict[int, int]:
    """Rank -> number of the process, of the processes that another one has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = {}
    for child in map(int, children):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [value for value in variables if value.startswith(b"RANK=")]
        found |= {int(rank.removeprefix(b"RANK=")): child for rank in ranks}
    return found


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Trained:
    return train(long_run(folder), CPU)


def test_a_signal_to_one_process_ends_all_after_the_same_step(folder: Path, tmp_path: Path) -> None:
    process = start_in_two(folder, tmp_path)
    wait_for_epoch(tmp_path, 2)
    ranks = ranks_of(process.pid)
    assert ranks.keys() == {0, 1}
    os.kill(ranks[1], signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)
    assert "stopped by SIGUSR1" in errors, errors
    assert not any(Path(f"/proc/{number}").exists() for number in ranks.values())
    # The state is that of the last step.
    with guard_of(long_run(folder), tmp_path) as guard:
        state = guard.newest()
    assert state is not None
    assert len(state["rows"]) == len(epochs_trained(tmp_path))


def test_a_killed_process_ends_the_job_and_the_next_one_resumes(
    folder: Path, tmp_path: Path, undisturbed: Trained
) -> None:
    process = start_in_two(folder, tmp_path)
    wait_for_epoch(tmp_path, 5)
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert ProcessLost.__name__ in errors, errors
    assert "process 1 of the 2 that train this run was ended by SIGKILL" in errors
    run = long_run(folder)
    in_two(run, tmp_path)
    assert_close(finish(run, tmp_path), undisturbed, tolerance=1e-5)
    record = read_record(tmp_path)
    assert record is not None
    assert record.attempts[1].from_step > 0


@pytest.mark.parametrize(
    ("exit_codes", "named"),
    [
        ({0: -signal.SIGTERM, 1: -signal.SIGKILL}, "process 1 of the 2 .* by SIGKILL"),
        ({0: 1, 1: -signal.SIGKILL}, "process 1 of the 2 .* by SIGKILL"),
        ({0: -signal.SIGSEGV, 1: 1}, "process 0 of the 2 .* by SIGSEGV"),
        ({0: -signal.SIGTERM, 1: 3}, "process 1 of the 2 .* exit code 3"),
        ({1: -signal.SIGTERM}, "process 1 of the 2 .* by SIGTERM"),
    ],
)
def test_the_process_that_died_is_named_not_those_that_ended_because_of_it(
    exit_codes: dict[int, int], named: str
) -> None:
    assert re.search(named, str(_lost(exit_codes, 2)))


def test_a_successor_in_one_process_takes_over_from_two(
    folder: Path, tmp_path: Path, undisturbed: Trained
) -> None:
    process = start_in_two(folder, tmp_path)
    wait_for_epoch(tmp_path, 2)
    trained = finish(long_run(folder), tmp_path)
    _, errors = process.communicate(timeout=120)
    assert "handed over after step" in errors, errors
    assert_close(trained, undisturbed, tolerance=1e-5)


def test_a_run_that_diverges_ends_with_one_message(folder: Path, tmp_path: Path) -> None:
    run = run_with(folder, {"name": "sgd", "schedule": "constant", "lr": 1e30}, gradient_clip=None)
    with pytest.raises(Diverged, match=r"lower `optimizer\.lr`") as ended:
        in_two(run, tmp_path)
    # All processes went back together, once.
    record = read_record(tmp_path)
    assert record is not None and record.saved is None
    (attempt,) = record.attempts
    assert attempt.diverged
    assert attempt.went_back == f"the training loss was not finite at {ended.value.place}"
    assert f"{ended.value.place}: going back" in (tmp_path / "log.txt").read_text()


def test_gpus_that_cannot_share_a_batch_equally_are_refused() -> None:
    with pytest.raises(InputError, match="3, which 2 GPUs cannot share equally") as error:
        small_study(training={"batch_size": 3}, resources={"training": {"gpu": 2}})
    assert "take 4 patches per step" in error.value.fix


def test_normalisation_over_the_batch_is_refused_on_several_gpus() -> None:
    arguments = {"channels": [4, 8], "strides": [2], "norm": "batch"}
    network = small_study(network={"size": "S", "name": "UNet", "arguments": arguments}).network
    model = build(network, 1, 1)
    check_network(model, 1)
    with pytest.raises(InputError, match="normalises over the batch"):
        check_network(model, 2)
