"""Submissions that a real Slurm refuses: waited for, or the end of the study; preempted jobs.

A workflow of seconds takes the place of a study: same plugin, same patches.
"""

from __future__ import annotations

import copy
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support import slurm
from support.studies import REPOSITORY, TINY, wait_for
from voxelsoup.cluster.associations import (
    check_associations,
    limits_of_jobs,
    refuse_too_long,
)
from voxelsoup.cluster.partitions import Submission
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.submission_errors import classify
from voxelsoup.cluster.upstream_patches import gres_options
from voxelsoup.common.errors import InputError
from voxelsoup.study.loading import load

# `{n}.txt` is made once `go` is there; a job that is run for the first time may stay at it.
SNAKEFILE = f"""
import sys
from pathlib import Path

sys.path.insert(0, {str(REPOSITORY / "src")!r})
from voxelsoup.cluster import upstream_patches


def note(text, ends):
    with Path("notes.txt").open("a") as notes:
        print(text, file=notes)


if workflow.is_main_process:
    upstream_patches.patch_slurm_plugin(note)


localrules: all, go

rule all:
    input: expand("{{n}}.txt", n=range(config["jobs"]))

rule go:
    output: "go"
    shell: "until [ -e may_go ]; do sleep 0.2; done; touch {{output}}"

rule work:
    input: "go"
    output: "{{n}}.txt"
    shell: "echo $$ >> {{wildcards.n}}.runs; {{config[command]}}; touch {{output}}"
"""
# Each of them ends by itself, within seconds on an idle machine.
PATIENCE_S = 300


class Workflow:
    """Jobs `work`, submitted as a group each."""

    def __init__(self, cluster: slurm.Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.earlier = {job.id for job in cluster.jobs()}
        self.process: subprocess.Popen[str] | None = None
        (folder / "Snakefile").write_text(SNAKEFILE)
        (folder / "may_go").touch()

    def start(
        self, *options: str, jobs: int = 1, command: str = "true", group: bool = True, **asked: Any
    ) -> None:
        """Start Snakemake; ``asked`` are resources of the jobs."""
        resources = {"slurm_partition": "cpu", "mem_mb": 500, "runtime": 5} | asked
        arguments = ["--executor", "slurm", "--jobs", "4", "--retries", "2", "--keep-going"]
        arguments += ["--slurm-status-command", "squeue", "--latency-wait", "10"]
        arguments += ["--slurm-init-seconds-before-status-checks", "2"]
        arguments += ["--config", f"jobs={jobs}", f"command={command}"]
        arguments += [
            "--default-resources",
            *(f"{key}={value}" for key, value in asked_(resources)),
        ]
        arguments += ["--groups", "work=run"] if group else []
        with (self.folder / "printed.txt").open("w") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments, *options],
                cwd=self.folder,
                env=self.cluster.environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
                text=True,
                # Tests that run in the background of a shell ignore Ctrl-C, and so would this.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    def ends(self) -> int:
        """The exit status, once it ends."""
        assert self.process is not None
        try:
            return self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still waits: {self.printed()}") from None

    def printed(self) -> str:
        """All that Snakemake has printed so far."""
        return (self.folder / "printed.txt").read_text()

    def notes(self) -> list[str]:
        """What the status was given to show, one after the other."""
        return (self.folder / "notes.txt").read_text().splitlines()

    def jobs(self) -> list[slurm.Job]:
        """The submissions of this workflow."""
        return [job for job in self.cluster.jobs("run") if job.id not in self.earlier]

    def states(self) -> list[str]:
        """What became of its submissions, in order."""
        return [job.state for job in self.jobs()]


def asked_(resources: dict[str, Any]) -> list[tuple[str, Any]]:
    """Resources as Snakemake takes them: texts are expressions."""
    return [(k, f"'{v}'" if isinstance(v, str) else v) for k, v in resources.items()]


@pytest.fixture
def workflow(accounting_cluster: slurm.Cluster, tmp_path: Path) -> Iterator[Workflow]:
    workflow = Workflow(accounting_cluster, tmp_path)
    try:
        yield workflow
    finally:
        accounting_cluster.end(workflow.process, workflow.jobs)


@pytest.fixture
def one_job_at_a_time(accounting_cluster: slurm.Cluster) -> Iterator[None]:
    """You may have one job in the queue."""
    accounting_cluster.limit(MaxSubmitJobs=1)
    try:
        yield
    finally:
        accounting_cluster.limit(MaxSubmitJobs=-1)


