"""Train a trial to the end of a rung, and score it on the selection cases of its fold."""

import logging
from dataclasses import replace
from pathlib import Path

from voxelsoup.common.files import read_json, write_text
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.evaluation.score import model_of, score_cases
from voxelsoup.models import devices
from voxelsoup.runs.guard import RunGuard
from voxelsoup.study.halving import states_of_rung
from voxelsoup.study.loading import load
from voxelsoup.study.trials import readable, trials
from voxelsoup.training import launch
from voxelsoup.training.run import run_identity, trial_run
from voxelsoup.training.tensorboard import TrainingEvents
from voxelsoup.training.train import train

with job_log(snakemake.log[0]):
    study, asked, given = load(snakemake.config), snakemake.params, snakemake.input
    fold, rung = int(snakemake.wildcards.fold), int(snakemake.wildcards.rung)
    cases = read_json(Path(given.folds))["folds"][str(fold)]
    folder, made_of = Path(asked.folder), snakemake.output
    trial = {trial.id: trial for trial in trials(study)}[snakemake.wildcards.trial]
    initial = Path(given.stem[0]) if given.stem else None
    run = trial_run(trial, fold, cases["training"], folder, initial)
    run = replace(run, pause_after=asked.epochs)

    identity = run_identity(run, read_manifest(Path(given.manifest)))
    states = states_of_rung(Path(asked.states), rung, run.last_step)
    # What is trained aside is no part of the run's curve.
    curve = Path(asked.events) if states == Path(asked.states) else None
    if study.resources.training.gpu > 1:
        log = Path(snakemake.log[0])
        shared = launch.Shared(run, identity, states, curve, log, snakemake.threads)
        launch.train_together(shared, study.resources.training.gpu)
    with RunGuard(states, identity, run.steps, study.recovery) as guard:
        sharing = study.resources.runs_per_gpu
        device = devices.prepare(study.training.device, snakemake.threads, runs_per_gpu=sharing)
        guard.recorder.trains_on(devices.name(device), device.index)
        called = f"trial {trial.id} ({readable(trial.parameters)})"
        at = f"epoch {asked.epochs}, on {devices.name(device)}"
        logging.info("fold %d, %s, to rung %d, %s: %s", fold, called, rung, at, run)
        trained = train(run, device, guard, [TrainingEvents(curve)] if curve else [])
        guard.confirm()
        model = model_of(trained.weights, study, device, Path(made_of.selection))
        write_text(Path(made_of.history), trained.history.to_csv(index=False))
        write_rows(
            Path(made_of.selection),
            score_cases(model, sorted(cases["selection"]), folder, study, device),
        )
        guard.finish()
