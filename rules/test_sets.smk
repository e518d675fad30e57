# The models on data sets that no fold has; included only where the study names some.
from voxelsoup.data.index.folder_hash import list_scans

TEST_SETS = study.comparison.test_sets
TEST_SET_LAYOUTS = study.comparison.test_set_layouts
# The models that are compared, the ensemble among them.
TESTED = COMPARED + [f"soups/{recipe}" for recipe in RECIPES if recipe not in MODELS]


wildcard_constraints:
    test_set="|".join(TEST_SETS),
    model="|".join(TESTED),


rule test_set:
    """Predict a test set with one model of a fold, and score the label maps."""
    input:
        # An ensemble has no weights of its own.
        lambda wildcards: f"<results>/fold{wildcards.fold}/{wildcards.model}/"
        + ("model.safetensors" if wildcards.model in COMPARED else "recipe.json"),
    output:
        "<results>/test_sets/{test_set}/fold{fold}/{model}/scores.csv",
    log:
        "<logs>/fold{fold}/test_sets/{test_set}/{model}.log",
    benchmark:
        "<benchmarks>/fold{fold}/test_sets/{test_set}/{model}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("test_set")
    resources:
        **needs("test_set"),
    params:
        # Only where there are any: scores of other studies stay as they are.
        **({"not_annotated": study.dataset.not_annotated} if study.dataset.not_annotated else {}),
        **(
            {"layout": lambda wildcards: TEST_SET_LAYOUTS.get(wildcards.test_set)}
            if TEST_SET_LAYOUTS
            else {}
        ),
        # No output, which Snakemake would delete before each attempt: finished label maps are kept.
        predictions=f"{study.results}/test_sets/{{test_set}}/fold{{fold}}/{{model}}/predictions",
        scans=lambda wildcards: TEST_SETS[wildcards.test_set],
        # Sizes and dates of the scans stand for their contents.
        listing=lambda wildcards: list_scans(TEST_SETS[wildcards.test_set]),
        metrics=SETTINGS["metrics"],
        overlap=study.evaluation.overlap,
        label_order=study.predict.label_order,
        background=study.dataset.background,
        ignore_label=study.dataset.ignore_label,
    message:
        "Test set {wildcards.test_set}: {wildcards.model} of fold {wildcards.fold}."
    script:
        "../workflow/scripts/test_set.py"


rule test_sets:
    """The models on each test set: all metrics with intervals, and differences to the best one."""
    input:
        expand(
            "<results>/test_sets/{test_set}/fold{fold}/{model}/scores.csv",
            test_set=TEST_SETS,
            fold=FOLDS,
            model=TESTED,
        ),
    output:
        tables=[
            report(
                f"<results>/test_sets/{test_set}/comparison.html",
                caption="../workflow/report/test_sets.rst",
                category=SECTIONS["test_sets"],
                labels={"test set": test_set},
            )
            for test_set in TEST_SETS
        ],
        others=expand(
            "<results>/test_sets/{test_set}/comparison.{format}",
            test_set=TEST_SETS,
            format=["csv", "md", "tex"],
        ),
    log:
        "<logs>/test_sets.log",
    benchmark:
        "<benchmarks>/test_sets.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("test_sets")
    resources:
        **needs("test_sets"),
    params:
        results=results_folder,
        folds=FOLDS,
        models=TESTED,
    message:
        "Test sets: the models on data sets that no fold has."
    script:
        "../workflow/scripts/test_sets.py"
