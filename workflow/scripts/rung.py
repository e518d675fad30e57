"""Train a trial to the end of a rung, and score it on the selection cases of its fold."""

import logging
from dataclasses import replace
from pathlib import Path

from voxelsoup.common.files import write_text
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.case_scores import write_no_rows, write_rows
from voxelsoup.evaluation.score import model_of, score_cases
from voxelsoup.runs.divergence import Diverged
from voxelsoup.runs.rungs import states_of_rung
from voxelsoup.study.loading import load
from voxelsoup.study.trials import trial_labels, trials
from voxelsoup.training.job import diverged_history, run_job
from voxelsoup.training.run import Job, run_identity, trial_run

with job_log(snakemake.log[0]):
    given, asked, made_of = snakemake.input, snakemake.params, snakemake.output
    fold, rung = int(snakemake.wildcards.fold), int(snakemake.wildcards.rung)
    found = trials(load(snakemake.config))
    trial = {trial.id: trial for trial in found}[snakemake.wildcards.trial]
    folder, initial = Path(asked.folder), Path(given.stem[0]) if given.stem else None
    study, cases = study_of_fold(snakemake.config, Path(given.folds), fold, folder)
    run = trial_run(trial, fold, cases["training"], folder, initial)
    run = replace(run, pause_after=asked.epochs)
    states = states_of_rung(Path(asked.states), rung, run.last_step)
    job = Job(
        run,
        fold,
        name=trial.id,
        label=f"trial {trial.id} ({trial_labels(found)[trial.id]}), rung {rung}",
        parameters=trial.parameters,
        identity=run_identity(run, read_manifest(Path(given.manifest))),
        states=states,
        # What is trained aside is no part of the run's curve.
        events=Path(asked.events) if states == Path(asked.states) else None,
        log=Path(snakemake.log[0]),
        threads=snakemake.threads,
    )
    selection, history = Path(made_of.selection), Path(made_of.history)
    try:
        with run_job(job) as done:
            model = model_of(done.trained.weights, study, done.device, selection)
            scores = score_cases(model, sorted(cases["selection"]), folder, study, done.device)
            write_text(history, done.trained.history.to_csv(index=False))
            write_rows(selection, scores)
    except Diverged as error:
        # What the study does without, the comparison at the rung decides.
        if study.sweep.on_diverged == "stop":
            raise
        logging.error("%s", error)
        write_text(history, diverged_history(job, error))
        write_no_rows(selection)
