"""Train one trial on one fold."""

from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.study.loading import load
from voxelsoup.study.trials import trial_labels, trials
from voxelsoup.training.job import run_job, write_run
from voxelsoup.training.run import Job, run_identity, trial_run

with job_log(snakemake.log[0]):
    given, asked, model = snakemake.input, snakemake.params, Path(snakemake.output.model)
    fold, found = int(snakemake.wildcards.fold), trials(load(snakemake.config))
    trial = {trial.id: trial for trial in found}[snakemake.wildcards.trial]
    cases = read_json(Path(given.folds))["folds"][str(fold)]["training"]
    initial = Path(given.stem[0]) if given.stem else None
    run = trial_run(trial, fold, cases, Path(asked.folder), initial)
    job = Job(
        run,
        fold,
        name=trial.id,
        label=f"trial {trial.id} ({trial_labels(found)[trial.id]})",
        parameters=trial.parameters,
        identity=run_identity(run, read_manifest(Path(given.manifest))),
        states=Path(asked.states),
        events=model.parent,
        log=Path(snakemake.log[0]),
        threads=snakemake.threads,
    )
    with run_job(job) as done:
        write_run(job, done, model, beside=list(map(Path, snakemake.output.ingredients)))
