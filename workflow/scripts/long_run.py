"""Train one model of a fold with the steps of all others, and score it on the selection cases."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.case_scores import mean_dice, write_rows
from voxelsoup.evaluation.score import model_of, score_cases
from voxelsoup.study.trials import trials
from voxelsoup.training.job import run_job, write_run
from voxelsoup.training.run import Job, long_run, run_identity

with job_log(snakemake.log[0]):
    given, asked, made_of = snakemake.input, snakemake.params, snakemake.output
    fold, folder, model = int(snakemake.wildcards.fold), Path(asked.folder), Path(made_of.model)
    study, cases = study_of_fold(snakemake.config, Path(given.folds), fold, folder)
    run = long_run(study, trials(study), fold, cases["training"], folder)
    job = Job(
        run,
        fold,
        name="long-run",
        label="long run",
        parameters={},
        identity=run_identity(run, read_manifest(Path(given.manifest))),
        states=Path(asked.states),
        events=model.parent,
        log=Path(snakemake.log[0]),
        threads=snakemake.threads,
    )
    with run_job(job) as done:
        write_run(job, done, model, beside=[])
        trained = model_of(done.trained.weights, study, done.device, model)
        rows = score_cases(trained, sorted(cases["selection"]), folder, study, done.device)
        write_rows(Path(made_of.selection), rows)
        write_json(
            Path(made_of.recipe),
            {
                "fold": fold,
                "protocol": study.evaluation.protocol,
                "selection_cases": len(cases["selection"]),
                "recipe": "long-run",
                "score": mean_dice(rows),
                "ingredients": [],
                "steps": run.steps,
                "models_per_prediction": 1,
            },
        )
