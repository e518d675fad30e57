# Models scored on full cases.
from voxelsoup.study.ingredients import given_models, ingredients_of, models_of, written_beside

# Models of the trials, as folders below trials/: those that go into soups, and those that the
# best single one is chosen among.
INGREDIENTS = [model for trial in TRIALS for model in ingredients_of(trial)]
CANDIDATES = [model for trial in TRIALS for model in models_of(trial)]
# Models that were not trained here, which are both.
GIVEN = list(given_models(study))
# What every trial writes, as folders below its own, which its own model lies in.
OF_A_TRIAL = ["", *(f"{name}/" for name in written_beside(study))]


rule evaluate:
    """Score all models of a trial on the selection and the test cases of its fold."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        models=expand(
            "<results>/fold{{fold}}/trials/{{trial}}/{model}model.safetensors", model=OF_A_TRIAL
        ),
    output:
        selections=expand(
            "<results>/fold{{fold}}/trials/{{trial}}/{model}selection.csv", model=OF_A_TRIAL
        ),
        tests=expand("<results>/fold{{fold}}/trials/{{trial}}/{model}test.csv", model=OF_A_TRIAL),
    log:
        "<logs>/fold{fold}/trials/{trial}-evaluate.log",
    benchmark:
        "<benchmarks>/fold{fold}/trials/{trial}-evaluate.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("evaluate")
    resources:
        **needs("evaluate"),
    params:
        evaluation=SETTINGS["evaluation"],
        metrics=SETTINGS["metrics"],
        folder=preprocessed_folder,
        scores=kept_scores,
    message:
        "Scores of trial {wildcards.trial} of fold {wildcards.fold}."
    script:
        "../workflow/scripts/evaluate.py"


rule evaluate_stem:
    """Score the stem of a fold on its selection and test cases."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        models=["<results>/fold{fold}/stem/model.safetensors"],
    output:
        selections=["<results>/fold{fold}/stem/selection.csv"],
        tests=["<results>/fold{fold}/stem/test.csv"],
    log:
        "<logs>/fold{fold}/stem-evaluate_stem.log",
    benchmark:
        "<benchmarks>/fold{fold}/stem-evaluate_stem.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("evaluate_stem")
    resources:
        **needs("evaluate_stem"),
    params:
        evaluation=SETTINGS["evaluation"],
        metrics=SETTINGS["metrics"],
        folder=preprocessed_folder,
        scores=kept_scores,
    message:
        "Scores of the stem of fold {wildcards.fold}."
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
    # It fails where too many trials have diverged, which another attempt does not change.
    retries: 0
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("candidates")
    resources:
        **needs("candidates"),
    params:
        **DIVERGED_STOP,
        models=candidates_of,
        ingredients=INGREDIENTS + GIVEN,
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
        # Whose scores are known; no input, for the models are made from it.
        candidates=list_of_fold,
    message:
        "Scores of the compared models of fold {wildcards.fold}."
    script:
        "../workflow/scripts/evaluate_soups.py"
