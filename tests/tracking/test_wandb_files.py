"""A study's runs in W&B: its real offline files, read back by its own `wandb sync`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.tracked import BEGAN, tracked_demo, training, whole_study
from support.wandb_server import KEY, Received, receiving
from voxelsoup.commands.cli import main
from voxelsoup.study.loading import load, read
from voxelsoup.tracking import wandb_files
from voxelsoup.tracking.tracker import Identity, TrackerError
from voxelsoup.tracking.wandb_files import WandbTracker

LOSS = "training/loss"


def allowed() -> None:
    """The lease holds."""


def sync(folders: list[Path], received: Received) -> None:
    """Send offline runs as a user does."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]
    environment = os.environ | {"WANDB_BASE_URL": received.address, "WANDB_API_KEY": KEY}
    # W&B's own logs go to the working directory.
    aside = folders[0].parents[1]
    sent = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=aside)
    assert sent.returncode == 0, sent.stderr


def runs_in(results: Path) -> list[Path]:
    return sorted((results / "wandb").glob("offline-run-*"))


@pytest.fixture(scope="module")
def mirrored(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file of the demo, mirrored once."""
    study = tracked_demo(demo, tmp_path_factory.mktemp("demo") / "study", tool="wandb")
    with pytest.MonkeyPatch.context() as patch:
        # Of users who are logged in and work online.
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_MODE", "online")
        patch.setenv("WANDB_RUN_GROUP", "another")
        assert main(["track", str(study)]) == 0
    return study


@pytest.fixture(scope="module")
def sent(mirrored: Path) -> Received:
    """What W&B's own program reads in the files."""
    with receiving() as received:
        sync(runs_in(mirrored.parent / "results"), received)
    return received


def test_there_is_one_run_for_the_study_each_training_and_each_compared_model(
    sent: Received,
) -> None:
    kinds = [run.described["jobType"] for run in sent.runs.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **{"study": 1, "stem": 2, "trial": 8, "best": 2, "soup": 4, "ensemble": 2},
    }
    # One group, in one project.
    assert len({run.described["groupName"] for run in sent.runs.values()}) == 1
    assert {run.described["project"] for run in sent.runs.values()} == {"study"}
    assert {run.exit_code for run in sent.runs.values()} == {0}


def test_trainings_have_their_curves_settings_and_scores(mirrored: Path, sent: Received) -> None:
    runs = [run for run in sent.runs.values() if run.described["jobType"] == "trial"]
    for run in runs:
        place = run.config["voxelsoup"]
        folder = mirrored.parent / "results" / f"fold{place['fold']}" / "trials" / place["run"]
        with (folder / "history.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert run.curve(LOSS) == [(int(row["step"]), float(row["training_loss"])) for row in rows]
        assert run.config["optimizer"]["schedule"] == place["sweep.optimizer.schedule"]
        assert 0 < run.summary["selection/dice"] < 1
        assert run.described["tags"] == ["trial", f"fold {place['fold']}", "done"]


def test_models_report_and_tables_are_artefacts(sent: Received) -> None:
    kinds = {name.partition("-fold")[2]: kind for name, kind in sent.artefacts.items()}
    assert kinds["1-soups-greedy"] == "model"
    assert kinds["1-soups-ensemble"] == "results"
    assert [kind for name, kind in sent.artefacts.items() if name.endswith("-study")] == ["results"]
    assert 0 < sent.named("fold 1, greedy").summary["test/dice"] < 1


def test_mirroring_again_writes_nothing(mirrored: Path) -> None:
    def files() -> dict[Path, int]:
        found = (mirrored.parent / "results" / "wandb").rglob("*")
        return {path: path.stat().st_mtime_ns for path in found}

    before = files()
    assert main(["track", str(mirrored)]) == 0
    assert files() == before


def test_no_key_is_in_any_file(mirrored: Path) -> None:
    for path in (mirrored.parent / "results" / "wandb").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in (mirrored.parent / "results/.state/tracking/wandb.json").read_text()


@pytest.fixture
def tracker(mirrored: Path, tmp_path: Path) -> Callable[..., WandbTracker]:
    """Opens the files of a study that has none at first."""
    identity = Identity(uuid.uuid4().hex, "elsewhere")

    def opened(**tracking: Any) -> WandbTracker:
        content = read(mirrored).model_dump(mode="json", exclude_unset=True)
        content |= {"results": str(tmp_path), "tracking": {"tool": "wandb", **tracking}}
        return WandbTracker(load(content), identity)

    return opened


def test_a_training_that_repeats_steps_is_one_run_without_doubled_steps(
    tracker: Callable[..., WandbTracker], tmp_path: Path
) -> None:
    # In front of several mirrors, sent in between: it resumed from its state after epoch 1.
    with receiving() as received:
        tracker().mirror(training(3), allowed)
        sync(runs_in(tmp_path), received)
        for epochs in (1, 5):
            tracker().mirror(training(epochs), allowed)
        sync(runs_in(tmp_path), received)
    (run,) = received.runs.values()
    assert run.curve(LOSS) == [(20 * n, pytest.approx(1 / n)) for n in range(1, 6)]
    assert run.history[0]["_timestamp"] == BEGAN + 60


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("killed", 137)])
def test_how_a_run_ended_is_its_exit_code(
    tracker: Callable[..., WandbTracker], tmp_path: Path, status: Any, code: int
) -> None:
    tracker().mirror(training(1, status=status, state="lost"), allowed)
    with receiving() as received:
        sync(runs_in(tmp_path), received)
    (run,) = received.runs.values()
    assert run.exit_code == code
    assert run.described["tags"] == ["stem", "fold 0", "lost"]


