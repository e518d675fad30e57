# Scans shared out to jobs; included only where there are any: with a checkpoint in the workflow,
# every job of a cluster would look at all files of the study.


localrules:
    scans,
    predictions,


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
        "../envs/voxelsoup.yaml"
    threads: threads_of("scans")
    resources:
        **needs("scans"),
    params:
        scans=study.predict.input,
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
        # What has changed of a batch is among its parameters.
        scans=ancient("<results>/.predict/scans.json"),
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
        "../envs/voxelsoup.yaml"
    threads: threads_of("predict_batch")
    resources:
        **needs("predict_batch"),
    params:
        **settings("predict"),
        scans=study.predict.input,
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
        "../envs/voxelsoup.yaml"
    threads: threads_of("predictions")
    resources:
        **needs("predictions"),
    message:
        "Predictions: the table of all cases."
    script:
        "../workflow/scripts/predictions.py"
