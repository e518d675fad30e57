# Trials averaged into one model, and the ensemble that this replaces.
from voxelsoup.study.ingredients import averaged_already

# The soup whose ingredients the ensemble has, if it has not all.
INGREDIENTS_OF_ENSEMBLE = (
    []
    if study.soup.ensemble_of == "all"
    else [f"<results>/fold{{fold}}/soups/{study.soup.ensemble_of}/recipe.json"]
)


rule soup:
    """Make a soup of a fold's trials, choosing on the selection cases."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        candidates="<results>/fold{fold}/candidates.tsv",
    output:
        model="<results>/fold{fold}/soups/{recipe}/model.safetensors",
        recipe=report(
            "<results>/fold{fold}/soups/{recipe}/recipe.json",
            caption="../workflow/report/recipe.rst",
            category=SECTIONS["basin"],
            labels={"result": "{recipe}, fold {fold}"},
        ),
        selection="<results>/fold{fold}/soups/{recipe}/selection.csv",
    log:
        "<logs>/fold{fold}/soups/{recipe}.log",
    benchmark:
        "<benchmarks>/fold{fold}/soups/{recipe}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("soup")
    resources:
        **needs("soup"),
    params:
        evaluation=SETTINGS["evaluation"],
        race=study.soup.race,
        folder=preprocessed_folder,
        # Case scores of candidate soups, shared by all recipes and `basin`.
        cache=f"{study.results}/.state/fold{{fold}}/candidates.jsonl",
    message:
        "Soup {wildcards.recipe} of fold {wildcards.fold}."
    script:
        "../workflow/scripts/soup.py"


rule ensemble:
    """Score the mean of the probabilities of several trials: the costly reference for soups."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        candidates="<results>/fold{fold}/candidates.tsv",
        recipe=INGREDIENTS_OF_ENSEMBLE,
        postprocessing="<results>/fold{fold}/postprocessing.json",
    output:
        recipe=report(
            "<results>/fold{fold}/soups/ensemble/recipe.json",
            caption="../workflow/report/ensemble.rst",
            category=SECTIONS["basin"],
            labels={"result": "ensemble, fold {fold}"},
        ),
        selection="<results>/fold{fold}/soups/ensemble/selection.csv",
        test="<results>/fold{fold}/soups/ensemble/test.csv",
        postprocessed="<results>/fold{fold}/soups/ensemble/postprocessed.csv",
    log:
        "<logs>/fold{fold}/soups/ensemble.log",
    benchmark:
        "<benchmarks>/fold{fold}/soups/ensemble.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("ensemble")
    resources:
        **needs("ensemble"),
    params:
        evaluation=SETTINGS["evaluation"],
        metrics=SETTINGS["metrics"],
        made_of=study.soup.ensemble_of,
        folder=preprocessed_folder,
        # Apart from the scores that soups choose by.
        cache=f"{study.results}/.state/fold{{fold}}/ensemble.jsonl",
    message:
        "Ensemble of fold {wildcards.fold}."
    script:
        "../workflow/scripts/ensemble.py"


rule basin:
    """Whether the models of a fold can be averaged: barriers to the best one, and distances."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        candidates="<results>/fold{fold}/candidates.tsv",
    output:
        "<results>/fold{fold}/basin.json",
    log:
        "<logs>/fold{fold}/basin.log",
    benchmark:
        "<benchmarks>/fold{fold}/basin.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("basin")
    resources:
        **needs("basin"),
    params:
        evaluation=SETTINGS["evaluation"],
        cases=study.soup.barrier_cases,
        models=study.soup.barrier_models,
        points=study.soup.barrier_points,
        stem=study.stem.source,
        averaged=all(averaged_already(trial) for trial in trials.values()),
        folder=preprocessed_folder,
        cache=f"{study.results}/.state/fold{{fold}}/candidates.jsonl",
    message:
        "Barriers between the models of fold {wildcards.fold}."
    script:
        "../workflow/scripts/basin.py"
