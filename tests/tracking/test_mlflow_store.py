"""A study's runs in MLflow: its real store, read by its own client and its own pages."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, expect

from support.tracked import BEGAN, tracked_demo, training, whole_study
from voxelsoup.commands.cli import main
from voxelsoup.commands.track import mirror_once
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.runs.lease import LeaseTaken
from voxelsoup.study.loading import read
from voxelsoup.tracking.mirror import Mirror
from voxelsoup.tracking.mlflow_store import MlflowTracker, quiet_environment
from voxelsoup.tracking.tracker import Identity

quiet_environment()
LOSS = "training/loss"


def allowed() -> None:
    """The lease holds."""


@pytest.fixture(scope="module")
def mirrored(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file of the demo, mirrored once with every connection to a network refused."""
    study = tracked_demo(demo, tmp_path_factory.mktemp("demo") / "study", tool="mlflow")
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object) -> None:
            raise AssertionError("something leaves the machine")

        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        assert main(["track", str(study)]) == 0
    return study


def client_of(study: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{study.parent}/results/mlflow/mlflow.db")


def runs_of(client: Any, study: str | Path) -> dict[str, Any]:
    """Key -> run, of all experiments; every key once. ``study``: its id, or its file."""
    if isinstance(study, Path):
        study = read_json(study.parent / "results/.state/tracking/study.json")["study"]
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments, filter_string=f"tags.`voxelsoup.study` = '{study}'")
    found = {run.data.tags["voxelsoup.key"]: run for run in runs}
    assert len(found) == len(runs)
    return found


def curve_of(client: Any, run: Any, name: str = LOSS) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]


def content(client: Any, study: str | Path) -> dict[str, Any]:
    """All that MLflow has of a study, without ids."""
    return {
        key: {
            "status": run.info.status,
            "parameters": run.data.params,
            "curves": {name: curve_of(client, run, name) for name in sorted(run.data.metrics)},
            "artefacts": sorted(one.path for one in client.list_artifacts(run.info.run_id)),
        }
        for key, run in runs_of(client, study).items()
    }


def test_every_training_has_its_curve_its_parameters_and_its_selection_score(
    mirrored: Path,
) -> None:
    client, results = client_of(mirrored), mirrored.parent / "results"
    runs = runs_of(client, mirrored)
    histories = sorted(results.glob("fold*/trials/*/history.csv"))
    assert len(histories) == 8
    for history in histories:
        run = runs[f"{history.parents[2].name}/{history.parent.name}"]
        with history.open() as stream:
            rows = [
                (int(row["step"]), float(row["training_loss"])) for row in csv.DictReader(stream)
            ]
        assert curve_of(client, run) == rows
        assert run.data.params["optimizer.schedule"] == run.data.tags["sweep.optimizer.schedule"]
        assert 0 < run.data.metrics["selection/dice"] < 1
        # People would choose by them.
        assert not [name for name in run.data.metrics if name.startswith("test/")]
        assert run.info.status == "FINISHED"
        assert run.info.start_time < run.info.end_time


def test_all_runs_are_children_of_the_study_s(mirrored: Path) -> None:
    runs = runs_of(client_of(mirrored), mirrored)
    parent = runs.pop("study")
    assert len(runs) == 2 * (1 + 4 + 4)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.data.tags["kind"] for run in runs.values()} == {
        *("stem", "trial", "best", "soup", "ensemble"),
    }
    assert {run.data.tags["fold"] for run in runs.values()} == {"0", "1"}


def test_compared_models_have_their_test_scores_and_their_weights(mirrored: Path) -> None:
    client, results = client_of(mirrored), mirrored.parent / "results"
    run = runs_of(client, mirrored)["fold1/soups/greedy"]
    with (results / "fold1/soups/greedy/test.csv").open() as stream:
        dice = [float(row["dice"]) for row in csv.DictReader(stream)]
    assert run.data.metrics["test/dice"] == pytest.approx(sum(dice) / len(dice), abs=1e-12)
    folder = Path(client.download_artifacts(run.info.run_id, ""))
    weights = "fold1/soups/greedy/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == (results / weights).read_bytes()


