# Models scored on full cases.
from voxelsoup.study.ingredients import INGREDIENT_PATTERN, ingredients_of, models_of

# Models of the trials, as folders below trials/: those that go into soups, and those that the
# best single one is chosen among.
INGREDIENTS = [model for trial in TRIALS for model in ingredients_of(trial)]
CANDIDATES = [model for trial in TRIALS for model in models_of(trial)]


localrules:
    candidates,


rule evaluate:
    """Score a run's model on the selection and the test cases of its fold."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        model="<results>/fold{fold}/{run}/model.safetensors",
    output:
        selection="<results>/fold{fold}/{run}/selection.csv",
        test="<results>/fold{fold}/{run}/test.csv",
    log:
        "<logs>/fold{fold}/{run}-evaluate.log",
    benchmark:
        "<benchmarks>/fold{fold}/{run}-evaluate.tsv"
    wildcard_constraints:
        run=f"stem|trials/[0-9a-f]{{8}}(/{INGREDIENT_PATTERN})?",
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("evaluate")
    resources:
        **needs("evaluate"),
    params:
        evaluation=SETTINGS["evaluation"],
        metrics=SETTINGS["metrics"],
        folder=preprocessed_folder,
    message:
        "Scores of {wildcards.run} of fold {wildcards.fold}."
    script:
        "../workflow/scripts/evaluate.py"


rule candidates:
    """The single models of a fold with their scores: everything that follows chooses from these."""
    input:
        models=files_of_candidates("model.safetensors"),
        selections=files_of_candidates("selection.csv"),
    output:
        "<results>/fold{fold}/candidates.tsv",
    log:
        "<logs>/fold{fold}/candidates.log",
    benchmark:
        "<benchmarks>/fold{fold}/candidates.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("candidates")
    resources:
        **needs("candidates"),
    params:
        models=candidates_of,
        ingredients=INGREDIENTS,
    message:
        "Models of fold {wildcards.fold} and their scores."
    script:
        "../workflow/scripts/candidates.py"


rule best:
    """The best single model of a fold by its selection score: what soups are compared with."""
    input:
        candidates="<results>/fold{fold}/candidates.tsv",
    output:
        "<results>/fold{fold}/best/model.safetensors",
    log:
        "<logs>/fold{fold}/best.log",
    benchmark:
        "<benchmarks>/fold{fold}/best.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("best")
    resources:
        **needs("best"),
    params:
        evaluation=SETTINGS["evaluation"],
    message:
        "Best single model of fold {wildcards.fold}."
    script:
        "../workflow/scripts/best.py"


rule postprocessing:
    """Choose a fold's post-processing on its selection cases: one for all models compared."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        models=expand("<results>/fold{{fold}}/{model}/model.safetensors", model=COMPARED),
    output:
        "<results>/fold{fold}/postprocessing.json",
    log:
        "<logs>/fold{fold}/postprocessing.log",
    benchmark:
        "<benchmarks>/fold{fold}/postprocessing.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("postprocessing")
    resources:
        **needs("postprocessing"),
    params:
        evaluation=SETTINGS["evaluation"],
        postprocessing=SETTINGS["postprocessing"],
        models=COMPARED,
        folder=preprocessed_folder,
        # Scratch folder for predictions of selection cases.
        predictions=f"{study.results}/.state/fold{{fold}}/predictions",
    message:
        "Post-processing of fold {wildcards.fold}."
    script:
        "../workflow/scripts/postprocessing.py"


rule evaluate_soups:
    """Score the compared models of a fold on its test cases, before and after post-processing."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        postprocessing="<results>/fold{fold}/postprocessing.json",
        models=expand("<results>/fold{{fold}}/{model}/model.safetensors", model=COMPARED),
    output:
        tests=expand("<results>/fold{{fold}}/{model}/test.csv", model=COMPARED),
        postprocessed=expand("<results>/fold{{fold}}/{model}/postprocessed.csv", model=COMPARED),
    log:
        "<logs>/fold{fold}/evaluate_soups.log",
    benchmark:
        "<benchmarks>/fold{fold}/evaluate_soups.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("evaluate_soups")
    resources:
        **needs("evaluate_soups"),
    params:
        evaluation=SETTINGS["evaluation"],
        metrics=SETTINGS["metrics"],
        folder=preprocessed_folder,
    message:
        "Scores of the compared models of fold {wildcards.fold}."
    script:
        "../workflow/scripts/evaluate_soups.py"
