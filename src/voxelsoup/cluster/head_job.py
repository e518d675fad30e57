"""The head job of a study: the Slurm job in which the study's own Snakemake runs.

One job all the time: before its time limit it puts itself back into the queue, and Slurm does so
when its node dies. Its number stays, it takes one place among the submitted jobs, and Slurm mails
at its end and at no hand-over.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from voxelsoup.cluster.slurm import PATIENCE_S, ask, no_commands
from voxelsoup.common.errors import InputError

# Before the time limit Slurm asks for the hand-over: so many seconds, or a quarter of a short job.
# It may do so up to a minute early.
HAND_OVER_S = 300
# Of these nothing more is to come.
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL",
    "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT",
)  # fmt: skip
LAYOUT = "%T|%N|%S|%r"


@dataclass(frozen=True)
class SlurmState:
    """What Slurm says of a job now.

    Attributes:
        since: when it began to run, or is expected to.
        reason: why it waits, by Slurm's word.
    """

    state: str
    node: str
    since: datetime | None
    reason: str

    @property
    def is_open(self) -> bool:
        """Whether it waits, runs or is just ending."""
        return self.state not in ENDED


def sbatch_command(
    name: str,
    partition: str,
    minutes: int,
    mem_mb: int,
    log: Path,
    options: Mapping[str, str | None],
    extra: str = "",
) -> list[str]:
    """The call that submits a head job, whose script it reads from its standard input.

    ``options`` are further ones of ``sbatch`` by their names; None leaves one out. ``extra`` is the
    profile's ``slurm_extra``, which must not replace what makes it a head job.
    """
    seconds = min(HAND_OVER_S, 60 * minutes // 4)
    given = [f"--{key}={value}" for key, value in options.items() if value is not None]
    return [
        *("sbatch", "--parsable", *shlex.split(extra), *given, f"--job-name={name}"),
        *(f"--partition={partition}", f"--time={minutes}", f"--mem={mem_mb}"),
        *("--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--export=ALL", "--requeue"),
        *(f"--signal=B:USR1@{seconds}", "--open-mode=append", f"--output={log}"),
    ]


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what Slurm says in it of the job that this process is in.

    ``sbatch`` and ``srun`` take these variables for options of new jobs, and Snakemake's plugin
    would remove all of them, ``SLURM_CONF`` included, by which they find their cluster.
    """
    return {
        key: value
        for key, value in environment.items()
        if key == "SLURM_CONF" or not key.startswith("SLURM_")
    }


def submit_head(command: Sequence[str], script: str) -> str:
    """Submit a head job; returns its number.

    Raises:
        InputError: with Slurm's words if it does not take it.
    """
    try:
        result = subprocess.run(
            command,
            input=script,
            env=without_job(os.environ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except FileNotFoundError as error:
        raise no_commands(command[0], "there is no such command here") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(
            "sbatch",
            f"no answer within {PATIENCE_S} s",
            "the number of the head job",
            "look with `squeue --me` whether it was submitted, and cancel it before you try again",
        ) from error
    if result.returncode != 0:
        raise InputError(
            "sbatch",
            f"Slurm does not take the head job: {result.stderr.strip()}",
            "a partition, account and QOS that are yours",
            "correct the profile; `voxelsoup doctor` checks it",
        )
    # With several clusters: number;cluster.
    return result.stdout.strip().partition(";")[0]


def state_of(job: str) -> SlurmState | None:
    """What Slurm says of a job; None if it has forgotten it.

    Raises:
        InputError: if Slurm does not answer.
    """
    answer = ask("squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={LAYOUT}")
    if answer.returncode != 0 and "Invalid job id" not in answer.stderr:
        raise InputError(
            "squeue",
            f"Slurm does not answer: {answer.stderr.strip()}",
            "what has become of the head job",
            "try again later",
        )
    lines = answer.stdout.strip().splitlines()
    return parse_state(lines[0]) if lines else None


def parse_state(line: str) -> SlurmState:
    """Read a line of ``squeue`` in ``LAYOUT``."""
    state, node, since, reason = line.split("|", 3)
    try:
        began = datetime.fromisoformat(since).astimezone()
    except ValueError:
        began = None
    return SlurmState(state, node, began, reason)


def requeue(job: str) -> str:
    """Put a running job back into the queue, which ends it here; returns why not, if it cannot."""
    try:
        answer = ask("scontrol", "requeue", job)
    except InputError as error:
        return error.found
    return "" if answer.returncode == 0 else answer.stderr.strip() or "scontrol failed"


def cancel(*jobs: str) -> None:
    """Ask jobs to end; those that have ended already are no error.

    Raises:
        InputError: if Slurm does not answer.
    """
    if jobs:
        ask("scancel", *jobs)
