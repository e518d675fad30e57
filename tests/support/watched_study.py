"""A small study whose runs are trained one by one, here or by a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml

from support.run_ends import fork_server
from support.runs import SETTINGS
from support.studies import wait_for
from voxelsoup.common import provenance
from voxelsoup.common.files import write_json, write_text
from voxelsoup.common.logs import job_log
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.invocation import write_invocation
from voxelsoup.runs.lease import Lease
from voxelsoup.runs.record import read_record
from voxelsoup.status.rows import RunRow
from voxelsoup.status.study_status import StatusReader
from voxelsoup.study.trials import trials
from voxelsoup.training.run import Run, stem_run, trial_run
from voxelsoup.training.train import train

CPU = torch.device("cpu")
RATES = [0.01, 0.02]


class Study:
    """A study of one fold, a stem and two trials, whose runs are trained here one by one."""

    device: tuple[str, int | None] = ("cpu", None)

    def __init__(self, folder: Path, cases: tuple[Path, list[str]], **changes: Any) -> None:
        self.folder, self.cases = folder, cases
        content = SETTINGS | {
            "results": str(folder / "results"),
            "folds": {"count": 3, "run": [0]},
            "stem": {"epochs": 3},
            "sweep": {"grid": {"optimizer.lr": RATES, "training.seed": [0]}},
        }
        self.file = folder / "study.yaml"
        self.file.write_text(yaml.safe_dump(content | changes))
        self.reader = StatusReader(self.file)
        self.settings = self.reader.study
        self.names = [run.name for run in self.reader.runs]

    def run(self, name: str) -> Run:
        prepared, cases = self.cases
        if name == "fold0/stem":
            return stem_run(self.settings, 0, cases, prepared)
        (trial,) = [t for t in trials(self.settings) if t.id == name.removeprefix("fold0/")]
        return trial_run(trial, 0, cases, prepared, initial=None)

    def known(self, name: str) -> Any:
        return next(run for run in self.reader.runs if run.name == name)

    def states(self, name: str) -> Path:
        return Path(self.known(name).states)

    def train(
        self, name: str, guard_class: Callable[..., RunGuard] = RunGuard, **recovery: float
    ) -> None:
        """Train a run as `training.job` does, and write the results that count here."""
        run, known = self.run(name), self.known(name)
        guard = guard_class(
            self.states(name), {"settings": run.settings()}, run.steps, self.settings.recovery
        )
        with job_log(known.log), guard:
            guard.recorder.trains_on(*self.device)
            started = provenance.now()
            trained = train(run, CPU, guard)
            write_text(Path(known.folder, "history.csv"), trained.history.to_csv(index=False))
            result = {"epochs": run.epochs, "device": "cpu", "machine": provenance.machine()}
            result |= {"started": started, "ended": provenance.now()}
            write_json(Path(known.folder, "run.json"), result)
            guard.finish()

    def row(self, name: str) -> RunRow:
        return next(row for row in self.reader.look().rows if row.name == name)

    def snakemake_lives(self, retries: int) -> Lease:
        """What a living Snakemake has written; its lease, to be released."""
        states = Path(self.settings.results, ".state")
        lease = Lease(states, seconds=60)
        lease.acquire()
        write_invocation(states, str(self.file), "local", retries, None)
        return lease


def train_for_ever(folder: Path, prepared: Path, settings: dict[str, Any], name: str) -> None:
    """Train a run of a study with these settings on cases that are prepared."""
    names = sorted(path.name.removesuffix(".json") for path in prepared.glob("*.json"))
    Study(folder, (prepared, names), **settings).train(name)


@contextmanager
def training(
    study: Study, lease_seconds: float = 60, name: str = "fold0/stem"
) -> Iterator[BaseProcess]:
    """A run, trained by a process of its own for ever; the study as that process sees it."""
    endless = {
        "stem": {"epochs": 100_000},
        "training": SETTINGS["training"] | {"epochs": 100_000},
        "recovery": {"lease_seconds": lease_seconds},
    }
    arguments = (study.folder, study.cases[0], endless, name)
    process = fork_server().Process(target=train_for_ever, args=arguments)
    process.start()
    try:
        wait_for(lambda: (record := read_record(study.states(name))) and record.epoch > 1)
        study.reader = StatusReader(study.file)
        study.settings = study.reader.study
        yield process
    finally:
        process.kill()
        process.join()
