# Successive halving: all trials begin, and at each rung only the best of a fold continue.
from voxelsoup.study.halving import rung_epochs, trials_at_rungs

# Epochs at the end of each rung, of which the last is that of the trials; and trials at each.
ENDS = rung_epochs(study.sweep.halving, study.training.epochs)
COUNTS = trials_at_rungs(study.sweep.halving, len(trials))


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
        evaluation=SETTINGS["evaluation"],
        run=lambda wildcards: target_of_trial(wildcards.trial),
        epochs=lambda wildcards: ENDS[int(wildcards.rung) - 1],
        folder=preprocessed_folder,
        states=f"{STATES}/trials/{{trial}}",
        events=f"{study.results}/fold{{fold}}/trials/{{trial}}",
    message:
        "Trial {wildcards.trial} of fold {wildcards.fold}: rung {wildcards.rung}, to epoch {params.epochs}."
    script:
        "../workflow/scripts/rung.py"


# A checkpoint: which trials a fold trains on is known only now.
checkpoint halve:
    """Compare a fold's trials at the end of a rung, and say which of them continue."""
    input:
        selections=lambda wildcards: [
            f"<results>/fold{wildcards.fold}/rungs/{wildcards.rung}/{trial}/selection.csv"
            for trial in kept_at(wildcards.fold, int(wildcards.rung) - 1)
        ],
    output:
        "<results>/fold{fold}/rungs/{rung}.json",
    log:
        "<logs>/fold{fold}/rungs/{rung}.log",
    benchmark:
        "<benchmarks>/fold{fold}/rungs/{rung}.tsv"
    # As `candidates`.
    retries: 0
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("halve")
    resources:
        **needs("halve"),
    params:
        **DIVERGED_STOP,
        # In words for the plan: how many runs cannot be seen there yet.
        halving=SETTINGS["sweep"]["halving"],
        epochs=lambda wildcards: ENDS[int(wildcards.rung) - 1],
        going_on=lambda wildcards: (
            f"{COUNTS[int(wildcards.rung)]} of {COUNTS[int(wildcards.rung) - 1]} trials continue, "
            f"to epoch {ENDS[int(wildcards.rung)]}"
        ),
    message:
        "Fold {wildcards.fold}: after rung {wildcards.rung} {params.going_on}."
    script:
        "../workflow/scripts/halve.py"
