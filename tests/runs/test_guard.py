"""Runs that are interrupted, killed, continued or contested end like undisturbed ones."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch

from support.run_ends import fork_server, train_again
from support.runs import preprocess_phantom, small_run, small_study
from support.studies import epochs_trained, wait_for, wait_for_epoch
from voxelsoup.common.errors import InputError
from voxelsoup.runs.divergence import Diverged, check_not_diverged, read_note
from voxelsoup.runs.guard import HISTORY, HandedOver, RunGuard
from voxelsoup.runs.lease import Lease, LeaseLost
from voxelsoup.runs.record import Attempt, read_record
from voxelsoup.runs.resume_state import State, newest_state, not_finite
from voxelsoup.runs.signals import Interrupted
from voxelsoup.study.sections.training import ScheduleName
from voxelsoup.study.study import Study
from voxelsoup.training.run import Run
from voxelsoup.training.train import Trained, Trainer, train

CPU = torch.device("cpu")
HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors take longer on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Disturbed(RunGuard):
    """A real guard in whose runs something happens after a certain step."""

    def __init__(self, step: int, disturb: Callable[[], object], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.step, self.disturb = step, disturb

    def after_step(self, step: int, capture: Callable[[], State]) -> None:
        if step == self.step:
            self.disturb()
        super().after_step(step, capture)


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def guard_of(run: Run, folder: Path, **recovery: float) -> RunGuard:
    settings = small_study(recovery=recovery).recovery
    return RunGuard(folder, {"settings": run.settings()}, run.steps, settings)


def disturbed(
    run: Run, folder: Path, step: int, disturb: Callable[[], object] = interrupt, **recovery: float
) -> RunGuard:
    settings = small_study(recovery=recovery).recovery
    return Disturbed(step, disturb, folder, {"settings": run.settings()}, run.steps, settings)


def attempts_of(folder: Path) -> list[Attempt]:
    record = read_record(folder)
    return record.attempts if record else []


def train_guarded(run: Run, guard: RunGuard) -> Trained:
    with guard:
        return train(run, CPU, guard)


def assert_same(one: Trained, other: Trained) -> None:
    pd.testing.assert_frame_equal(one.history, other.history, check_exact=True)
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        assert torch.equal(value, other.weights[name]), name


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("schedule", get_args(ScheduleName))
@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    cases: tuple[Path, list[str]], tmp_path: Path, name: str, schedule: str, workers: int
) -> None:
    study = small_study(
        optimizer={"name": name, "schedule": schedule, "warmup_steps": 2},
        training={"workers": workers, "batch_size": 1},
    )
    run = small_run(study, *cases)
    undisturbed = train(run, CPU)
    # In the middle of the second epoch.
    with pytest.raises(Interrupted, match="SIGTERM"):
        train_guarded(run, disturbed(run, tmp_path, step=5))
    resumed = train_guarded(run, guard_of(run, tmp_path))
    assert_same(resumed, undisturbed)
    assert epochs_trained(tmp_path) == [1, 2]
    assert pd.read_csv(tmp_path / HISTORY)["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize("arguments", [{"dropout": 0.5}, {"norm": "batch"}])
def test_random_layers_and_running_statistics_are_resumed(
    cases: tuple[Path, list[str]], tmp_path: Path, arguments: dict[str, object]
) -> None:
    network = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2], **arguments}}
    study = small_study(network={"size": "S"} | network)
    run = small_run(study, *cases)
    # What other code drew before must not show in a run.
    undisturbed = train(run, CPU)
    torch.manual_seed(99)
    assert_same(train(run, CPU), undisturbed)
    with pytest.raises(Interrupted):
        train_guarded(run, disturbed(run, tmp_path, step=4))
    torch.manual_seed(99)
    assert_same(train_guarded(run, guard_of(run, tmp_path)), undisturbed)


def test_all_random_states_are_resumed(cases: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = small_run(small_study(), *cases)

    def drawn_at_the_end(guard: RunGuard) -> tuple[float, float, float]:
        train_guarded(run, guard)
        return float(torch.rand(())), random.random(), float(np.random.random())

    def draw() -> None:
        torch.rand(3), random.random(), np.random.random(5)

    expected = drawn_at_the_end(disturbed(run, tmp_path / "one", 2, draw))

    def draw_and_stop() -> None:
        draw()
        interrupt()

    with pytest.raises(Interrupted):
        train_guarded(run, disturbed(run, tmp_path / "two", 2, draw_and_stop))
    assert drawn_at_the_end(guard_of(run, tmp_path / "two")) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_every_signal_to_end_saves_the_state(
    cases: tuple[Path, list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    run = small_run(small_study(), *cases)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=number.name):
        train_guarded(run, disturbed(run, tmp_path, 4, lambda: interrupt(number)))
    assert signal.getsignal(number) == before
    state = newest_state(tmp_path)
    assert state is not None
    assert state["step"] == 4


def test_a_damaged_state_costs_the_steps_since_the_one_before(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run = small_run(small_study(), *cases)
    for step in (2, 4):
        with pytest.raises(Interrupted):
            train_guarded(run, disturbed(run, tmp_path, step))
    newest = max(tmp_path.glob("*.state"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_same(train_guarded(run, guard_of(run, tmp_path)), train(run, CPU))
    assert [attempt.from_step for attempt in attempts_of(tmp_path)] == [0, 2, 2]


def test_states_are_saved_beside_the_training(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run = small_run(small_study(training={"epochs": 3}), *cases)
    undisturbed = train(run, CPU)
    steps: list[int] = []

    class Watched(RunGuard):
        def _write(self, step: int, state: State) -> None:
            super()._write(step, state)
            steps.append(step)

    settings = small_study(recovery={"save_minutes": 1e-6}).recovery
    guard = Watched(tmp_path, {"settings": run.settings()}, run.steps, settings)
    assert_same(train_guarded(run, guard), undisturbed)
    # All that were possible without waiting, and the last one in any case.
    assert len(steps) > 1
    assert steps[-1] == run.steps
    assert steps == sorted(steps)


def longer(study: Study, epochs: int) -> Study:
    return small_study(
        training={"epochs": epochs}, optimizer=study.optimizer.model_dump(mode="json")
    )


@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])
def test_a_schedule_free_run_of_more_epochs_continues(
    cases: tuple[Path, list[str]], tmp_path: Path, name: str
) -> None:
    study = small_study(optimizer={"name": name})
    short = small_run(study, *cases)
    train_guarded(short, guard_of(short, tmp_path))
    run = small_run(longer(study, 4), *cases)
    assert_same(train_guarded(run, guard_of(run, tmp_path)), train(run, CPU))
    assert epochs_trained(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "schedule", [name for name in get_args(ScheduleName) if "free" not in name]
)
def test_a_scheduled_run_of_more_epochs_starts_over(
    cases: tuple[Path, list[str]], tmp_path: Path, schedule: str
) -> None:
    study = small_study(optimizer={"schedule": schedule})
    short = small_run(study, *cases)
    train_guarded(short, guard_of(short, tmp_path))
    run = small_run(longer(study, 4), *cases)
    assert_same(train_guarded(run, guard_of(run, tmp_path)), train(run, CPU))
    assert epochs_trained(tmp_path) == [1, 2, 1, 2, 3, 4]


def test_a_run_of_fewer_epochs_starts_over(cases: tuple[Path, list[str]], tmp_path: Path) -> None:
    study = small_study()
    for epochs in (3, 2):
        run = small_run(longer(study, epochs), *cases)
        assert_same(train_guarded(run, guard_of(run, tmp_path)), train(run, CPU))


def test_the_state_of_another_run_is_not_used(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    for rate in (0.01, 0.02):
        run = small_run(small_study(optimizer={"lr": rate}), *cases)
        assert_same(train_guarded(run, guard_of(run, tmp_path)), train(run, CPU))
    reasons = [attempt.started_over for attempt in attempts_of(tmp_path)]
    assert reasons == [None, "`settings.optimizer.lr` was 0.01 and is 0.02"]


def start(cases: tuple[Path, list[str]], states: Path, target: Path) -> BaseProcess:
    process = fork_server().Process(target=train_again, args=(cases[0], states, target))
    process.start()
    return process


def exit_code(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def calm(cases: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model that comes out when nothing happens."""
    folder = tmp_path_factory.mktemp("calm")
    assert exit_code(start(cases, folder / "states", folder / "model.safetensors")) == 0
    return (folder / "model.safetensors").read_bytes()


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    cases: tuple[Path, list[str]], tmp_path: Path, calm: bytes
) -> None:
    states, target = tmp_path / "killed", tmp_path / "killed.safetensors"
    for attempt in range(3):
        process = start(cases, states, target)
        wait_for(
            lambda attempt=attempt: (
                len(attempts := attempts_of(states)) > attempt and attempts[-1].first_step
            )
        )
        process.kill()
        process.join()
    assert not target.exists()
    assert exit_code(start(cases, states, target)) == 0
    assert target.read_bytes() == calm
    # Finished runs keep one state, from which they can be prolonged.
    assert len(list(states.glob("*.state"))) == 1


