# Scans shared out to jobs; included only where there are any: with a checkpoint in the workflow,
# every job of a cluster would look at all files of the study.
from voxelsoup.data.index.folder_hash import list_scans

# Where label maps go.
PREDICTIONS = study.predict.output or f"{study.results}/predictions"


# A checkpoint: how many cases there are is known only now.
checkpoint scans:
    """List the scans to predict, and share them out to jobs."""
    output:
        "<results>/.predict/scans.json",
    log:
        "<logs>/scans.log",
    benchmark:
        "<benchmarks>/scans.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("scans")
    resources:
        **needs("scans"),
    params:
        # Only where it is named: other lists stay as they are.
        **({"layout": study.predict.layout} if study.predict.layout else {}),
        scans=study.predict.input,
        # Sizes and dates of the scans stand for their contents, which each job hashes.
        listing=lambda wildcards: list_scans(study.predict.input),
        channels=study.dataset.channels,
        called=study.predict.channels,
        folder=PREDICTIONS,
        cases_per_job=study.predict.cases_per_job,
    message:
        "Scans: the list of cases to predict."
    script:
        "../workflow/scripts/scans.py"


rule predict_batch:
    """Predict some of the scans; finished ones are left as they are."""
    input:
        # What has changed of a batch is among its parameters.
        scans=ancient("<results>/.predict/scans.json"),
        models=lambda wildcards: (
            study.predict.models
            or (["<results>/final/model.safetensors"] if study.final else [])
            or fold_files("{model}/model.safetensors", model=SHOWN[0])
        ),
        # What is done to the predictions of the study's own models.
        postprocessing=(
            fold_files("postprocessing.json")
            if study.predict.postprocess and not study.predict.models and not study.final
            else []
        ),
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
        predict=SETTINGS["predict"],
        scans=study.predict.input,
        cases=lambda wildcards: batches_of_scans()[wildcards.batch],
        folder=PREDICTIONS,
        overlap=study.evaluation.overlap,
    message:
        "Predictions: batch {wildcards.batch}."
    script:
        "../workflow/scripts/predict.py"


rule predictions:
    """Gather the outcome of every case; a bad one does not fail this step."""
    input:
        lambda wildcards: [f"<results>/.predict/{batch}.json" for batch in batches_of_scans()],
    output:
        "<results>/predictions.tsv",
    log:
        "<logs>/predictions.log",
    benchmark:
        "<benchmarks>/predictions.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("predictions")
    resources:
        **needs("predictions"),
    message:
        "Predictions: the table of all cases."
    script:
        "../workflow/scripts/predictions.py"
