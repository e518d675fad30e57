# Weights that the project did not train: converted once, and scored in each fold.


def taken_from(wildcards) -> str:
    """The file that the user named."""
    return TAKEN[wildcards.taken].file if wildcards.taken in TAKEN else study.stem.checkpoint


def conversion_of(wildcards) -> dict:
    """What is done to its tensors."""
    taken = TAKEN.get(wildcards.taken, study.stem)
    return taken.conversion.model_dump(mode="json")


# An ingredient has a name of its own; `stem` lies beside them.
TAKEN = {f"ingredients/{one.name}": one for one in study.ingredients}


wildcard_constraints:
    taken="|".join(["stem", *TAKEN]),


rule convert:
    """Turn a file of weights into one of the study's network."""
    input:
        taken_from,
    output:
        model="<results>/elsewhere/{taken}/model.safetensors",
        record="<results>/elsewhere/{taken}/source.json",
    log:
        "<logs>/elsewhere/{taken}.log",
    benchmark:
        "<benchmarks>/elsewhere/{taken}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("convert")
    resources:
        **needs("convert"),
    params:
        conversion=conversion_of,
        network=SETTINGS["network"],
        channels=study.dataset.channels,
        regions=[[name, labels] for name, labels in study.regions.items()],
    message:
        "Weights from elsewhere: {wildcards.taken}."
    script:
        "../workflow/scripts/convert.py"


rule ingredient:
    """Score a model that was not trained here on the cases of a fold, as a trial is scored."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        model="<results>/elsewhere/ingredients/{given}/model.safetensors",
        record="<results>/elsewhere/ingredients/{given}/source.json",
    output:
        model="<results>/fold{fold}/trials/elsewhere-{given}/model.safetensors",
        selection="<results>/fold{fold}/trials/elsewhere-{given}/selection.csv",
        test="<results>/fold{fold}/trials/elsewhere-{given}/test.csv",
        run="<results>/fold{fold}/trials/elsewhere-{given}/run.json",
    log:
        "<logs>/fold{fold}/ingredients/{given}.log",
    benchmark:
        "<benchmarks>/fold{fold}/ingredients/{given}.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("ingredient")
    resources:
        **needs("ingredient"),
    params:
        evaluation=SETTINGS["evaluation"],
        metrics=SETTINGS["metrics"],
        folder=preprocessed_folder,
    message:
        "Scores of {wildcards.given}, trained elsewhere, in fold {wildcards.fold}."
    script:
        "../workflow/scripts/ingredient.py"
