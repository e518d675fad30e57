"""Train one run: the stem of a fold, or one of its trials."""

from pathlib import Path

from segsoup import checkpoints, devices, provenance
from segsoup.files import read_json, write_json, write_text
from segsoup.logs import job_log
from segsoup.preprocess import read_manifest
from segsoup.runs import stem_run, trial_run
from segsoup.study import load
from segsoup.sweep import trials
from segsoup.training import train

with job_log(snakemake.log[0]):
    study, fold = load(snakemake.config), int(snakemake.wildcards.fold)
    cases = read_json(Path(snakemake.input.folds))["folds"][str(fold)]["training"]
    folder = Path(snakemake.params.folder)
    if snakemake.rule == "stem":
        name, parameters = "stem", {}
        run = stem_run(study, fold, cases, folder)
    else:
        trial = {trial.id: trial for trial in trials(study)}[snakemake.wildcards.trial]
        name, parameters = trial.id, trial.parameters
        initial = Path(snakemake.input.stem[0]) if snakemake.input.stem else None
        run = trial_run(trial, fold, cases, folder, initial)

    device = devices.prepare(study.training.device, snakemake.threads)
    started = provenance.now()
    trained = train(run, device)

    checkpoints.save(Path(snakemake.output.model), trained.weights, checkpoints.describe(run.study))
    write_text(Path(snakemake.output.history), trained.history.to_csv(index=False))
    write_json(
        Path(snakemake.output.run),
        {
            "fold": fold,
            "run": name,
            "parameters": parameters,
            "epochs": run.epochs,
            "steps": run.steps,
            "parameter_count": trained.parameter_count,
            "seed": list(run.seed),
            "initial": str(run.initial) if run.initial else None,
            "settings": run.settings(),
            "data_fingerprint": provenance.data_fingerprint(
                read_manifest(Path(snakemake.input.manifest)), cases
            ),
            "training_cases": len(cases),
            "device": devices.name(device),
            "threads": snakemake.threads,
            "machine": provenance.machine(),
            "versions": provenance.versions(),
            "commit": provenance.commit(Path(__file__).parent),
            "started": started,
            "ended": provenance.now(),
        },
    )
