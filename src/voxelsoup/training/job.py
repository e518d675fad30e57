"""A run's job: trained under the lease of the run, on one GPU or several, and written down."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from voxelsoup.common import provenance
from voxelsoup.common.errors import Stopped
from voxelsoup.common.files import atomic_write, sha256, write_json, write_text
from voxelsoup.common.logs import report_end
from voxelsoup.common.plug_ins import RECORDED
from voxelsoup.common.text import counted
from voxelsoup.models import devices, weight_files
from voxelsoup.runs.divergence import Diverged, check_not_diverged
from voxelsoup.runs.guard import HISTORY, RunGuard
from voxelsoup.runs.record import read_record, read_result, read_saved
from voxelsoup.runs.watchdog import Watchdog
from voxelsoup.study.plug_ins import records_of_training
from voxelsoup.training.launch import train_together
from voxelsoup.training.out_of_memory import as_refusal, explained
from voxelsoup.training.run import Job
from voxelsoup.training.tensorboard import TrainingEvents
from voxelsoup.training.train import Trained, train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobDone:
    """What a job has trained, the device to evaluate it on, and when this attempt began.

    ``at_once`` says whether the run was not complete before: nobody has tried to evaluate it.
    """

    trained: Trained
    device: torch.device
    started: str
    at_once: bool


@contextmanager
def run_job(job: Job) -> Iterator[JobDone]:
    """Train a job's run to its end or its pause; within the block its results may be written.

    The run's lease is held until the block ends, so that no other copy of the job writes the same
    files; the run counts as finished when the block has ended without an error.

    Raises:
        InputError: if the run cannot be trained with these settings.
        Diverged: if its numbers are NaN or infinite, and were again after it went back; also if an
            earlier attempt found that, at once.
        GpuMemoryFull: if its GPU has too little memory.
        Stopped: if it was asked to end, or another copy of it took over.
    """
    try:
        check_not_diverged(job.states, job.identity, job.run.last_step)
        with _trained(job) as done:
            yield done
    except Diverged as error:
        raise error.of_run(str(job)) from None
    except torch.OutOfMemoryError as error:
        raise as_refusal(error, str(job)) from error


@contextmanager
def _trained(job: Job) -> Iterator[JobDone]:
    run, resources = job.run, job.run.study.resources
    started, saved = provenance.now(), read_saved(job.states)
    at_once = saved is None or saved.step < run.last_step
    if job.processes > 1:
        # Afterwards the run is trained: this process resumes from its last state.
        train_together(job, job.processes)
    with RunGuard(
        job.states, job.identity, run.steps, run.study.recovery, run.study.on_code_change
    ) as guard:
        device = devices.prepare(
            run.study.training.device, job.threads, runs_per_gpu=resources.runs_per_gpu
        )
        guard.recorder.trains_on(devices.name(device), device.index, devices.memory(device))

        def end(reason: Stopped) -> None:
            guard.ends_now(reason)
            os._exit(report_end(job.log, reason))

        where = f"{devices.name(device)} with {counted(job.threads, 'thread')}"
        log.info("%s, on %s: %s", job, where, run)
        observers = [TrainingEvents(job.events)] if job.events else []
        watched = Watchdog(run.study.training.watchdog, end)
        with explained(run, device), watched as watchdog:
            result = train(run, device, guard, observers, watchdog=watchdog)
        guard.confirm()
        yield JobDone(result, device, started, at_once)
        guard.finish()


def write_run(job: Job, done: JobDone, model: Path, beside: list[Path]) -> None:
    """Write a run's own model, its history and its record beside that, and its other weights.

    Files of the others, ``beside``, are in folders of their names (``ingredients``).
    """
    run, trained = job.run, done.trained
    description = weight_files.describe(run.study)
    hashes = {model.name: weight_files.save(model, trained.weights, description)}
    for path in beside:
        name = path.parent.name
        digest = weight_files.save(path, trained.beside[name], description)
        hashes[f"{name}/{path.name}"] = digest
    write_text(model.with_name("history.csv"), trained.history.to_csv(index=False))
    of_training = {
        "parameter_count": trained.parameter_count,
        "models": hashes,
        "device": devices.name(done.device),
        "started": done.started,
    }
    write_json(model.with_name("run.json"), _record(job) | of_training)


def take_over_results(job: Job, model: Path, name: str, states: Path, results: Path) -> bool:
    """Write the results of another run as those of a job, if it is the same run and has ended.

    It is the same if everything that its result depends on is equal (``run_identity``), among it
    the weights that it starts from, bit for bit. The record says where the results were taken from.

    Args:
        model: where the job's own model goes.
        name: of the other run; its states and its results lie in ``states`` and ``results``.

    Returns:
        Whether it was so.
    """
    record, content = read_record(states), read_result(results)
    saved = record.saved if record is not None and record.state == "finished" else None
    # As JSON has it.
    if saved is None or saved.identity != json.loads(json.dumps(job.identity)):
        return False
    trained = results / model.name
    if content.get("steps") != job.run.steps or not trained.is_file():
        return False
    if content["models"] != {model.name: sha256(trained)}:
        return False
    log.info("%s is the same run as %s, whose results are taken", job, name)
    with atomic_write(model) as copy:
        shutil.copyfile(trained, copy)
    write_text(model.with_name(HISTORY), (results / HISTORY).read_text(encoding="utf-8"))
    own = _record(job)
    kept = {key: own[key] for key in ("run", "initial", "initial_sha256", "attempts", "ended")}
    kept |= {"started": own["ended"], "taken_from": name}
    write_json(model.with_name("run.json"), content | kept)
    return True


def write_diverged(job: Job, error: Diverged, model: Path, beside: list[Path]) -> None:
    """Write that a run has diverged in the places of its results: no file holds any weights."""
    for path in (model, *beside):
        weight_files.write_no_weights(path)
    write_text(model.with_name("history.csv"), diverged_history(job, error))
    # Where training ended; it is the one thing that tells a diverged run from another one.
    content = _record(job) | {"diverged": {"epoch": error.epoch, "step": error.step}, "models": {}}
    last = content["attempts"][-1:]
    content |= {"started": last[0]["started"] if last else content["ended"]}
    write_json(model.with_name("run.json"), content)


def diverged_history(job: Job, error: Diverged) -> str:
    """The epochs of a run before it diverged, and one without a loss that it did so in, as CSV."""
    rows: list[dict[str, float]] = []
    with suppress(OSError, ValueError):
        rows = pd.read_csv(job.states / HISTORY).to_dict("records")
    rows = [row for row in rows if row["epoch"] < error.epoch]
    last = {"epoch": error.epoch, "step": error.step, "training_loss": math.nan, "lr": math.nan}
    return pd.DataFrame([*rows, last]).to_csv(index=False, na_rep="nan")


def _record(job: Job) -> dict[str, Any]:
    """What ``run.json`` says of any run that has ended."""
    run, record = job.run, read_record(job.states)
    return {
        "fold": job.fold,
        "run": job.name,
        "parameters": job.parameters,
        "epochs": run.epochs,
        "steps": run.steps,
        "initial": str(run.initial) if run.initial else None,
        "initial_sha256": sha256(run.initial) if run.initial else None,
        "settings": job.identity["settings"],
        "seed": job.identity["seed"],
        "data_fingerprint": job.identity["data"],
        "training_cases": len(run.cases),
        "processes": job.processes,
        "threads": job.threads,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.source(),
        **({RECORDED: used} if (used := records_of_training(run.study)) else {}),
        "attempts": [asdict(attempt) for attempt in record.attempts] if record else [],
        "ended": provenance.now(),
    }
