"""A run's job: trained under the lease of the run, on one GPU or several, and written down."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from voxelsoup.common import provenance
from voxelsoup.common.files import sha256, write_json, write_text
from voxelsoup.common.text import counted
from voxelsoup.models import devices, weight_files
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.record import read_record
from voxelsoup.training.launch import train_together
from voxelsoup.training.run import Job
from voxelsoup.training.tensorboard import TrainingEvents
from voxelsoup.training.train import Trained, train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobDone:
    """What a job has trained, the device to evaluate it on, and when this attempt began."""

    trained: Trained
    device: torch.device
    started: str


@contextmanager
def run_job(job: Job) -> Iterator[JobDone]:
    """Train a job's run to its end or its pause; within the block its results may be written.

    The run's lease is held until the block ends, so that no other copy of the job writes the same
    files; the run counts as finished when the block has ended without an error.

    Raises:
        InputError: if the run cannot be trained with these settings.
        Stopped: if it was asked to end, or another copy of it took over.
    """
    run, resources = job.run, job.run.study.resources
    started = provenance.now()
    if job.processes > 1:
        # Afterwards the run is trained: this process resumes from its last state.
        train_together(job, job.processes)
    with RunGuard(
        job.states, job.identity, run.steps, run.study.recovery, run.study.on_code_change
    ) as guard:
        device = devices.prepare(
            run.study.training.device, job.threads, runs_per_gpu=resources.runs_per_gpu
        )
        guard.recorder.trains_on(devices.name(device), device.index)
        where = f"{devices.name(device)} with {counted(job.threads, 'thread')}"
        log.info("%s, on %s: %s", job, where, run)
        observers = [TrainingEvents(job.events)] if job.events else []
        result = train(run, device, guard, observers)
        guard.confirm()
        yield JobDone(result, device, started)
        guard.finish()


def write_run(job: Job, done: JobDone, model: Path, beside: list[Path]) -> None:
    """Write a run's own model, its history and its record beside that, and its other weights.

    Files of the others, ``beside``, are in folders of their names (``ingredients``).
    """
    run, trained, record = job.run, done.trained, read_record(job.states)
    description = weight_files.describe(run.study)
    hashes = {model.name: weight_files.save(model, trained.weights, description)}
    for path in beside:
        name = path.parent.name
        digest = weight_files.save(path, trained.beside[name], description)
        hashes[f"{name}/{path.name}"] = digest
    write_text(model.with_name("history.csv"), trained.history.to_csv(index=False))
    write_json(
        model.with_name("run.json"),
        {
            "fold": job.fold,
            "run": job.name,
            "parameters": job.parameters,
            "epochs": run.epochs,
            "steps": run.steps,
            "parameter_count": trained.parameter_count,
            "models": hashes,
            "initial": str(run.initial) if run.initial else None,
            "initial_sha256": sha256(run.initial) if run.initial else None,
            "settings": job.identity["settings"],
            "seed": job.identity["seed"],
            "data_fingerprint": job.identity["data"],
            "training_cases": len(run.cases),
            "device": devices.name(done.device),
            "processes": job.processes,
            "threads": job.threads,
            "machine": provenance.machine(),
            "versions": provenance.versions(),
            "commit": provenance.commit(Path(__file__).parent),
            "attempts": [asdict(attempt) for attempt in record.attempts] if record else [],
            "started": done.started,
            "ended": provenance.now(),
        },
    )
