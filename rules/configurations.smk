# Alternatives whose models cannot be averaged: each is a study, and they are compared here.
from voxelsoup.study.configurations import FIRST, handed_over

ALTERNATIVES = {FIRST: study, **configurations}
# The model of a fold that each hands over.
HANDED_OVER = [
    f"{alternative.results}/fold{{fold}}/{handed_over(alternative)}"
    for alternative in ALTERNATIVES.values()
]
MANIFESTS = [f"{alternative.results}/preprocessed.tsv" for alternative in ALTERNATIVES.values()]
COMPARED_FOLDS = "<results>/configurations/fold{fold}"

for configuration in configurations:
    # What Snakemake puts in front of the names of its rules.
    configuration_ = f"{configuration}_"

    module:
        name: configuration
        snakefile:
            "../Snakefile"
        config:
            CONTENTS[configuration]

    use rule * from configuration exclude all as configuration_*


rule score_configurations:
    """Score the configurations' models, and ensembles of them, on a fold's selection cases."""
    input:
        folds="<results>/folds.json",
        manifests=MANIFESTS,
        models=expand("{model}/model.safetensors", model=HANDED_OVER, allow_missing=True),
    output:
        scores=f"{COMPARED_FOLDS}/selection.csv",
        costs=f"{COMPARED_FOLDS}/costs.json",
    log:
        "<logs>/fold{fold}/score_configurations.log",
    benchmark:
        "<benchmarks>/fold{fold}/score_configurations.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("score_configurations")
    resources:
        **needs("score_configurations"),
    params:
        evaluation=SETTINGS["evaluation"],
        names=list(ALTERNATIVES),
        cache=f"{study.results}/.state/fold{{fold}}/configurations.jsonl",
    message:
        "Configurations on the selection cases of fold {wildcards.fold}."
    script:
        "../workflow/scripts/score_configurations.py"


rule choose_configuration:
    """Choose the best configuration, and the best ensemble of two or three, by all folds."""
    input:
        scores=expand(f"{COMPARED_FOLDS}/selection.csv", fold=FOLDS),
    output:
        "<results>/configurations/chosen.json",
    log:
        "<logs>/choose_configuration.log",
    benchmark:
        "<benchmarks>/choose_configuration.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("choose_configuration")
    resources:
        **needs("choose_configuration"),
    params:
        names=list(ALTERNATIVES),
    message:
        "Configurations: the best one, and the best ensemble."
    script:
        "../workflow/scripts/choose_configuration.py"


rule test_configurations:
    """Score the chosen ensemble of configurations on a fold's test cases."""
    input:
        folds="<results>/folds.json",
        manifests=MANIFESTS,
        chosen="<results>/configurations/chosen.json",
        models=expand("{model}/model.safetensors", model=HANDED_OVER, allow_missing=True),
    output:
        test=f"{COMPARED_FOLDS}/test.csv",
        postprocessed=f"{COMPARED_FOLDS}/postprocessed.csv",
        postprocessing=f"{COMPARED_FOLDS}/postprocessing.json",
    log:
        "<logs>/fold{fold}/test_configurations.log",
    benchmark:
        "<benchmarks>/fold{fold}/test_configurations.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("test_configurations")
    resources:
        **needs("test_configurations"),
    params:
        evaluation=SETTINGS["evaluation"],
        metrics=SETTINGS["metrics"],
        postprocessing=SETTINGS["postprocessing"],
        # Scratch folder for predictions of selection cases.
        predictions=f"{study.results}/.state/fold{{fold}}/configurations",
    message:
        "The ensemble of configurations on the test cases of fold {wildcards.fold}."
    script:
        "../workflow/scripts/test_configurations.py"


rule compare_configurations:
    """One table over the configurations: what each scores and what it costs."""
    input:
        cases="<results>/cases.tsv",
        chosen="<results>/configurations/chosen.json",
        costs=expand(f"{COMPARED_FOLDS}/costs.json", fold=FOLDS),
        ensemble=expand(f"{COMPARED_FOLDS}/test.csv", fold=FOLDS),
        ensemble_after=expand(f"{COMPARED_FOLDS}/postprocessed.csv", fold=FOLDS),
        tests=expand("{model}/test.csv", model=expand(HANDED_OVER, fold=FOLDS)),
        after=expand("{model}/postprocessed.csv", model=expand(HANDED_OVER, fold=FOLDS)),
    output:
        table=report(
            "<results>/comparison/configurations.html",
            caption="../workflow/report/configurations.rst",
            category=SECTIONS["configurations"],
            labels={"table": "configurations"},
        ),
        first_page="<results>/comparison/configurations.rst",
        others=expand("<results>/comparison/configurations.{format}", format=["csv", "md", "tex"]),
    log:
        "<logs>/compare_configurations.log",
    benchmark:
        "<benchmarks>/compare_configurations.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("compare_configurations")
    resources:
        **needs("compare_configurations"),
    params:
        names=list(ALTERNATIVES),
        folds=FOLDS,
        protocol=study.evaluation.protocol,
    message:
        "Comparison of the configurations."
    script:
        "../workflow/scripts/compare_configurations.py"
