"""Train one trial on one fold."""

import logging
from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.run_scores import score_at_once
from voxelsoup.runs.divergence import Diverged, DivergedTrial, check_divergence, divergence_of
from voxelsoup.runs.rungs import trials_at_the_end
from voxelsoup.study.loading import load
from voxelsoup.study.trials import trial_labels, trials
from voxelsoup.training.job import run_job, write_diverged, write_run
from voxelsoup.training.run import Job, run_identity, trial_run

with job_log(snakemake.log[0]):
    given, asked, model = snakemake.input, snakemake.params, Path(snakemake.output.model)
    # The final model has no fold of its own: it is trained on the cases of all of them.
    final = asked.get("fold")
    fold = int(final or snakemake.wildcards.fold)
    found = trials(load(snakemake.config))
    trial = {trial.id: trial for trial in found}[snakemake.wildcards.trial]
    folder, initial = Path(asked.folder), Path(given.stem[0]) if given.stem else None
    study, parts = study_of_fold(snakemake.config, Path(given.folds), fold, folder)
    fingerprints = read_manifest(Path(given.manifest))
    run = trial_run(trial, fold, parts["training"], folder, initial)
    job = Job(
        run,
        fold,
        name=trial.id,
        label=f"trial {trial.id} ({trial_labels(found)[trial.id]})",
        parameters=trial.parameters,
        identity=run_identity(run, fingerprints),
        states=Path(asked.states),
        events=model.parent,
        log=Path(snakemake.log[0]),
        threads=snakemake.threads,
        place="final model" if final else "",
    )
    beside = list(map(Path, snakemake.output.ingredients))
    try:
        with run_job(job) as done:
            write_run(job, done, model, beside)
        if done.at_once and not final:
            models, kept = [model, *beside], Path(asked.scores)
            score_at_once(models, kept, parts, folder, fingerprints, study, done.device)
    except Diverged as error:
        if final:
            raise
        # The study ends here if it cannot do without the trial.
        rest = trials_at_the_end(study, model.parents[2], [other.id for other in found])
        known = [divergence_of(fold, model.parents[1] / one) for one in rest if one != trial.id]
        diverged = [DivergedTrial(fold, trial.id, error.epoch, error.step), *filter(None, known)]
        check_divergence(study.sweep.on_diverged, diverged, rest, trial_labels(found))
        logging.error("%s\nthe study continues without this trial", error)
        write_diverged(job, error, model, beside)