@pytest.mark.usefixtures("one_job_at_a_time")
def test_a_limit_of_submitted_jobs_is_waited_for(workflow: Workflow) -> None:
    workflow.start(jobs=2)
    assert workflow.ends() == 0, workflow.printed()
    printed = workflow.printed()
    # Said once, and no attempt used up.
    assert printed.count("AssocMaxSubmitJobLimit") == 1
    assert "Slurm takes jobs again" in printed
    assert "Trying to restart" not in printed and "Error in" not in printed
    assert workflow.states() == ["COMPLETED"] * 2
    assert "AssocMaxSubmitJobLimit" in workflow.notes()[0]
    assert workflow.notes()[-1] == ""


@pytest.mark.usefixtures("one_job_at_a_time")
def test_ctrl_c_ends_a_study_whose_jobs_wait_to_be_submitted(workflow: Workflow) -> None:
    workflow.start(jobs=2, command="sleep 100")
    wait_for(lambda: "Slurm takes no job for now" in workflow.printed(), PATIENCE_S)
    assert workflow.process is not None
    workflow.process.send_signal(signal.SIGINT)
    assert workflow.ends() != 0
    wait_for(lambda: workflow.states() == ["CANCELLED"], PATIENCE_S)


def test_what_slurm_can_never_accept_ends_the_study_with_the_fix(workflow: Workflow) -> None:
    workflow.start(jobs=2, group=False, slurm_extra="--no-such-option")
    assert workflow.ends() == 1
    printed = workflow.printed()
    assert printed.count("unrecognized option '--no-such-option'") == 1
    assert re.search("fix: .*slurm_extra", printed)
    assert "Trying to restart" not in printed and "Traceback" not in printed
    assert workflow.jobs() == []
    assert workflow.notes()[-1].startswith("ended: ")


def test_a_refused_group_ends_the_study_once_running_jobs_are_done(workflow: Workflow) -> None:
    of_each = "'nobody' if wildcards.n == '1' else 'test'"
    workflow.start("--set-resources", f"work:slurm_account={of_each}", jobs=2)
    assert workflow.ends() == 1
    printed = workflow.printed()
    assert printed.count("The given account nobody appears to be invalid") == 1
    assert re.search("fix: .*slurm_account", printed)
    assert "Trying to restart" not in printed and "Traceback" not in printed
    assert workflow.states() == ["COMPLETED"]
    assert (workflow.folder / "0.txt").exists()


def test_an_unknown_failure_is_shown_and_counts_as_an_attempt(workflow: Workflow) -> None:
    (workflow.folder / "bin").mkdir()
    sbatch = workflow.folder / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: the moon is full' >&2; exit 1\n")
    sbatch.chmod(0o755)
    environment = workflow.cluster.environment
    path = {"PATH": f"{sbatch.parent}:{environment['PATH']}"}
    workflow.cluster.environment = environment | path
    try:
        workflow.start()
        assert workflow.ends() == 1
    finally:
        workflow.cluster.environment = environment
    assert workflow.printed().count("the moon is full") == 3
    assert workflow.printed().count("Trying to restart") == 2


def test_a_preempted_job_is_submitted_again(
    workflow: Workflow, accounting_cluster: slurm.Cluster
) -> None:
    first = "if [ ! -e 0.second ]; then touch 0.second; sleep 100; fi"
    workflow.start("--retries", "0", command=first, slurm_partition="scavenger")
    wait_for((workflow.folder / "0.second").exists, PATIENCE_S)
    accounting_cluster.run(
        "sbatch", "-p", "urgent", "--exclusive", "-o", "/dev/null", "--wrap=true"
    )
    assert workflow.ends() == 0, workflow.printed()
    assert workflow.states() == ["PREEMPTED", "COMPLETED"]


def test_gpu_models_as_nvml_names_them_are_requested(accounting_cluster: slurm.Cluster) -> None:
    asked = {"gpu": 2, "gpu_model": slurm.A100_BY_NVML}
    options = gres_options(SimpleNamespace(resources=asked)).split()
    command = ["sbatch", "--test-only", "--partition=gpu-short", *options, "--wrap=true"]
    answer = subprocess.run(
        command, env=accounting_cluster.environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    "options",
    [
        "--account=nobody",
        "--qos=nobody",
        "--no-such-option",
        "--partition=nowhere",
        "--time=100",
        "--time=soon",
        "--mem=90000",
        "--cpus-per-task=90",
        "--nodes=5",
        "--gpus=1",
        "--gres=unknown:1",
        "--constraint=unknown",
        "--reservation=unknown",
    ],
)
def test_what_sbatch_says_of_a_job_that_can_never_run_is_understood(
    accounting_cluster: slurm.Cluster, options: str
) -> None:
    said = refusal(accounting_cluster, "--partition=cpu", options)
    assert classify(said).kind == "for good", said


