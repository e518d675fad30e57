# A fold's soup trained on for a short while, and the best single model in the same way.
import re

from voxelsoup.training.run import finish_target

FINISH = study.soup.finish
RATES = list(map(str, FINISH.rates))
# What is finished, and the file of a fold that says where it starts. The best single model is
# taken from the list, not from its copy: that is made together with what waits for the finish.
START_OF = {"finished": FINISH.of, "finished-best": "best"}
STARTS = {"best": "candidates.tsv"}
STARTS |= {recipe: f"soups/{recipe}/model.safetensors" for recipe in SOUPS}
# Trained towards, unless the labels alone are.
TARGETS = ["<results>/fold{fold}/finish/targets.json"] if FINISH.ensemble_share else []


wildcard_constraints:
    start="|".join(STARTS),
    rate="|".join(map(re.escape, RATES)),
    finished="|".join(FINISH.models),


rule finish_targets:
    """Write the ensemble's probabilities of a fold's training cases, a byte per voxel and region."""
    input:
        cases="<results>/cases.tsv",
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        candidates="<results>/fold{fold}/candidates.tsv",
        recipe=INGREDIENTS_OF_ENSEMBLE,
    output:
        "<results>/fold{fold}/finish/targets.json",
    log:
        "<logs>/fold{fold}/finish_targets.log",
    benchmark:
        "<benchmarks>/fold{fold}/finish_targets.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("finish_targets")
    resources:
        **needs("finish_targets"),
    params:
        overlap=study.evaluation.overlap,
        unlabelled=FINISH.unlabelled,
        folder=preprocessed_folder,
        # No output, which Snakemake would delete before each attempt: what is predicted is kept.
        targets=f"{STATES}/targets",
    message:
        "Targets of the finish of fold {wildcards.fold}: the ensemble on its training cases."
    script:
        "../workflow/scripts/finish_targets.py"


rule finish:
    """Train a soup, or the best single model, on with one learning rate."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        start=lambda wildcards: f"<results>/fold{wildcards.fold}/{STARTS[wildcards.start]}",
        targets=TARGETS,
    output:
        model="<results>/fold{fold}/finish/{start}/{rate}/model.safetensors",
        history="<results>/fold{fold}/finish/{start}/{rate}/history.csv",
        run="<results>/fold{fold}/finish/{start}/{rate}/run.json",
    log:
        "<logs>/fold{fold}/finish/{start}/{rate}.log",
    benchmark:
        "<benchmarks>/fold{fold}/finish/{start}/{rate}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("finish")
    resources:
        **needs("finish"),
    params:
        run=lambda wildcards: finish_target(study, float(wildcards.rate)),
        folder=preprocessed_folder,
        states=f"{STATES}/finish/{{start}}/{{rate}}",
        targets=f"{STATES}/targets",
        plan=lambda wildcards, output: plan(
            f"{study.results}/.state/fold{wildcards.fold}/finish/{wildcards.start}/{wildcards.rate}",
            *finish_target(study, float(wildcards.rate)),
            study.recovery.lease_seconds,
        ),
    message:
        "Finish of {wildcards.start} of fold {wildcards.fold}, rate {wildcards.rate}: {params.plan}."
    script:
        "../workflow/scripts/finish.py"


rule finished:
    """Choose the learning rate of a finish on the selection cases."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        candidates="<results>/fold{fold}/candidates.tsv",
        recipe=lambda wildcards: [
            f"<results>/fold{wildcards.fold}/soups/{START_OF[wildcards.finished]}/recipe.json"
            for _ in range(START_OF[wildcards.finished] in SOUPS)
        ],
        runs=lambda wildcards: expand(
            "<results>/fold{fold}/finish/{start}/{rate}/run.json",
            fold=wildcards.fold,
            start=START_OF[wildcards.finished],
            rate=RATES,
        ),
        models=lambda wildcards: expand(
            "<results>/fold{fold}/finish/{start}/{rate}/model.safetensors",
            fold=wildcards.fold,
            start=START_OF[wildcards.finished],
            rate=RATES,
        ),
    output:
        model="<results>/fold{fold}/soups/{finished}/model.safetensors",
        recipe=report(
            "<results>/fold{fold}/soups/{finished}/recipe.json",
            caption="../workflow/report/finished.rst",
            category=SECTIONS["basin"],
            labels={"result": "{finished}, fold {fold}"},
        ),
        selection="<results>/fold{fold}/soups/{finished}/selection.csv",
    log:
        "<logs>/fold{fold}/soups/{finished}.log",
    benchmark:
        "<benchmarks>/fold{fold}/soups/{finished}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("finished")
    resources:
        **needs("finished"),
    params:
        evaluation=SETTINGS["evaluation"],
        of=lambda wildcards: START_OF[wildcards.finished],
        rates=FINISH.rates,
        folder=preprocessed_folder,
    message:
        "Model {wildcards.finished} of fold {wildcards.fold}."
    script:
        "../workflow/scripts/finished.py"
