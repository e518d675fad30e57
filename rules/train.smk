# One shared stem per fold, and the trials that branch from it.


rule stem:
    """Train the model of a fold that all of its trials branch from."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
    output:
        model="<results>/fold{fold}/stem/model.safetensors",
        history="<results>/fold{fold}/stem/history.csv",
        run="<results>/fold{fold}/stem/run.json",
    log:
        "<logs>/fold{fold}/stem.log",
    benchmark:
        "<benchmarks>/fold{fold}/stem.tsv"
    # Everything waits for the stems: they go first.
    priority: 10
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("stem")
    resources:
        **needs("stem"),
    params:
        run=length_and_settings,
        folder=preprocessed_folder,
        states=f"{STATES}/stem",
        plan=training_plan,
    message:
        "Stem of fold {wildcards.fold}: {params.plan}."
    script:
        "../workflow/scripts/train.py"


rule trial:
    """Train one hyperparameter combination on one fold."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        stem=START,
    output:
        model="<results>/fold{fold}/trials/{trial}/model.safetensors",
        history="<results>/fold{fold}/trials/{trial}/history.csv",
        run="<results>/fold{fold}/trials/{trial}/run.json",
        ingredients=expand(
            "<results>/fold{{fold}}/trials/{{trial}}/{name}/model.safetensors",
            name=written_beside(study),
        ),
    log:
        "<logs>/fold{fold}/trials/{trial}.log",
    benchmark:
        "<benchmarks>/fold{fold}/trials/{trial}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("trial")
    resources:
        **needs("trial"),
    params:
        run=length_and_settings,
        folder=preprocessed_folder,
        states=f"{STATES}/trials/{{trial}}",
        plan=training_plan,
    message:
        "Trial {wildcards.trial} of fold {wildcards.fold}: {params.plan}."
    script:
        "../workflow/scripts/train.py"
