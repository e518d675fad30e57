"""A study that was submitted, on a real Slurm cluster: stopped, handed over, its node lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import slurm
from support.disturbed_studies import RESOURCES, STEM, Disturbed
from support.studies import epochs_trained, wait_for, wait_for_epoch, write_tiny
from voxelsoup.cluster.head_job import sbatch_command, submit_head
from voxelsoup.commands.stop import is_open
from voxelsoup.commands.submit import script_of
from voxelsoup.runs.submission import Submission, read_submission, write_submission

# Enough for never ending by itself.
STUDY = {"stem": {"epochs": 2000}, "notify": {"mail": "me@example.org"}}


class Submitted(Disturbed):
    """A study whose stem is trained, submitted and left."""

    def voxelsoup(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the study, and wait for its end: nothing else is left of it here."""
        return subprocess.run(
            [sys.executable, "-m", "voxelsoup", command, "study.yaml", *arguments],
            cwd=self.folder,
            env=self.cluster.environment,
            capture_output=True,
            text=True,
        )

    def submit(self) -> slurm.Job:
        """Submit the study; returns its head job."""
        result = self.voxelsoup("submit", "--profile", str(self.profile), "--runtime", "30", STEM)
        assert result.returncode == 0, result.stderr
        return self.head()

    def head(self) -> slurm.Job:
        """The head job as Slurm sees it now."""
        return [job for job in self.jobs() if job.name == "voxelsoup-study"][-1]

    def status(self) -> dict[str, Any]:
        result = self.voxelsoup("status", "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def open_jobs(self) -> list[slurm.Job]:
        return [j for j in self.jobs() if j.state in ("PENDING", "RUNNING", "COMPLETING")]

    def hold(self) -> int:
        """Hold the training still, so that it is certain to meet its successor."""
        owner = self.attempts()[-1].owner
        os.kill(owner.process, signal.SIGSTOP)
        # On a busy machine the two minutes of its partition would be over too soon.
        self.cluster.run("scontrol", "update", f"JobId={owner.job}", "TimeLimit=20")
        return owner.process

    def successor_asks_for(self, held: int) -> None:
        """Wait until the next copy of the training asks for the run, and let go of the held one."""
        wait_for(lambda: list(self.states.glob("*.wanted")))
        os.kill(held, signal.SIGCONT)

    def evidence(self, code: int | str) -> str:
        log = self.folder / "results/logs/head.log"
        return "\n".join([str(code), *map(str, self.jobs()), log.read_text()[-6000:]])


@pytest.fixture
def study(cluster: slurm.Cluster, tmp_path: Path, calm: Path) -> Iterator[Submitted]:
    submitted = Submitted(cluster, tmp_path, calm)
    write_tiny(tmp_path, resources=RESOURCES, **STUDY)
    try:
        yield submitted
    finally:
        submitted.stop()


def test_a_submitted_study_is_handed_over_survives_its_node_and_is_stopped(
    study: Submitted, cluster: slurm.Cluster
) -> None:
    head, began = study.submit(), time.monotonic()
    assert (head.partition, head.time_limit) == ("cpu", "30:00")
    wait_for_epoch(study.states, 3)
    shown = study.status()["head"]
    assert (shown["job"], shown["state"], shown["node"]) == (str(head.id), "RUNNING", "cpu1")
    assert "trains 2000 epochs" in Path(shown["log"]).read_text()
    refused = study.voxelsoup("submit", "--profile", str(study.profile))
    assert refused.returncode == 1
    assert f"is running already: head job {head.id} (RUNNING)" in refused.stderr

    # Handed over in the middle of the training, before the time limit.
    held = study.hold()
    # What is edited meanwhile is for the next submission.
    write_tiny(study.folder, training={"seed": 7}, resources=RESOURCES)
    # Less than the five minutes before its end at which Slurm asks for it.
    minutes = int(time.monotonic() - began) // 60 + 3
    cluster.run("scontrol", "update", f"JobId={head.id}", f"TimeLimit={minutes}")
    wait_for(lambda: study.head().state == "PENDING")
    cluster.run("scontrol", "update", f"JobId={head.id}", "TimeLimit=30")
    cluster.start_now(head.id)
    study.successor_asks_for(held)
    wait_for(lambda: len(study.attempts()) == 2)

    # Its node dies, and what runs elsewhere goes on.
    held = study.hold()
    cluster.kill_node("cpu1")
    wait_for(lambda: study.head().state == "PENDING")
    cluster.start_node("cpu1")
    # Slurm still ends there what ran before the failure.
    time.sleep(3)
    cluster.start_now(head.id)
    study.successor_asks_for(held)
    wait_for(lambda: len(study.attempts()) == 3)
    wait_for_epoch(study.states, study.attempts()[1].to_epoch + 2)
    assert study.head().id == head.id

    # Stopped: the training has saved, and nobody submits it again.
    stopped = study.voxelsoup("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert study.open_jobs() == []
    last = study.attempts()[-1]
    assert last.stop is not None and last.stop.message == "stopped by SIGTERM"
    assert len(study.attempts()) == 3
    # Never two at the same time: every epoch once.
    assert epochs_trained(study.states) == [*range(1, last.to_epoch + 1)]
    assert study.status()["head"]["state"] == "stopped"
    assert "nothing of it runs" in study.voxelsoup("stop").stdout
    # A hand-over is no end, and is not mailed.
    of_node, of_stop = [mail for mail in cluster.mails() if f"Job_id={head.id} " in mail]
    assert ("Failed" in of_node, "CANCELLED" in of_stop) == (True, True), (of_node, of_stop)


def test_where_slurm_requeues_no_job_a_successor_is_submitted_and_ends_the_study(
    cluster: slurm.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    log = tmp_path / "head.log"
    sbatch = sbatch_command("voxelsoup-a", "cpu", 10, 500, log, {})
    first = submit_head(sbatch, script_of(tmp_path))
    # What it runs is of no interest here: it waits until it is handed over, and then ends well.
    snakemake = ["sh", "-c", "echo runs; [ -e again ] || exec sleep 600"]
    notify = "echo $VOXELSOUP_STATE $VOXELSOUP_STUDY >> told.txt"
    record = ("study.yaml", first, "", str(tmp_path), str(log), snakemake, sbatch, 60.0, notify)
    write_submission(tmp_path, Submission(*record))
    wait_for(lambda: log.exists() and "runs" in log.read_text())
    (tmp_path / "again").touch()
    cluster.run("scontrol", "update", f"JobId={first}", "Requeue=0")
    cluster.run("scancel", "--batch", "--signal=USR1", first)
    wait_for(lambda: "ends: done" in log.read_text())
    head = read_submission(tmp_path)
    assert head is not None and head.job != first and head.end == "done"
    assert f"head job {head.job} follows" in log.read_text()
    assert (tmp_path / "told.txt").read_text() == "done study.yaml\n"
    wait_for(lambda: not is_open(head.job))
    (_, successor) = [job for job in cluster.jobs() if str(job.id) in (first, head.job)]
    assert successor.state == "COMPLETED"
