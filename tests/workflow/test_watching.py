"""A study under observation: the terminal, the logs, and TensorBoard on the results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pandas as pd
import pytest
import yaml

from support.checks import nonempty
from support.studies import LOCAL_PROFILE, copy_data, wait_for
from support.workflows import COLUMNS, REPOSITORY, on_a_terminal, snakemake, write_study

CONFIG = REPOSITORY / "config.yaml"
FOLDS, TRIALS = 2, 4
STEM_EPOCHS, EPOCHS = 6, 3


@dataclass
class Watched:
    """A study that was run, and what the terminal showed of it."""

    folder: Path
    shown: str

    @property
    def results(self) -> Path:
        return self.folder / "results"


@pytest.fixture(scope="module")
def watched(demo: Path) -> Watched:
    """The study as shipped, which ran on a terminal; for reading only."""
    return Watched(demo, (demo / "printed.txt").read_text())


def test_the_terminal_shows_the_progress_of_the_study(watched: Watched) -> None:
    counts = re.findall(r"^(\d+) of (\d+) steps \((\d+)%\) done$", watched.shown, re.MULTILINE)
    done = [int(count) for count, _, _ in counts]
    total = int(counts[0][1])
    assert done == list(range(1, total + 1))
    assert counts[-1][2] == "100"


def test_the_terminal_has_a_line_per_job_and_no_lists_of_files(watched: Watched) -> None:
    jobs = re.findall(r"^Job \d+: (.+)$", watched.shown, re.MULTILINE)
    total = int(re.findall(r"of (\d+) steps", watched.shown)[0])
    # All but `all`, which does nothing.
    assert len(jobs) == total - 1
    assert "Stem of fold 0: trains 6 epochs." in jobs
    trials = [job for job in jobs if re.fullmatch(r"Trial [0-9a-f]{8} of fold [01]: .*", job)]
    assert len(trials) == FOLDS * TRIALS
    for noise in ("Reason:", "Python version", "benchmark:"):
        assert noise not in watched.shown
    assert max(map(len, jobs)) < COLUMNS


def test_the_terminal_ends_with_the_comparison_and_the_report(watched: Watched) -> None:
    assert re.search(r"Best Model\s+Greedy Soup", watched.shown)
    assert "Report: results/report.html" in watched.shown


def test_a_plan_has_the_reasons_on_a_terminal_too(watched: Watched) -> None:
    code, shown = on_a_terminal(watched.folder, CONFIG, "-n", "--forcerun", "stem")
    assert code == 0
    assert "Reason: Forced execution" in shown


def test_output_to_a_file_has_the_reasons(watched: Watched, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", f"{watched.folder}/.", str(tmp_path)], check=True)
    printed = snakemake(
        tmp_path, "--profile", str(LOCAL_PROFILE), "--touch", "--forcerun", "folds", "folds"
    )
    assert "Reason: Forced execution" in printed


def test_a_failure_is_reported_on_the_terminal_and_by_the_exit_code(
    watched: Watched, tmp_path: Path
) -> None:
    copy_data(watched.folder, tmp_path)
    shipped = yaml.safe_load(CONFIG.read_text())
    diverges = {"name": "sgd", "schedule": "constant", "lr": 1e30}
    study = write_study(
        tmp_path / "study.yaml",
        training=shipped["training"] | {"gradient_clip": None},
        stem={"epochs": 1, "optimizer": diverges},
    )
    code, shown = on_a_terminal(tmp_path, study, "results/fold0/stem/model.safetensors")
    assert code == 1
    assert "Error in rule stem" in shown
    assert "lower `optimizer.lr`" in shown


def lines_of(log: Path) -> list[str]:
    """The lines of a log without their times."""
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines), lines
    return [line[len("12:34:56 ") :] for line in lines]


def test_a_log_begins_with_the_runs_name_and_has_a_line_per_epoch(watched: Watched) -> None:
    logs = [
        log
        for log in (watched.results / "logs").glob("fold?/**/*.log")
        if re.fullmatch("stem|[0-9a-f]{8}", log.stem)
    ]
    assert len(logs) == FOLDS * (1 + TRIALS)
    for log in logs:
        fold = log.relative_to(watched.results / "logs").parts[0].removeprefix("fold")
        first, *others = lines_of(log)
        run = r"stem|trial [0-9a-f]{8} \((schedule-free|schedule constant), seed [01]\)"
        batch = "batch 2, patch 32 × 32 × 32"
        threads = r"on cpu with (one thread|\d threads)"
        what = rf"fold {fold}, ({run}), {threads}: [36] epochs of 20 steps, {batch}, .*"
        assert re.fullmatch(what, first), first
        trained = STEM_EPOCHS if log.stem == "stem" else EPOCHS
        epochs, scores = others[:trained], others[trained:]
        # Then the run's models are scored; a stem's elsewhere, if its trials would wait for that.
        assert scores or log.stem == "stem"
        assert all(re.fullmatch(r".*: (scores of \d+ cases|mean Dice .*)", s) for s in scores)
        for line in epochs:
            assert re.fullmatch(
                r"epoch [ \d]*\d of \d+   loss \d\.\d{4}   lr \d\.\d\de[-+]\d\d   +\d+\.\d s   "
                r"\d\.\d GB(   ends (\d\d \w+ )?\d\d:\d\d)?",
                line,
            ), line
        # Under each other.
        assert len({line.index("loss") for line in epochs}) == 1
        assert len({line.index("GB") for line in epochs}) == 1


@dataclass
class TensorBoard:
    """A TensorBoard server."""

    address: str

    def ask(self, path: str, **body: Any) -> Any:
        """The answer of one of its services, which is asked by POST if there is a body."""
        data = json.dumps(body).encode() if body else None
        request = Request(self.address + path, data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def curve(self, run: str, tag: str) -> dict[int, float]:
        """Step -> value."""
        asked = f"data/plugin/scalars/scalars?run={quote(run, safe='')}&tag={quote(tag, safe='')}"
        points = self.ask(asked)
        assert len({step for _, step, _ in points}) == len(points)
        return {step: value for _, step, value in points}


@pytest.fixture(scope="module")
def tensorboard(
    watched: Watched, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TensorBoard]:
    """The server as a user starts it, on a free port."""
    said = tmp_path_factory.mktemp("tensorboard") / "said.txt"
    command = [str(Path(sys.executable).with_name("tensorboard")), "--logdir", "results"]
    with said.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--port", "0", "--host", "127.0.0.1"],
            cwd=watched.folder,
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_for(lambda: "Press CTRL+C" in said.read_text(), 60)
        found = re.search(r"at (http://\S+)", said.read_text())
        assert found
        server = TensorBoard(found[1])
        wait_for(lambda: len(server.ask("data/runs")) == FOLDS * (1 + TRIALS), 60)
        yield server
    finally:
        process.terminate()
        process.wait()


def test_tensorboard_names_the_runs_by_their_folders(
    watched: Watched, tensorboard: TensorBoard
) -> None:
    trained = [file.parent for file in watched.results.glob("fold?/**/history.csv")]
    names = {str(folder.relative_to(watched.results)) for folder in trained}
    assert set(tensorboard.ask("data/runs")) == names and len(names) == FOLDS * (1 + TRIALS)


def test_tensorboard_shows_the_history_and_the_selection_scores(
    watched: Watched, tensorboard: TensorBoard
) -> None:
    for run in nonempty(tensorboard.ask("data/runs")):
        folder = watched.results / run
        history = pd.read_csv(folder / "history.csv")
        loss = tensorboard.curve(run, "training/loss")
        assert list(loss) == history["step"].tolist()
        assert list(loss.values()) == pytest.approx(history["training_loss"].tolist(), rel=1e-6)
        rows = pd.read_csv(folder / "selection.csv")
        score = tensorboard.curve(run, "selection/dice")
        assert score == {history["step"].iloc[-1]: pytest.approx(rows["dice"].mean(), rel=1e-6)}


def test_tensorboard_shows_nothing_of_the_test_cases(tensorboard: TensorBoard) -> None:
    for tags in nonempty(tensorboard.ask("data/plugin/scalars/tags").values()):
        assert set(tags) == {
            "training/loss",
            "training/learning rate",
            "throughput/epochs per hour",
            "memory/main (MB)",
            "selection/dice",
            "selection/dice TC",
            "selection/dice WT",
            "selection/dice ET",
            "selection/loss",
        }


def test_tensorboard_compares_the_trials_by_their_hyperparameters(tensorboard: TensorBoard) -> None:
    experiment = tensorboard.ask("data/plugin/hparams/experiment", experimentName="")
    swept = ["optimizer.schedule", "training.seed"]
    assert sorted(info["name"] for info in experiment["hparamInfos"]) == swept
    metric = {"group": "", "tag": "selection/dice"}
    column = {"metric": metric, "order": "ORDER_DESC"}
    groups = tensorboard.ask(
        "data/plugin/hparams/session_groups",
        experimentName="",
        colParams=[column],
        startIndex=0,
        sliceSize=10,
        allowedStatuses=["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        aggregationType="AGGREGATION_AVG",
    )["sessionGroups"]
    found = sorted(tuple(group["hparams"][key] for key in swept) for group in groups)
    settings = [(name, seed) for name in ("constant", "schedule-free") for seed in (0.0, 1.0)]
    assert found == [pair for pair in settings for _ in range(FOLDS)]
    for group in groups:
        scores = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        (run,) = [session["name"] for session in group["sessions"]]
        (score,) = tensorboard.curve(run, "selection/dice").values()
        assert scores["selection/dice"] == pytest.approx(score)
