# One model to hand over, the proof of what it comes from, and the models at work on new scans.
from voxelsoup.prediction.bundle_files import bundle_files
from voxelsoup.study.study import FINAL


rule bundle:
    """The winning kind of model, of all folds, as a MONAI bundle with a model card."""
    input:
        cases="<results>/cases.tsv",
        candidates=fold_files("candidates.tsv"),
        models=fold_files("{model}/model.safetensors", model=COMPARED),
        tests=fold_files("{model}/test.csv", model=COMPARED),
        recipes=fold_files("soups/{recipe}/recipe.json", recipe=MODELS),
        postprocessing=fold_files("postprocessing.json"),
        collected=rules.collect.output.manifest,
        final=["<results>/final/model.safetensors", "<results>/final/recipe.json"] * study.final,
        methods=rules.methods.output.methods_text,
        # The outcome of the primary comparison.
        comparisons="<results>/comparison/comparisons.csv",
    output:
        [f"<results>/bundle/{name}" for name in bundle_files([FINAL] if study.final else FOLDS)],
    log:
        "<logs>/bundle.log",
    benchmark:
        "<benchmarks>/bundle.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("bundle")
    resources:
        **needs("bundle"),
    params:
        bundle=SETTINGS["bundle"],
        evaluation=SETTINGS["evaluation"],
        results=results_folder,
    message:
        "Bundle: the model to hand over."
    script:
        "../workflow/scripts/bundle.py"


rule manifest:
    """Every file of the study with its hash, from scan to last table, for `voxelsoup verify`."""
    input:
        rules.report.output,
        rules.bundle.output,
        [f"{each.results}/bundle/configs/metadata.json" for each in configurations.values()],
    output:
        "<results>/provenance.tsv",
    log:
        "<logs>/manifest.log",
    benchmark:
        "<benchmarks>/manifest.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("manifest")
    resources:
        **needs("manifest"),
    params:
        **({"configurations": list(configurations)} if configurations else {}),
        results=results_folder,
        folds=FOLDS,
        # Where there are some: other studies are listed as they always were.
    message:
        "Manifest: hashes of all files of the study."
    script:
        "../workflow/scripts/manifest.py"


rule predict:
    """The target for all scans: fails at the very end if some could not be predicted."""
    input:
        table_of_predictions,
    log:
        "<logs>/predict.log",
    # A bad case is as bad at the next attempt.
    retries: 0
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("predict")
    resources:
        **needs("predict"),
    message:
        "Predictions: check that all cases were predicted."
    script:
        "../workflow/scripts/predicted.py"
