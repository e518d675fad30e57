# From scans to arrays.


rule preprocess:
    """Orient, crop, resample and normalise the cases; only those that changed are done again."""
    input:
        cases="<results>/cases.tsv",
    output:
        manifest="<results>/preprocessed.tsv",
    log:
        "<logs>/preprocess.log",
    benchmark:
        "<benchmarks>/preprocess.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("preprocess")
    resources:
        **needs("preprocess"),
    params:
        preprocess=SETTINGS["preprocess"],
        patch=study.training.patch,
        root=data_root,
        folder=preprocessed_folder,
    message:
        "Preprocessing: cases that are new or changed."
    script:
        "../workflow/scripts/preprocess.py"
