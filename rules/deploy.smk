# One model to hand over, the proof of what it comes from, and the models at work on new scans.


localrules:
    manifest,
    scans,
    predictions,
    predict,


rule bundle:
    """The kind of model that won, of all folds, as a MONAI bundle with a model card."""
    input:
        cases="<results>/cases.tsv",
        candidates=fold_files("candidates.tsv"),
        models=fold_files("{model}/model.safetensors", model=COMPARED),
        tests=fold_files("{model}/test.csv", model=COMPARED),
        recipes=fold_files("soups/{recipe}/recipe.json", recipe=SOUPS),
        postprocessing=fold_files("postprocessing.json"),
        collected=rules.collect.output.manifest,
        methods=rules.methods.output.methods_text,
    output:
        [f"<results>/bundle/{name}" for name in bundle_files(FOLDS)],
    log:
        "<logs>/bundle.log",
    benchmark:
        "<benchmarks>/bundle.tsv"
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("bundle")
    resources:
        **needs("bundle"),
    params:
        **settings("bundle", "evaluation"),
        results=results_folder,
    message:
        "Bundle: the model to hand over."
    script:
        "../workflow/scripts/bundle.py"


rule manifest:
    """Every file of the study with its hash, from scan to last table, for `segsoup verify`."""
    input:
        rules.report.output,
        rules.bundle.output,
    output:
        "<results>/provenance.tsv",
    log:
        "<logs>/manifest.log",
    benchmark:
        "<benchmarks>/manifest.tsv"
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("manifest")
    resources:
        **needs("manifest"),
    params:
        results=results_folder,
        folds=FOLDS,
    message:
        "Manifest: hashes of all files of the study."
    script:
        "../workflow/scripts/manifest.py"


# New scans: never a part of `all`.
# A checkpoint: how many cases there are is known only now.
checkpoint scans:
    """List the scans to predict, and share them out to jobs."""
    output:
        "<results>/.predict/scans.json",
    log:
        "<logs>/scans.log",
    benchmark:
        "<benchmarks>/scans.tsv"
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("scans")
    resources:
        **needs("scans"),
    params:
        scans=scans_to_predict,
        listing=scan_listing,
        channels=study.dataset.channels,
        called=study.predict.channels,
        cases_per_job=study.predict.cases_per_job,
    message:
        "Scans: lists what is to be predicted."
    script:
        "../workflow/scripts/scans.py"


rule predict_batch:
    """Predict some of the scans; those that are done already are left as they are."""
    input:
        scans="<results>/.predict/scans.json",
        models=models_to_predict_with,
        postprocessing=postprocessing_to_predict_with,
    output:
        "<results>/.predict/{batch}.json",
    log:
        "<logs>/predict/{batch}.log",
    benchmark:
        "<benchmarks>/predict/{batch}.tsv"
    wildcard_constraints:
        batch=r"\d+",
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("predict_batch")
    resources:
        **needs("predict_batch"),
    params:
        **settings("predict"),
        scans=scans_to_predict,
        cases=cases_of_batch,
        folder=predictions_folder,
        overlap=study.evaluation.overlap,
    message:
        "Predictions: batch {wildcards.batch}."
    script:
        "../workflow/scripts/predict.py"


rule predictions:
    """Gather what became of every case; a bad one is no reason to fail yet."""
    input:
        predicted_batches,
    output:
        "<results>/predictions.tsv",
    log:
        "<logs>/predictions.log",
    benchmark:
        "<benchmarks>/predictions.tsv"
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("predictions")
    resources:
        **needs("predictions"),
    message:
        "Predictions: the table of all cases."
    script:
        "../workflow/scripts/predictions.py"


rule predict:
    """The target for all scans: fails at the very end if some could not be predicted."""
    input:
        "<results>/predictions.tsv",
    log:
        "<logs>/predict.log",
    conda:
        "../envs/segsoup.yaml"
    threads: threads_of("predict")
    resources:
        **needs("predict"),
    message:
        "Predictions: are all cases there?"
    script:
        "../workflow/scripts/predicted.py"
