# The cases, folds and arrays of a configuration: those of the study that it is one of.
STUDY = study.part_of.results


rule index:
    """The cases of the study."""
    input:
        cases=f"{STUDY}/cases.tsv",
        rejected=f"{STUDY}/rejected.tsv",
    output:
        cases="<results>/cases.tsv",
        rejected="<results>/rejected.tsv",
    log:
        "<logs>/index.log",
    benchmark:
        "<benchmarks>/index.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("index")
    resources:
        **needs("index"),
    message:
        "Cases: those of the study."
    script:
        "../workflow/scripts/copies.py"


rule folds:
    """The folds of the study."""
    input:
        folds=f"{STUDY}/folds.json",
    output:
        folds="<results>/folds.json",
    log:
        "<logs>/folds.log",
    benchmark:
        "<benchmarks>/folds.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("folds")
    resources:
        **needs("folds"),
    message:
        "Folds: those of the study."
    script:
        "../workflow/scripts/copies.py"


if study.part_of.preprocessed:

    rule preprocess:
        """The arrays of a configuration that preprocesses in the same way."""
        input:
            manifest=f"{study.part_of.preprocessed}/preprocessed.tsv",
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
            linked=f"{study.part_of.preprocessed}/preprocessed",
            folder=preprocessed_folder,
        message:
            "Preprocessing: as of another configuration."
        script:
            "../workflow/scripts/copies.py"

else:

    include: "preprocess.smk"
