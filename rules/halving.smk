# Successive halving: all trials begin, and at each rung only the best of a fold go on.


localrules:
    halve,


rule rung:
    """Train a trial to the end of a rung, and score it on the selection cases."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        stem=START,
    output:
        selection="<results>/fold{fold}/rungs/{rung}/{trial}/selection.csv",
        history="<results>/fold{fold}/rungs/{rung}/{trial}/history.csv",
    log:
        "<logs>/fold{fold}/rungs/{rung}/{trial}.log",
    benchmark:
        "<benchmarks>/fold{fold}/rungs/{rung}/{trial}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("rung")
    resources:
        **needs("rung"),
    params:
        **settings("evaluation"),
        run=length_and_settings,
        epochs=epochs_of_rung,
        folder=preprocessed_folder,
        states=f"{STATES}/trials/{{trial}}",
        events=f"{study.results}/fold{{fold}}/trials/{{trial}}",
    message:
        "Trial {wildcards.trial} of fold {wildcards.fold}: rung {wildcards.rung}, to epoch {params.epochs}."
    script:
        "../workflow/scripts/rung.py"


# A checkpoint: which trials a fold trains on is known only now.
checkpoint halve:
    """Compare a fold's trials at the end of a rung, and say which of them go on."""
    input:
        selections=selections_at_rung,
    output:
        "<results>/fold{fold}/rungs/{rung}.json",
    log:
        "<logs>/fold{fold}/rungs/{rung}.log",
    benchmark:
        "<benchmarks>/fold{fold}/rungs/{rung}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("halve")
    resources:
        **needs("halve"),
    params:
        halving=STUDY_SETTINGS["sweep"]["halving"],
        epochs=epochs_of_rung,
        going_on=going_on,
    message:
        "Fold {wildcards.fold}: after rung {wildcards.rung} {params.going_on}."
    script:
        "../workflow/scripts/halve.py"