def test_the_study_has_the_tables_the_report_and_the_answer(mirrored: Path) -> None:
    client, results = client_of(mirrored), mirrored.parent / "results"
    run = runs_of(client, mirrored)["study"]
    folder = Path(client.download_artifacts(run.info.run_id, ""))
    assert (folder / "report.html").read_bytes() == (results / "report.html").read_bytes()
    assert (folder / "comparison/overview.csv").is_file()
    with (results / "comparison/overview.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["region"] == "mean"]
    for row in rows:
        assert run.data.metrics[f"test/dice/{row['model']}"] == float(row["dice_mean"])
    answer = (results / "comparison/answer.rst").read_text().strip()
    assert run.data.tags["mlflow.note.content"] == answer[:5000]
    assert "primary/difference" in run.data.metrics


def test_mirroring_again_doubles_nothing(mirrored: Path) -> None:
    client = client_of(mirrored)
    before = content(client, mirrored)
    # As after a change that trackers are told of: all is looked at again.
    for run in runs_of(client, mirrored).values():
        client.set_tag(run.info.run_id, "voxelsoup.digest", "")
    assert main(["track", str(mirrored)]) == 0
    assert content(client, mirrored) == before


def test_a_second_mirror_at_the_same_time_leaves_the_tracker_alone(
    mirrored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mirror(mirrored):
        with pytest.raises(LeaseTaken):
            Mirror(mirrored).__enter__()
        assert main(["track", str(mirrored)]) == 75
    assert "another mirror is at work" in capsys.readouterr().err


def test_moved_results_are_the_same_runs_with_their_artefacts(
    mirrored: Path, tmp_path: Path
) -> None:
    shutil.copytree(mirrored.parent / "results", tmp_path / "results")
    text = mirrored.read_text().replace(str(mirrored.parent), str(tmp_path))
    (tmp_path / "study.yaml").write_text(text)
    assert main(["track", str(tmp_path / "study.yaml")]) == 0
    client = client_of(tmp_path / "study.yaml")
    assert content(client, mirrored) == content(client_of(mirrored), mirrored)
    run = runs_of(client, mirrored)["study"]
    assert run.info.artifact_uri.startswith(f"file://{tmp_path}/")


@pytest.fixture
def tracker(mirrored: Path) -> Callable[[], MlflowTracker]:
    """Opens the store of the demo as that of another study, empty at first."""
    study, identity = read(mirrored), Identity(uuid.uuid4().hex, "elsewhere")
    return lambda: MlflowTracker(study, identity)


def stored(tracker: MlflowTracker) -> dict[str, Any]:
    return content(tracker._client, tracker._identity.study)


def mirror(tracker: MlflowTracker, *runs: Any) -> None:
    for run in (whole_study(), *runs):
        tracker.mirror(run, allowed)


def test_a_training_at_work_grows_and_what_it_repeats_is_not_doubled(
    tracker: Callable[[], MlflowTracker],
) -> None:
    mirror(tracker(), training(3))
    # It was killed and resumed from its state after epoch 1, in front of another mirror.
    again = tracker()
    for epochs in (1, 2, 3, 5):
        mirror(again, training(epochs))
    run = stored(again)["fold0/stem"]
    assert run["curves"][LOSS] == [(20 * n, pytest.approx(1 / n)) for n in range(1, 6)]
    assert run["status"] == "RUNNING"


@pytest.mark.parametrize(
    "change", [{"first": 2.0}, {"parameters": {"optimizer": {"lr": 0.02}}}], ids=["epoch", "lr"]
)
def test_a_training_that_started_over_replaces_its_run(
    tracker: Callable[[], MlflowTracker], change: dict[str, Any]
) -> None:
    mirror(tracker(), training(3))
    again = tracker()
    mirror(again, training(2, **change))
    run = stored(again)["fold0/stem"]
    assert [step for step, _ in run["curves"][LOSS]] == [20, 40]
    assert run["curves"][LOSS][0][1] == change.get("first", 1.0)


@pytest.mark.parametrize(
    ("status", "shown"),
    [("scheduled", "SCHEDULED"), ("failed", "FAILED"), ("killed", "KILLED")],
)
def test_the_status_of_a_run_is_mlflow_s(
    tracker: Callable[[], MlflowTracker], status: Any, shown: str
) -> None:
    opened = tracker()
    mirror(opened, training(1), training(1, status=status, state="why", ended=BEGAN + 90))
    assert stored(opened)["fold0/stem"]["status"] == shown
    # It resumes.
    mirror(opened, training(2))
    assert stored(opened)["fold0/stem"]["status"] == "RUNNING"


def test_a_table_that_is_made_again_is_a_further_step_of_the_study(
    tracker: Callable[[], MlflowTracker],
) -> None:
    opened = tracker()
    for dice in (0.7, 0.7, 0.8):
        opened.mirror(whole_study(scores={"test/dice/Greedy Soup": dice}), allowed)
    curves = stored(opened)["study"]["curves"]
    assert curves["test/dice/Greedy Soup"] == [(0, 0.7), (1, 0.8)]


def test_a_deleted_run_stays_as_what_it_was(tracker: Callable[[], MlflowTracker]) -> None:
    mirror(tracker(), training(2), training(2, key="fold0/0a1b2c3d"))
    opened = tracker()
    opened.complete({"study", "fold0/stem"}, allowed)
    runs = runs_of(opened._client, opened._identity.study)
    assert runs["fold0/0a1b2c3d"].data.tags["voxelsoup.state"] == "deleted"
    assert runs["fold0/0a1b2c3d"].info.status == "KILLED"
    assert runs["fold0/stem"].info.status == "RUNNING"


def test_a_mirror_killed_anywhere_doubles_nothing(
    tracker: Callable[[], MlflowTracker],
) -> None:
    runs = [whole_study(), *(training(30, key=f"fold0/{n}") for n in range(3))]
    delay, killed = 0.02, 0
    while True:
        child = os.fork()
        if child == 0:
            try:
                opened = tracker()
                for run in runs:
                    opened.mirror(run, allowed)
                os._exit(0)
            except BaseException:
                os._exit(1)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        killed, delay = killed + 1, delay * 1.5
    assert killed > 3
    found = stored(tracker())
    assert set(found) == {"study", "fold0/0", "fold0/1", "fold0/2"}
    steps = [20 * n for n in range(1, 31)]
    for n in range(3):
        assert [step for step, _ in found[f"fold0/{n}"]["curves"][LOSS]] == steps


def test_an_address_that_does_not_answer_is_one_message(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        study = tracked_demo(demo, tmp_path / "study", tool="mlflow", address=address)
        with (
            pytest.raises(InputError, match=f"MLflow at {address}") as raised,
            Mirror(study) as one,
        ):
            mirror_once(one, study)
    assert "what it has is not written twice" in str(raised.value)


@pytest.fixture(scope="module")
def pages(mirrored: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of MLflow's own pages on the demo's store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = f"sqlite:///{mirrored.parent}/results/mlflow/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    command += ["--port", str(port), "--workers", "1"]
    folder = tmp_path_factory.mktemp("pages")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urlopen(f"{address}/health", timeout=5).close()
                break
            except (URLError, OSError):
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_mlflow_s_own_pages_show_the_study_its_runs_and_a_curve(
    mirrored: Path, pages: str, browser: Browser
) -> None:
    client = client_of(mirrored)
    runs = runs_of(client, mirrored)
    trial = next(run for run in runs.values() if run.data.tags["kind"] == "trial")
    experiment = trial.info.experiment_id
    page = browser.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    try:
        page.goto(f"{pages}/#/experiments/{experiment}/runs")
        # The children are folded into their parent.
        parent = page.get_by_role("gridcell").filter(has=page.get_by_role("link", name="study"))
        expect(parent.first).to_be_visible(timeout=60_000)
        expect(page.get_by_role("link", name="fold 0, greedy")).to_have_count(0)
        parent.first.get_by_role("button").first.click()
        expect(page.get_by_role("link", name="fold 0, greedy").first).to_be_visible()
        page.goto(f"{pages}/#/experiments/{experiment}/runs/{trial.info.run_id}")
        expect(page.get_by_text(trial.info.run_name).first).to_be_visible()
        expect(page.get_by_text("optimizer.schedule").first).to_be_visible()
        expect(page.get_by_text("selection/dice").first).to_be_visible()
        page.goto(f"{pages}/#/experiments/{experiment}/runs/{trial.info.run_id}/model-metrics")
        # The curve is drawn.
        expect(page.locator(".js-plotly-plot").first).to_be_visible()
    finally:
        page.close()
