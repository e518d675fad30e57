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
        **settings("evaluation"),
        folder=preprocessed_folder,
    script:
        "../workflow/scripts/evaluate.py"


rule evaluate_soup:
    """Score a soup on the test cases of its fold, once; its recipe chose on the selection cases."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        model="<results>/fold{fold}/soups/{recipe}/model.safetensors",
    output:
        test="<results>/fold{fold}/soups/{recipe}/test.csv",
    log:
        "<logs>/fold{fold}/soups/{recipe}-evaluate.log",
    benchmark:
        "<benchmarks>/fold{fold}/soups/{recipe}-evaluate.tsv"
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("evaluate_soup")
    resources:
        **needs("evaluate_soup"),
    params:
        **settings("evaluation"),
        folder=preprocessed_folder,
    script:
        "../workflow/scripts/evaluate.py"
