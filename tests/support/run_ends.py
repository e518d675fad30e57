"""Every way in which a run ends, with and without data workers, alone and with two processes.

Each end is one of real processes: a job is trained in a process of its own, something happens to
it, and what is left of it afterwards is looked for.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from support.runs import small_run, small_study
from voxelsoup.common.logs import job_log
from voxelsoup.models import weight_files
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.record import read_record
from voxelsoup.training.job import run_job
from voxelsoup.training.run import Job, Run
from voxelsoup.training.train import train

# A run that nothing ends.
ENDLESS = {"epochs": 10**6, "steps_per_epoch": 5, "batch_size": 2}
# Seconds in which a run should have ended on an idle machine, in which it is taken for hung on a
# busy one, and in which it should have begun there.
SHOULD_END, HUNG, SHOULD_BEGIN = 30.0, 120.0, 300.0
ENDS = ("error", "NaN", "TERM", "USR1", "worker killed", "parent killed")
# What the user is told, and the exit code of the job, by what ended it.
EXPECTED = {
    "error": (r"case\S*\.image\.npy: cannot be read: .*\n +expected: .*\n +fix: ", 1),
    "NaN": (r"NaN or infinite", 1),
    "TERM": (r"stopped by SIGTERM", 75),
    "USR1": (r"stopped by SIGUSR1", 75),
    "worker killed": (
        r"data workers \(`training\.workers`\), process \d+, was ended by SIGKILL, probably "
        r"because main memory ran out\n +fix: raise `resources\.training\.mem_mb`, or lower",
        75,
    ),
    # Alone it can say nothing itself: the record lacks an end, and the lease a heartbeat.
    "parent killed": ("", -signal.SIGKILL),
}


@dataclass(frozen=True)
class Ended:
    """What came of a run.

    Attributes:
        code: exit code of its job.
        seconds: from what ended it until none of its processes was left.
        printed: what the job wrote to the terminal.
        left: processes that were still there after ``HUNG`` seconds; they are killed.
        saved: the step of its newest state.
    """

    code: int | None
    seconds: float
    printed: str
    left: list[int]
    saved: int

    def fault(self, end: str) -> str:
        """What is wrong with an end of this kind, in a few words; empty if it is as it should."""
        message, code = EXPECTED[end]
        if self.left:
            return f"{len(self.left)} processes left after {HUNG:.0f} s"
        if self.code != code:
            return f"exit code {self.code}, not {code}"
        if self.printed.count("voxelsoup: ") != bool(message) or "Traceback" in self.printed:
            return "not one message"
        if not re.search(message, self.printed):
            return "another message"
        return ""


def end_of_run(end: str, workers: int, ranks: int, cases: Path, folder: Path) -> Ended:
    """Train a run on the preprocessed cases of a folder, and let it end in one of ``ENDS``.

    ``folder`` is one of its own, where everything is written.
    """
    run = _run(end, workers, ranks, cases, folder)
    printed, states = folder / "printed.txt", folder / "states"
    process = fork_server().Process(target=train_job, args=(run, folder, printed))
    process.start()
    assert process.pid is not None
    of_itself = end in ("error", "NaN")
    family: set[int] = set()
    begun = _stopped if of_itself else _has_trained
    _wait(process, family, lambda: begun(states) or not process.is_alive(), SHOULD_BEGIN)
    began = time.monotonic()
    if not of_itself:
        _disturb(end, process.pid, ranks)
    # Asked for its end, the job is no zombie any more.
    _wait(process, family, lambda: not process.is_alive() and not any(map(_is_alive, family)), HUNG)
    seconds = time.monotonic() - began
    left = [one for one in family if _is_alive(one)]
    for one in left:
        os.kill(one, signal.SIGKILL)
    process.join()
    record = read_record(states)
    saved = record.saved.step if record and record.saved else 0
    return Ended(process.exitcode, seconds, printed.read_text(), left, saved)


@cache
def fork_server() -> ForkServerContext:
    """A process that has imported everything once, from which others are forked."""
    context = multiprocessing.get_context("forkserver")
    # The second one is imported with the first step of an optimizer.
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


def _run(end: str, workers: int, ranks: int, cases: Path, folder: Path) -> Run:
    """An endless run, prepared for its end."""
    if end == "error":
        cases = Path(shutil.copytree(cases, folder / "cases"))
        for image in cases.glob("*.image.npy"):
            os.truncate(image, image.stat().st_size // 2)
    optimizer: dict[str, Any] = {"name": "sgd", "schedule": "constant", "lr": 1e-5}
    changes: dict[str, Any] = {"gradient_clip": None} if end == "NaN" else {}
    study = small_study(
        optimizer=optimizer | {"lr": 1e30 if end == "NaN" else 1e-5},
        training=ENDLESS | changes | {"workers": workers, "device": "cpu"},
        resources={"training": {"gpu": ranks}},
        recovery={"save_minutes": 0.01},
    )
    return small_run(study, cases, sorted(path.stem for path in cases.glob("*.json")))


def train_job(run: Run, folder: Path, printed: Path) -> None:
    """What the script of a rule does, with what it prints in a file."""
    import torch

    with printed.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)
    log, identity = folder / "log.txt", {"settings": run.settings()}
    with job_log(log):
        job = Job(run, 0, "trial", "trial", {}, identity, folder / "states", None, log, 2)
        with run_job(job):
            pass


def train_again(cases: Path, states: Path, target: Path) -> None:
    """Train a short run as a job does, with states at every chance, and write its model."""
    import torch

    torch.set_num_threads(1)
    often = {"save_minutes": 1e-5}
    study = small_study(training={"epochs": 4, "steps_per_epoch": 10}, recovery=often)
    run = small_run(study, cases, sorted(path.stem for path in cases.glob("*.json")))
    identity = {"settings": run.settings()}
    with (
        job_log(states / "log"),
        RunGuard(states, identity, run.steps, study.recovery) as guard,
    ):
        trained = train(run, torch.device("cpu"), guard)
        guard.confirm()
        weight_files.save(target, trained.weights, {})
        guard.finish()


def _disturb(end: str, process: int, ranks: int) -> None:
    if end == "TERM":
        # As Slurm, which sends it to all processes.
        for one in _family(process):
            os.kill(one, signal.SIGTERM)
    elif end == "USR1":
        os.kill(process, signal.SIGUSR1)
    elif end == "parent killed":
        os.kill(process, signal.SIGKILL)
    else:
        parent = process if ranks == 1 else max(_children(process))
        os.kill(max(_children(parent)), signal.SIGKILL)


def _wait(process: Any, family: set[int], condition: Callable[[], object], seconds: float) -> None:
    """Wait until something is the case, or the time is over; collects the job's processes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        family |= _family(process.pid)
        if condition():
            break
        time.sleep(0.05)


def _has_trained(states: Path) -> bool:
    record = read_record(states)
    return record is not None and record.epoch >= 2


def _stopped(states: Path) -> bool:
    record = read_record(states)
    return record is not None and record.state == "stopped"


def _children(process: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except OSError:
        return []


def _family(process: int) -> set[int]:
    """A process and all that it has started, directly or not."""
    found, waiting = set(), [process]
    while waiting:
        found.add(one := waiting.pop())
        waiting += _children(one)
    return found


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
