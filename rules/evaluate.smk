# Models scored on whole cases.


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
        "../envs/segsoup.yaml"
    threads: threads_of("evaluate")
    resources:
        **needs("evaluate"),
    params:
        **settings("evaluation", "metrics"),
        folder=preprocessed_folder,
    script:
        "../workflow/scripts/evaluate.py"


rule best:
    """The best single model of a fold by its selection score: what soups are compared with."""
    input:
        models=expand("<results>/fold{{fold}}/trials/{trial}/model.safetensors", trial=CANDIDATES),
        selections=expand("<results>/fold{{fold}}/trials/{trial}/selection.csv", trial=CANDIDATES),
        tests=expand("<results>/fold{{fold}}/trials/{trial}/test.csv", trial=CANDIDATES),
    output:
        model="<results>/fold{fold}/best/model.safetensors",
        test="<results>/fold{fold}/best/test.csv",
    log:
        "<logs>/fold{fold}/best.log",
    benchmark:
        "<benchmarks>/fold{fold}/best.tsv"
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("best")
    resources:
        **needs("best"),
    params:
        trials=CANDIDATES,
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
        "../envs/segsoup.yaml"
    threads: threads_of("postprocessing")
    resources:
        **needs("postprocessing"),
    params:
        **settings("evaluation", "postprocessing"),
        models=COMPARED,
        folder=preprocessed_folder,
        predictions=selection_predictions,
    script:
        "../workflow/scripts/postprocessing.py"


rule evaluate_soups:
    """Score a fold's soups on its test cases, once, and all that is compared after post-processing."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        postprocessing="<results>/fold{fold}/postprocessing.json",
        best="<results>/fold{fold}/best/model.safetensors",
        soups=expand("<results>/fold{{fold}}/soups/{recipe}/model.safetensors", recipe=SOUPS),
    output:
        best_postprocessed="<results>/fold{fold}/best/postprocessed.csv",
        tests=expand("<results>/fold{{fold}}/soups/{recipe}/test.csv", recipe=SOUPS),
        postprocessed=expand(
            "<results>/fold{{fold}}/soups/{recipe}/postprocessed.csv", recipe=SOUPS
        ),
    log:
        "<logs>/fold{fold}/soups-evaluate.log",
    benchmark:
        "<benchmarks>/fold{fold}/soups-evaluate.tsv"
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("evaluate_soups")
    resources:
        **needs("evaluate_soups"),
    params:
        **settings("evaluation", "metrics"),
        folder=preprocessed_folder,
    script:
        "../workflow/scripts/evaluate_soups.py"
