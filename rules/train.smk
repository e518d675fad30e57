# One shared stem per fold, and the trials that start from it.
from voxelsoup.runs.run_state import plan
from voxelsoup.study.ingredients import written_beside
from voxelsoup.training.run import stem_target, trial_target

# Saved states of a fold's runs: not outputs, because Snakemake deletes those of a failed job.
STATES = f"{study.results}/.state/fold{{fold}}"
# The model that the trials of a fold start from, if there is one.
START = {
    "train": ["<results>/fold{fold}/stem/model.safetensors"],
    "checkpoint": [
        (
            "<results>/elsewhere/stem/model.safetensors"
            if study.stem.is_converted
            else study.stem.checkpoint
        )
    ],
    "none": [],
}[study.stem.source]

# What may not go on with trials that diverged is made again if it did so before. Only where that is
# asked for: nothing of other studies is repeated.
DIVERGED_STOP = {"on_diverged": "stop"} if study.sweep.on_diverged == "stop" else {}

# Epochs of a run, and the settings that its result depends on: the same for all folds.
target_of_stem = cache(lambda: stem_target(study))
target_of_trial = cache(lambda trial: trial_target(trials[trial].study))


rule stem:
    """Train the model of a fold that all of its trials start from."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
    output:
        model="<results>/fold{fold}/stem/model.safetensors",
        history="<results>/fold{fold}/stem/history.csv",
        run="<results>/fold{fold}/stem/run.json",
    log:
        "<logs>/fold{fold}/stem.log",
    benchmark:
        "<benchmarks>/fold{fold}/stem.tsv"
    # Everything waits for the stems: they go first.
    priority: 10
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("stem")
    resources:
        **needs("stem"),
    params:
        run=lambda wildcards: target_of_stem(),
        folder=preprocessed_folder,
        states=f"{STATES}/stem",
        scores=kept_scores,
        # A function of the output too, so that a changed plan does not train again.
        plan=lambda wildcards, output: plan(
            f"{study.results}/.state/fold{wildcards.fold}/stem",
            *target_of_stem(),
            study.recovery.lease_seconds,
        ),
    message:
        "Stem of fold {wildcards.fold}: {params.plan}."
    script:
        "../workflow/scripts/stem.py"


rule trial:
    """Train one hyperparameter combination on one fold."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        stem=START,
    output:
        model="<results>/fold{fold}/trials/{trial}/model.safetensors",
        history="<results>/fold{fold}/trials/{trial}/history.csv",
        run="<results>/fold{fold}/trials/{trial}/run.json",
        ingredients=expand(
            "<results>/fold{{fold}}/trials/{{trial}}/{name}/model.safetensors",
            name=written_beside(study),
        ),
    log:
        "<logs>/fold{fold}/trials/{trial}.log",
    benchmark:
        "<benchmarks>/fold{fold}/trials/{trial}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("trial")
    resources:
        **needs("trial"),
    params:
        run=lambda wildcards: target_of_trial(wildcards.trial),
        folder=preprocessed_folder,
        states=f"{STATES}/trials/{{trial}}",
        scores=kept_scores,
        plan=lambda wildcards, output: plan(
            f"{study.results}/.state/fold{wildcards.fold}/trials/{wildcards.trial}",
            *target_of_trial(wildcards.trial),
            study.recovery.lease_seconds,
        ),
    message:
        "Trial {wildcards.trial} of fold {wildcards.fold}: {params.plan}."
    script:
        "../workflow/scripts/trial.py"
