"""The status of a study on a real Slurm cluster: what waits, runs, failed and was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import slurm
from support.checks import nonempty
from support.studies import REPOSITORY, run_locally, wait_for, wait_for_epoch, write_tiny
from voxelsoup.runs.record import read_record
from voxelsoup.study.loading import read
from voxelsoup.study.trials import trials

# The first one's loss soon becomes NaN; none of the others ends by itself meanwhile.
RATES = [1e30, 0.01, 0.02, 0.03, 0.04]
# Most of a node of the short partition each, so that two run at a time.
RESOURCES: dict[str, dict[str, int]] = {
    "training": {"gpu": 1, "mem_mb": 5000, "runtime": 1},
    "evaluation": {"gpu": 1, "mem_mb": 1500, "runtime": 1},
}


class OnCluster:
    """A study whose trials have been submitted, all at once and for one attempt each."""

    def __init__(self, cluster: slurm.Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.earlier = {job.id for job in cluster.jobs()}
        optimizer = {"name": "sgd", "schedule": "constant"}
        changes = {"optimizer": optimizer, "training": {"epochs": 2000}, "resources": RESOURCES}
        grid = {"grid": {"optimizer.lr": RATES}, "on_diverged": "stop"}
        self.file = write_tiny(folder, stem={"source": "none"}, sweep=grid, **changes)
        run_locally(folder, "results/preprocessed.tsv", "results/folds.json")
        self.ids = [trial.id for trial in trials(read(self.file))]
        profile = cluster.write_profile(folder / "profile", retries=0, jobs=len(RATES))
        # Scores are asked for, so that training and evaluation of a trial are one submission.
        targets = [f"results/fold0/trials/{trial}/test.csv" for trial in self.ids]
        self.snakemake = cluster.snakemake(folder, profile, self.file, *targets)

    def jobs(self) -> list[slurm.Job]:
        """The submissions of this study's trials."""
        return [job for job in self.cluster.jobs("fold0/") if job.id not in self.earlier]

    def states_of(self, trial: str) -> Path:
        return self.folder / "results/.state/fold0/trials" / trial

    def status(self) -> dict[str, Any]:
        """What `voxelsoup status` says, run where Slurm's commands are."""
        result = subprocess.run(
            [sys.executable, "-m", "voxelsoup.commands.cli", "status", str(self.file), "--json"],
            cwd=self.folder,
            env=self.cluster.environment | {"PYTHONPATH": str(REPOSITORY / "src")},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Trial -> its row."""
        return {row["run"]: row for row in self.status()["rows"]}

    def wait_for_state(self, trial: str, state: str) -> dict[str, Any]:
        """The row of a trial, once it is in a state."""
        rows: list[dict[str, Any]] = []

        def reached() -> bool:
            rows.append(self.rows()[trial])
            return rows[-1]["state"] == state

        wait_for(reached)
        return rows[-1]

    def working(self) -> list[str]:
        """The trials that Slurm runs and whose training has begun."""
        jobs = [job for job in self.jobs() if job.state == "RUNNING"]
        named = [job.comment.split()[-1].removeprefix("fold0/") for job in jobs]
        return [trial for trial in named if read_record(self.states_of(trial)) is not None]

    def stop(self) -> None:
        """Leave nothing running."""
        self.cluster.end(self.snakemake, self.jobs, "--signal=KILL", "--full")


@pytest.fixture
def study(cluster: slurm.Cluster, tmp_path: Path) -> Iterator[OnCluster]:
    on_cluster = OnCluster(cluster, tmp_path)
    try:
        yield on_cluster
    finally:
        on_cluster.stop()


def test_status_distinguishes_waiting_running_failed_and_killed_runs(
    study: OnCluster, cluster: slurm.Cluster
) -> None:
    bad, *others = study.ids
    wait_for(lambda: len(study.jobs()) == len(RATES))
    jobs = {job.comment.split()[-1].removeprefix("fold0/"): job for job in study.jobs()}
    # Whatever the order of submission: the one that fails by itself is next.
    if jobs[bad].state == "PENDING":
        cluster.run("scontrol", "update", f"JobId={jobs[bad].id}", "Priority=4294967290")
    wait_for(lambda: len(set(study.working()) & set(others)) == 2)
    killed, running = (trial for trial in study.working() if trial != bad)
    # On a busy machine the two minutes of their partition may be over too soon.
    for trial in (killed, running):
        cluster.run("scontrol", "update", f"JobId={jobs[trial].id}", "TimeLimit=10")
    for trial in (killed, running):
        wait_for_epoch(study.states_of(trial), 2)
    rows = study.rows()
    assert [rows[trial]["state"] for trial in (killed, running)] == ["running", "running"]
    assert rows[running]["partition"] == "gpu-short"
    assert rows[running]["job"] == str(jobs[running].id)
    queued = [trial for trial in others if trial not in (killed, running)]
    for trial in nonempty(queued):
        assert rows[trial]["state"] == "queued"
        assert rows[trial]["detail"] in ("waits for free resources", "others come first")
        assert (rows[trial]["job"], rows[trial]["host"]) == (str(jobs[trial].id), None)
        # It would train to the end of this test.
        cluster.cancel(jobs[trial])

    record = read_record(study.states_of(killed))
    assert record is not None
    os.kill(record.attempts[-1].owner.process, signal.SIGKILL)
    assert study.rows()[killed]["state"] in ("lost", "failed")
    row = study.wait_for_state(killed, "failed")
    assert row["detail"] == "killed, no reason known"
    row = study.wait_for_state(bad, "failed")
    assert row["detail"] == "diverged"
    cluster.cancel(jobs[running])
    row = study.wait_for_state(running, "failed")
    assert (row["detail"], row["attempt"]) == ("cancelled", 1)
    assert study.status()["note"] == ""

    # Without the controller, what runs wrote is reported all the same.
    cluster.kill_controller()
    try:
        status = study.status()
    finally:
        cluster.start_controller()
    assert status["note"].startswith("Slurm ")
    states = {row["run"]: row["state"] for row in status["rows"]}
    assert (states[bad], states[running], states[killed]) == ("failed", "failed", "lost")
