# A study's models at work on new scans: never a part of `all`.


localrules:
    predict,


rule predict:
    """The target for all scans: fails at the very end if some could not be predicted."""
    input:
        "<results>/predictions.tsv" if study.predict.input is not None else no_scans,
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
