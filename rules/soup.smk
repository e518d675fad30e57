# Trials averaged into one model, and the ensemble that this replaces.


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
        **settings("evaluation"),
        race=study.soup.race,
        learned=lambda wildcards: learned_settings() if wildcards.recipe == "learned" else None,
        groups=lambda wildcards: trial_groups() if wildcards.recipe == "hierarchical" else None,
        folder=preprocessed_folder,
        cache=case_score_cache,
    message:
        "Soup {wildcards.recipe} of fold {wildcards.fold}."
    script:
        "../workflow/scripts/soup.py"


rule ensemble:
    """Score the mean of the probabilities of several trials: what a soup is measured against."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        candidates="<results>/fold{fold}/candidates.tsv",
        recipe=recipe_of_ensemble,
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
        **settings("evaluation", "metrics"),
        made_of=study.soup.ensemble_of,
        folder=preprocessed_folder,
        cache=ensemble_case_scores,
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
        **settings("evaluation"),
        cases=study.soup.barrier_cases,
        models=study.soup.barrier_models,
        points=study.soup.barrier_points,
        stem=study.stem.source,
        averaged=all(averaged_already(trial) for trial in trials.values()),
        folder=preprocessed_folder,
        cache=case_score_cache,
    message:
        "Barriers between the models of fold {wildcards.fold}."
    script:
        "../workflow/scripts/basin.py"
