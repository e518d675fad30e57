# One model with the steps of all others: what the same computing time gives without a soup.
from voxelsoup.training.run import long_run_target


rule long_run:
    """Train one model of a fold from random weights, and score it on the selection cases."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
    output:
        model="<results>/fold{fold}/soups/long-run/model.safetensors",
        history="<results>/fold{fold}/soups/long-run/history.csv",
        run="<results>/fold{fold}/soups/long-run/run.json",
        recipe="<results>/fold{fold}/soups/long-run/recipe.json",
        selection="<results>/fold{fold}/soups/long-run/selection.csv",
    log:
        "<logs>/fold{fold}/soups/long-run.log",
    benchmark:
        "<benchmarks>/fold{fold}/soups/long-run.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("long_run")
    resources:
        **needs("long_run"),
    params:
        run=lambda wildcards: long_run_target(study, TRIALS),
        evaluation=SETTINGS["evaluation"],
        folder=preprocessed_folder,
        states=f"{STATES}/long-run",
        plan=lambda wildcards, output: plan(
            f"{study.results}/.state/fold{wildcards.fold}/long-run",
            *long_run_target(study, TRIALS),
            study.recovery.lease_seconds,
        ),
    message:
        "Long run of fold {wildcards.fold}: {params.plan}."
    script:
        "../workflow/scripts/long_run.py"
