"""Train one run: the stem of a fold, or one of its trials."""

import logging
from pathlib import Path

from voxelsoup.common import provenance
from voxelsoup.common.files import read_json, write_json, write_text
from voxelsoup.common.logs import job_log
from voxelsoup.common.text import counted
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.models import devices, weight_files
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.journal import read_journal
from voxelsoup.study.loading import load
from voxelsoup.study.trials import readable, trials
from voxelsoup.training import launch
from voxelsoup.training.run import run_identity, stem_run, trial_run
from voxelsoup.training.tensorboard import TrainingEvents
from voxelsoup.training.train import train

with job_log(snakemake.log[0]):
    study, fold = load(snakemake.config), int(snakemake.wildcards.fold)
    cases = read_json(Path(snakemake.input.folds))["folds"][str(fold)]["training"]
    folder, states = Path(snakemake.params.folder), Path(snakemake.params.states)
    if snakemake.rule == "stem":
        name, parameters = "stem", {}
        run = stem_run(study, fold, cases, folder)
    else:
        trial = {trial.id: trial for trial in trials(study)}[snakemake.wildcards.trial]
        name, parameters = trial.id, trial.parameters
        initial = Path(snakemake.input.stem[0]) if snakemake.input.stem else None
        run = trial_run(trial, fold, cases, folder, initial)

    identity = run_identity(run, read_manifest(Path(snakemake.input.manifest)))
    results, job = Path(snakemake.output.history).parent, Path(snakemake.log[0])
    processes, sharing = max(1, study.resources.training.gpu), study.resources.runs_per_gpu
    if processes > 1:
        shared = launch.Shared(run, identity, states, results, job, snakemake.threads)
        launch.train_together(shared, processes)
    # After several processes the run is trained: this one goes on from its last state.
    with RunGuard(states, identity, run.steps, study.recovery) as guard:
        device = devices.prepare(study.training.device, snakemake.threads, runs_per_gpu=sharing)
        guard.recorder.trains_on(devices.name(device), device.index)
        started = provenance.now()
        called = f"trial {name} ({readable(parameters)})" if parameters else name
        at = f"{devices.name(device)} with {counted(snakemake.threads, 'thread')}"
        logging.info("fold %d, %s, on %s: %s", fold, called, at, run)
        trained = train(run, device, guard, [TrainingEvents(results)])

        guard.confirm()
        description = weight_files.describe(run.study)
        model = Path(snakemake.output.model)
        hashes = {model.name: weight_files.save(model, trained.weights, description)}
        for path in map(Path, snakemake.output.get("ingredients", [])):
            digest = weight_files.save(path, trained.beside[path.parent.name], description)
            hashes[f"{path.parent.name}/{path.name}"] = digest
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
                "models": hashes,
                "initial": str(run.initial) if run.initial else None,
                "initial_sha256": identity["initial"],
                "settings": identity["settings"],
                "seed": identity["seed"],
                "data_fingerprint": identity["data"],
                "training_cases": len(cases),
                "device": devices.name(device),
                "processes": processes,
                "threads": snakemake.threads,
                "machine": provenance.machine(),
                "versions": provenance.versions(),
                "commit": provenance.commit(Path(__file__).parent),
                "attempts": [e for e in read_journal(states) if e["event"] == "start"],
                "started": started,
                "ended": provenance.now(),
            },
        )
        guard.finish()
