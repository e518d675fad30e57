# The finish of the final model; included only where there are both.


rule final_targets:
    """Write the probabilities of the ensemble of the final model's trials, of all cases."""
    input:
        cases="<results>/cases.tsv",
        folds="<results>/final/folds.json",
        manifest="<results>/preprocessed.tsv",
        plan="<results>/final/plan.json",
        models=models_of_final,
    output:
        "<results>/final/targets.json",
    log:
        "<logs>/final/targets.log",
    benchmark:
        "<benchmarks>/final/targets.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("final_targets")
    resources:
        **needs("final_targets"),
    params:
        fold=FINAL_FOLD,
        overlap=study.evaluation.overlap,
        unlabelled=FINISH.unlabelled,
        folder=preprocessed_folder,
        targets=f"{FINAL_STATES}/targets",
    message:
        "Final model: the ensemble of its trials on all cases."
    script:
        "../workflow/scripts/final_targets.py"


use rule finish as final_finish with:
    input:
        folds="<results>/final/folds.json",
        manifest="<results>/preprocessed.tsv",
        start="<results>/final/soup/model.safetensors",
        plan="<results>/final/plan.json",
        targets=[path.replace("fold{fold}/finish", "final") for path in TARGETS],
    output:
        model="<results>/final/finish/model.safetensors",
        history="<results>/final/finish/history.csv",
        run="<results>/final/finish/run.json",
    log:
        "<logs>/final/finish.log",
    benchmark:
        "<benchmarks>/final/finish.tsv"
    threads: threads_of("final_finish")
    resources:
        **needs("final_finish"),
    params:
        fold=FINAL_FOLD,
        rate=lambda wildcards: rate_of_final(),
        run=lambda wildcards: finish_target(study, rate_of_final()),
        folder=preprocessed_folder,
        states=f"{FINAL_STATES}/finish",
        targets=f"{FINAL_STATES}/targets",
        plan=lambda wildcards, output: plan(
            f"{FINAL_STATES}/finish",
            *finish_target(study, rate_of_final()),
            study.recovery.lease_seconds,
        ),
    message:
        "Finish of the final model: {params.plan}."