def refusal(cluster: slurm.Cluster, *options: str) -> str:
    """What `sbatch` says of a job that it does not submit."""
    answer = subprocess.run(
        ["sbatch", *options, "--wrap=true"],
        cwd=cluster.folder,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert answer.returncode != 0
    return answer.stderr


def test_what_sbatch_says_of_a_partition_that_is_drained_is_waited_for(
    accounting_cluster: slurm.Cluster,
) -> None:
    accounting_cluster.run("scontrol", "update", "PartitionName=cpu", "State=DRAIN")
    try:
        said = refusal(accounting_cluster, "--partition=cpu")
    finally:
        accounting_cluster.run("scontrol", "update", "PartitionName=cpu", "State=UP")
    assert classify(said).kind == "for now", said


def test_what_sbatch_says_of_a_controller_that_is_away_is_waited_for(
    accounting_cluster: slurm.Cluster,
) -> None:
    accounting_cluster.kill_controller()
    try:
        said = refusal(accounting_cluster, "--partition=cpu")
    finally:
        accounting_cluster.start_controller()
    assert classify(said).kind == "for now", said


@pytest.fixture
def here(accounting_cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch) -> slurm.Cluster:
    """This process is on the submission node."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, accounting_cluster.environment[name])
    return accounting_cluster


def checks(planned_minutes: int = 5, **site: Any) -> list[str]:
    """What the doctor says of account and QOS; problems after a colon."""
    resources = {"gpu": 0, "mem_mb": 100, "runtime": planned_minutes, "cpus_per_task": 1}
    planned = [[Submission("stem", 1, resources)]]
    found = check_associations(Site(Path("partitions.yaml"), **site), planned)
    return [f"{check.what} {check.problem or ''}".strip() for check in found]


def start_check(runtime: int, **site: Any) -> str:
    """Why a start refuses a study whose trials ask for so many minutes; empty if it does not."""
    study = load(copy.deepcopy(TINY) | {"resources": {"training": {"runtime": runtime}}})
    try:
        refuse_too_long(study, Site(Path("partitions.yaml"), **site), ["trial"])
    except InputError as error:
        return str(error)
    return ""


def test_limits_of_account_and_qos_are_shown_and_a_job_that_is_too_long_is_refused(
    here: slurm.Cluster,
) -> None:
    no_limit = "no limit of jobs or run time"
    longest = "the longest job may take 5 min (stem, attempt 1)"
    assert checks() == [f"account test: {no_limit}", f"QOS normal: {no_limit}", longest]
    here.limit(MaxSubmitJobs=2, MaxJobs=1, MaxWall=10)
    try:
        (limited, _, short_enough) = checks(jobs=4)
        (*_, too_long) = checks(planned_minutes=11)
        refused = start_check(runtime=11)
        taken = start_check(runtime=5), start_check(runtime=11, account="no_such")
        # The limit of a QOS comes before that of an account.
        here.run("sacctmgr", "-i", "modify", "qos", "normal", "set", "MaxWall=12")
        taken_by_qos = start_check(runtime=11)
        of_all_jobs = limits_of_jobs(Site(Path("partitions.yaml")))
    finally:
        here.limit(MaxSubmitJobs=-1, MaxJobs=-1, MaxWall=-1)
        here.run("sacctmgr", "-i", "modify", "qos", "normal", "set", "MaxWall=-1")
    assert short_enough == longest
    assert (taken, taken_by_qos) == (("", ""), "")
    assert refused.startswith("account test: ") and "fix: lower `runtime`" in refused
    assert "2 jobs may wait or run at a time (`jobs` in the profile: 4; the rest waits)" in limited
    assert "1 jobs may run at a time, a job may take 10 min" in limited
    assert "at most 10 min" in too_long
    # What a head job and the jobs beside it have to keep to.
    assert [(one.submitted, one.running, one.runtime) for one in of_all_jobs] == [
        (2, 1, 10),
        (math.inf, math.inf, 12),
    ]


@pytest.mark.parametrize("wrong", [{"account": "tset"}, {"qos": "nromal"}])
def test_the_doctor_names_an_account_or_qos_that_is_not_yours(
    here: slurm.Cluster, wrong: dict[str, str]
) -> None:
    (said,) = checks(**wrong)
    assert "did you mean" in said and "sacctmgr show associations" in said
