# From a folder of scans to checked cases and folds.
PHANTOM = study.dataset.layout == "phantom"


rule phantom:
    """Generate a labelled data set to try the workflow on."""
    output:
        directory("<results>/phantom"),
    log:
        "<logs>/phantom.log",
    benchmark:
        "<benchmarks>/phantom.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("phantom")
    resources:
        **needs("phantom"),
    params:
        phantom=study.dataset.phantom.model_dump(),
    message:
        "Phantom: a labelled data set to try the workflow on."
    script:
        "../workflow/scripts/phantom.py"


rule index:
    """Find the cases and check all of their files, before anything is computed."""
    input:
        phantom=rules.phantom.output if PHANTOM else [],
        patients=study.dataset.patients or [],
    output:
        cases=report(
            "<results>/cases.tsv",
            caption="../workflow/report/cases.rst",
            category=SECTIONS["data"],
            labels={"table": "cases"},
        ),
        rejected=report(
            "<results>/rejected.tsv",
            caption="../workflow/report/rejected.rst",
            category=SECTIONS["data"],
            labels={"table": "cases left out"},
        ),
    log:
        "<logs>/index.log",
    benchmark:
        "<benchmarks>/index.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("index")
    resources:
        **needs("index"),
    params:
        dataset=SETTINGS["dataset"],
        regions=SETTINGS["regions"],
        root=data_root,
        # Sizes and dates of the scans stand for their contents, which the job hashes. A function,
        # so that nothing but planning or running this rule walks the data folder.
        listing=lambda wildcards: listing_of_scans(),
        # Only changed cases are checked again.
        verdicts=f"{study.results}/.state/verdicts.jsonl",
    message:
        "Index: find the cases and check all of their files."
    script:
        "../workflow/scripts/index.py"


rule folds:
    """Split the cases by patient into training, selection and test cases of each fold."""
    input:
        cases="<results>/cases.tsv",
        rejected="<results>/rejected.tsv",
        given=study.folds.file or [],
    output:
        report(
            "<results>/folds.json",
            caption="../workflow/report/folds.rst",
            category=SECTIONS["data"],
            labels={"table": "folds"},
        ),
    log:
        "<logs>/folds.log",
    benchmark:
        "<benchmarks>/folds.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("folds")
    resources:
        **needs("folds"),
    params:
        folds=SETTINGS["folds"],
        root=data_root,
        protocol=study.evaluation.protocol,
    message:
        "Folds: training, selection and test cases of each."
    script:
        "../workflow/scripts/folds.py"


include: "preprocess.smk"