def test_a_second_copy_takes_over_and_the_first_stops(
    cases: tuple[Path, list[str]], tmp_path: Path, calm: bytes
) -> None:
    states, target = tmp_path / "shared", tmp_path / "shared.safetensors"
    first = start(cases, states, tmp_path / "first.safetensors")
    wait_for_epoch(states, 1)
    # Held still until the second one is there, however long that takes to start.
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    second = start(cases, states, target)
    wait_for(lambda: list(states.glob("*.wanted")))
    os.kill(first.pid, signal.SIGCONT)
    assert exit_code(second) == 0
    assert exit_code(first) == 75
    assert not (tmp_path / "first.safetensors").exists()
    assert target.read_bytes() == calm
    assert epochs_trained(states) == [1, 2, 3, 4]


def test_a_run_that_lost_its_lease_writes_nothing(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run = small_run(small_study(), *cases)

    def take_over() -> None:
        (tmp_path / "lease.000099").write_text("{}")

    with pytest.raises(LeaseLost, match="taken over"):
        train_guarded(run, disturbed(run, tmp_path, 1, take_over, save_minutes=1e-6))
    assert newest_state(tmp_path) is None


def test_a_run_hands_over_when_it_is_asked(cases: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = small_run(small_study(), *cases)
    other = Lease(tmp_path, seconds=60)
    asking = threading.Thread(target=other.acquire)

    def ask() -> None:
        asking.start()
        wait_for(lambda: guard.lease.wanted)

    guard = disturbed(run, tmp_path, 2, ask, lease_seconds=1)
    with pytest.raises(HandedOver, match="after step 2"):
        train_guarded(run, guard)
    asking.join()
    other.confirm()
    other.release()
    assert_same(train_guarded(run, guard_of(run, tmp_path)), train(run, CPU))


class Faulty:
    """Puts NaN into the weights after a step of a run, so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, times: int) -> None:
        self.step, self.times, self.take_step = step, times, Trainer.take_step
        monkeypatch.setattr(Trainer, "take_step", self.after_a_step)

    @property
    def after_a_step(self) -> Callable[..., None]:
        def take_step(trainer: Trainer, *batch: torch.Tensor) -> None:
            self.take_step(trainer, *batch)
            if trainer.step == self.step and self.times > 0:
                self.times -= 1
                with torch.no_grad():
                    next(trainer.model.parameters()).fill_(torch.nan)

        return take_step


# The state of the faulty step is due, or only that of the epoch's end and of the run's.
@pytest.mark.parametrize("save_minutes", [1e-6, 10])
def test_a_run_passes_a_fault_that_does_not_come_again(
    cases: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_minutes: float,
) -> None:
    run = small_run(small_study(), *cases)
    undisturbed = train(run, CPU)
    Faulty(monkeypatch, step=4, times=1)
    guard = guard_of(run, tmp_path, save_minutes=save_minutes)
    assert_same(train_guarded(run, guard), undisturbed)
    (attempt,) = attempts_of(tmp_path)
    assert attempt.went_back is not None and "was not finite at epoch 2" in attempt.went_back
    assert attempt.passed in (4, 5)
    assert read_note(tmp_path, guard.identity) is None


@pytest.mark.parametrize("step", [1, 4, 6])
@pytest.mark.parametrize("save_minutes", [1e-6, 10])
def test_a_run_that_is_not_finite_twice_has_diverged_and_no_state_of_it_is_not_finite(
    cases: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    save_minutes: float,
) -> None:
    run = small_run(small_study(), *cases)
    Faulty(monkeypatch, step, times=99)
    guard = guard_of(run, tmp_path, save_minutes=save_minutes)
    with pytest.raises(Diverged, match=f"epoch {1 + step // 3 if step < 6 else 2}, step") as ended:
        train_guarded(run, guard)
    assert ended.value.step in (step, step + 1)
    assert "lower `optimizer.lr`" in str(ended.value)
    state = newest_state(tmp_path)
    assert state is None or (state["step"] < step and not_finite(state) is None)
    (attempt,) = attempts_of(tmp_path)
    assert attempt.went_back and attempt.passed is None and attempt.diverged
    # Known from now on, to this run alone, and as far as it is to come to that step.
    with pytest.raises(Diverged, match=re.escape(str(ended.value))):
        check_not_diverged(tmp_path, guard.identity, run.steps)
    check_not_diverged(tmp_path, guard.identity, ended.value.step - 1)
    other = small_run(small_study(optimizer={"lr": 0.001}), *cases)
    check_not_diverged(tmp_path, {"settings": other.settings()}, run.steps)


def test_a_run_that_was_ended_between_its_two_passes_goes_back_no_third_time(
    cases: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(small_study(), *cases)
    Faulty(monkeypatch, step=4, times=99)

    class Ended(RunGuard):
        def go_back(self, error: Diverged) -> None:
            super().go_back(error)
            interrupt()

    settings = small_study().recovery
    first = Ended(tmp_path, {"settings": run.settings()}, run.steps, settings)
    with pytest.raises(Interrupted):
        train_guarded(run, first)
    with pytest.raises(Diverged):
        train_guarded(run, guard_of(run, tmp_path))
    assert [bool(attempt.went_back) for attempt in attempts_of(tmp_path)] == [True, False]


def test_a_removed_folder_is_reported(cases: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = small_run(small_study(), *cases)
    folder = tmp_path / "states"
    guard = disturbed(run, folder, 1, lambda: shutil.rmtree(folder), save_minutes=1e-6)
    with pytest.raises(LeaseLost, match="was removed"):
        train_guarded(run, guard)


FILL_THE_DISK = """
import subprocess, sys
from pathlib import Path
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
sys.path[:0] = [sys.argv[2]]
from runs.test_guard import continue_on_a_full_disk
continue_on_a_full_disk(Path(sys.argv[3]), disk)
"""


def continue_on_a_full_disk(folder: Path, disk: Path) -> None:
    """Fill a disk during a run, make room, and end the run; called where mounting is allowed."""
    names = sorted(path.name.removesuffix(".json") for path in folder.glob("*.json"))
    run = small_run(small_study(), folder, names)
    states, ballast = disk / "states", disk / "ballast"
    with pytest.raises(Interrupted):
        train_guarded(run, disturbed(run, states, 2))

    def fill() -> None:
        full = pytest.raises(OSError, match="No space left")
        with ballast.open("wb", buffering=0) as stream, full:
            while True:
                stream.write(b"x" * 4096)

    with pytest.raises(InputError, match="No space left on device") as caught:
        train_guarded(run, disturbed(run, states, 3, fill, save_minutes=1e-6))
    assert "free some space" in str(caught.value)
    state = newest_state(states)
    assert state is not None
    assert state["step"] == 2
    ballast.unlink()
    assert_same(train_guarded(run, guard_of(run, states)), train(run, CPU))

    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(InputError, match="Read-only file system"):
        train_guarded(run, guard_of(run, states))
    assert newest_state(states) is not None


def test_a_full_or_read_only_disk_gives_one_message_and_keeps_the_last_state(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # A name space of its own, where any user may mount.
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c"]
    arguments = [FILL_THE_DISK, str(disk), str(HERE), str(cases[0])]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    result = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
