"""TensorBoard events: read back with TensorBoard's own reader."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from support.runs import preprocess_phantom, small_run, small_study
from voxelsoup.evaluation.tensorboard import write_evaluation
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.resume_state import State
from voxelsoup.training.run import Run
from voxelsoup.training.tensorboard import PREFIX, TrainingEvents
from voxelsoup.training.train import train

CPU = torch.device("cpu")
HERE = Path(__file__).parents[1]
LOSS = "training/loss"


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)


def read(folder: Path) -> EventAccumulator:
    """The events of a run as TensorBoard takes them up."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def curve(folder: Path, tag: str) -> dict[int, float]:
    """Step -> value of a curve, in which no step may stand twice."""
    found = [(event.step, event.value) for event in read(folder).Scalars(tag)]
    assert len(dict(found)) == len(found), found
    return dict(found)


class Dies(RunGuard):
    """A guard that saves after one step and dies, without saving, after another."""

    def __init__(self, saves: int, dies: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.saves, self.dies = saves, dies

    def after_step(self, step: int, capture: Callable[[], State]) -> None:
        if step == self.saves:
            self.save(step, capture)
        if step == self.dies:
            raise KeyboardInterrupt
        super().after_step(step, capture)


def guard_of(run: Run, states: Path, kind: type[RunGuard] = RunGuard, *first: int) -> RunGuard:
    recovery = small_study().recovery
    return kind(*first, states, {"settings": run.settings()}, run.steps, recovery)


def train_with_events(run: Run, guard: RunGuard, folder: Path) -> pd.DataFrame:
    with guard:
        return train(run, CPU, guard, [TrainingEvents(folder)]).history


def test_every_epoch_is_written_at_its_step(cases: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = small_run(small_study(), *cases)
    history = train_with_events(run, guard_of(run, tmp_path / "states"), tmp_path / "run")
    assert read(tmp_path / "run").Tags()["scalars"] == [
        LOSS,
        "training/learning rate",
        "throughput/epochs per hour",
        "memory/main (MB)",
    ]
    for tag, column in ((LOSS, "training_loss"), ("training/learning rate", "lr")):
        written = curve(tmp_path / "run", tag)
        assert list(written) == history["step"].tolist() == [3, 6]
        assert list(written.values()) == pytest.approx(history[column].tolist(), rel=1e-6)
    assert min(curve(tmp_path / "run", "throughput/epochs per hour").values()) > 0
    assert 50 < curve(tmp_path / "run", "memory/main (MB)")[6] < 100_000


def test_events_change_nothing_in_a_run(cases: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = small_run(small_study(), *cases)
    watched = train(run, CPU, None, [TrainingEvents(tmp_path)])
    unwatched = train(run, CPU)
    pd.testing.assert_frame_equal(watched.history, unwatched.history, check_exact=True)
    for name, value in unwatched.weights.items():
        assert torch.equal(watched.weights[name], value)


def test_events_of_a_resumed_run_have_every_epoch_once(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run = small_run(small_study(training={"epochs": 4}), *cases)
    states, folder = tmp_path / "states", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_with_events(run, guard_of(run, states, Dies, 4, 10), folder)
    assert list(curve(folder, LOSS)) == [3, 6, 9]
    history = train_with_events(run, guard_of(run, states), folder)
    assert list(curve(folder, LOSS)) == history["step"].tolist() == [3, 6, 9, 12]
    assert len(list(folder.glob(f"{PREFIX}*"))) == 2


def test_the_order_of_attempts_does_not_depend_on_the_clocks_of_their_hosts(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run = small_run(small_study(training={"epochs": 4}), *cases)
    states, folder = tmp_path / "states", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_with_events(run, guard_of(run, states, Dies, 4, 10), folder)
    (first,) = folder.glob(f"{PREFIX}*")
    first.rename(folder / f"{PREFIX}9000000000.fast-clock.1")
    train_with_events(run, guard_of(run, states), folder)
    assert list(curve(folder, LOSS)) == [3, 6, 9, 12]


def test_a_run_that_starts_over_removes_its_earlier_files(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    states, folder = tmp_path / "states", tmp_path / "run"
    longer = small_run(small_study(training={"epochs": 4}), *cases)
    train_with_events(longer, guard_of(longer, states), folder)
    write_evaluation(folder, ROWS, longer.steps, {})
    (folder / "model.safetensors").write_text("not an event")
    run = small_run(small_study(optimizer={"lr": 0.02}), *cases)
    train_with_events(run, guard_of(run, states), folder)
    assert list(curve(folder, LOSS)) == [3, 6]
    assert "selection/dice" not in read(folder).Tags()["scalars"]
    assert (folder / "model.safetensors").exists()


ROWS = pd.DataFrame(
    {
        "case": ["a", "a", "b", "b"],
        "region": ["TC", "WT", "TC", "WT"],
        "dice": [0.5, 0.75, 0.25, 1.0],
        "loss": [0.5, 0.5, 1.5, 1.5],
    }
)


def test_an_evaluation_adds_selection_scores_at_the_last_step(tmp_path: Path) -> None:
    write_evaluation(tmp_path, ROWS, 60, {"optimizer.lr": 0.01})
    shown = {
        "selection/dice": 0.625,
        "selection/loss": 1.0,
        "selection/dice TC": 0.375,
        "selection/dice WT": 0.875,
    }
    assert read(tmp_path).Tags()["scalars"] == list(shown)
    for tag, value in shown.items():
        assert curve(tmp_path, tag) == {60: value}


def test_another_evaluation_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    write_evaluation(tmp_path, ROWS, 60, {})
    write_evaluation(tmp_path, ROWS.assign(dice=1.0), 60, {})
    assert curve(tmp_path, "selection/dice") == {60: 1.0}


def test_hyperparameters_are_written_with_the_score_as_their_metric(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    swept = {"optimizer.lr": 0.01, "training.loss": "dice", "optimizer.betas": [0.9, 0.99]}
    write_evaluation(tmp_path, ROWS, 60, swept)
    contents = read(tmp_path).PluginTagToContent("hparams")
    parsed = {tag: HParamsPluginData.FromString(text) for tag, text in contents.items()}
    session = parsed["_hparams_/session_start_info"].session_start_info.hparams
    assert session["optimizer.lr"].number_value == 0.01
    assert session["training.loss"].string_value == "dice"
    assert session["optimizer.betas"].string_value == "[0.9, 0.99]"
    (metric,) = parsed["_hparams_/experiment"].experiment.metric_infos
    assert metric.name.tag == "selection/dice"


def test_a_run_without_swept_settings_has_no_hyperparameters(tmp_path: Path) -> None:
    write_evaluation(tmp_path, ROWS, 60, {})
    assert "hparams" not in read(tmp_path).summary_metadata


def train_on_a_full_disk(folder: Path, disk: Path) -> None:
    """Train with no room for events, then on a read-only disk; called where one may mount."""
    names = sorted(path.name.removesuffix(".json") for path in folder.glob("*.json"))
    run = small_run(small_study(), folder, names)

    class Fills:
        def begin(self, step: int) -> None:
            """Leave no byte."""
            with (disk / "ballast").open("wb", buffering=0) as stream, pytest.raises(OSError):
                while True:
                    stream.write(b"x" * 512)

        def after_epoch(self, epoch: object) -> None:
            """Nothing."""

    history = train(run, CPU, None, [TrainingEvents(disk / "run"), Fills()]).history
    assert len(history) == 2
    (disk / "ballast").unlink()
    # The attempt after it writes again.
    train(run, CPU, None, [TrainingEvents(disk / "run")])
    assert list(curve(disk / "run", LOSS)) == [3, 6]
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert len(train(run, CPU, None, [TrainingEvents(disk / "run")]).history) == 2
    write_evaluation(disk / "run", ROWS, 6, {"optimizer.lr": 0.01})


IN_A_NAME_SPACE = """
import subprocess, sys
from pathlib import Path
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
sys.path[:0] = [sys.argv[2]]
from training.test_tensorboard import train_on_a_full_disk
train_on_a_full_disk(Path(sys.argv[3]), disk)
"""


def test_a_full_or_read_only_disk_costs_the_events_and_not_the_run(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c"]
    arguments = [IN_A_NAME_SPACE, str(disk), str(HERE), str(cases[0])]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    result = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr


def test_tensorboard_is_not_imported_without_events() -> None:
    code = (
        "import sys, voxelsoup.training.tensorboard; "
        "print({'tensorboard', 'torch'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