KILLED = """
import sys
from pathlib import Path
from voxelsoup.study.loading import load
from voxelsoup.tracking.tracker import Identity
from voxelsoup.tracking.wandb_files import WandbTracker
from support.tracked import training
import json
opened = WandbTracker(load(json.loads(sys.argv[1])), Identity(sys.argv[2], "elsewhere"))
for n in range(3):
    opened.mirror(training(30, key=f"fold0/{n}"), lambda: None)
"""


@pytest.mark.parametrize("written", [0, 1])
def test_a_mirror_killed_in_the_middle_doubles_nothing(
    tracker: Callable[..., WandbTracker], mirrored: Path, tmp_path: Path, written: int
) -> None:
    opened = tracker()
    content = read(mirrored).model_dump(mode="json", exclude_unset=True)
    content |= {"results": str(tmp_path), "tracking": "wandb"}
    command = [sys.executable, "-c", KILLED, json.dumps(content), opened._identity.study]
    searched = os.pathsep.join([str(Path(__file__).parents[1]), os.environ["PYTHONPATH"]])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": searched})
    wandb = tmp_path / "wandb"
    while len(list(wandb.glob("offline-run-*"))) < written or not (wandb / ".writing").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = tracker()
    for n in range(3):
        again.mirror(training(30, key=f"fold0/{n}"), allowed)
    assert len(runs_in(tmp_path)) == 3
    with receiving() as received:
        sync(runs_in(tmp_path), received)
    assert [len(run.curve(LOSS)) for run in received.runs.values()] == [30, 30, 30]


def test_with_an_address_what_changed_is_sent_once(
    tracker: Callable[..., WandbTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with receiving() as received:
        opened = tracker(address=received.address)
        for epochs in (2, 3):
            for run in (whole_study(), training(epochs)):
                opened.mirror(run, allowed)
            opened.complete({"study", "fold0/stem"}, allowed)
        assert len(received.runs) == 2
        assert len(received.named("fold 0, stem").curve(LOSS)) == 3
        received.runs.clear()
        tracker(address=received.address).complete(set(), allowed)
        assert received.runs == {}


def test_an_address_that_does_not_answer_is_given_up(
    tracker: Callable[..., WandbTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_files, "SECONDS_TO_SEND", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        opened = tracker(address=f"http://127.0.0.1:{silent.getsockname()[1]}")
        opened.mirror(training(1), allowed)
        with pytest.raises(TrackerError, match="no answer within 2 s"):
            opened.complete({"fold0/stem"}, allowed)


def test_a_moved_results_folder_is_the_same_runs(mirrored: Path, tmp_path: Path) -> None:
    shutil.copytree(mirrored.parent / "results", tmp_path / "results")
    text = mirrored.read_text().replace(str(mirrored.parent), str(tmp_path))
    (tmp_path / "study.yaml").write_text(text)
    assert main(["track", str(tmp_path / "study.yaml")]) == 0
    names = [path.name.rpartition("-")[2] for path in runs_in(mirrored.parent / "results")]
    moved = [path.name.rpartition("-")[2] for path in runs_in(tmp_path / "results")]
    assert sorted(moved) == sorted(names)
