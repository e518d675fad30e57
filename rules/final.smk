# One network for all cases: the trials that the folds chose, trained on everything.
# Its part in final/folds.json: a fold after the last one, which holds nothing out.
FINAL_FOLD = study.folds.count
FINAL_STATES = f"{study.results}/.state/final"
FINAL_START = [path.replace("fold{fold}", "final") for path in START]


rule final_cases:
    """List the cases of all folds as one that holds nothing out."""
    input:
        "<results>/folds.json",
    output:
        "<results>/final/folds.json",
    log:
        "<logs>/final/cases.log",
    benchmark:
        "<benchmarks>/final/cases.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("final_cases")
    resources:
        **needs("final_cases"),
    params:
        fold=FINAL_FOLD,
    message:
        "Final model: its cases."
    script:
        "../workflow/scripts/final_cases.py"


# A checkpoint: which trials the folds choose is known only now.
checkpoint final_plan:
    """Choose the trials of the final model, and the learning rate of its finish, by the folds."""
    input:
        candidates=fold_files("candidates.tsv"),
        greedy=fold_files("soups/greedy/recipe.json"),
        finished=fold_files("soups/finished/recipe.json") if study.soup.finish else [],
    output:
        "<results>/final/plan.json",
    log:
        "<logs>/final/plan.log",
    benchmark:
        "<benchmarks>/final/plan.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("final_plan")
    resources:
        **needs("final_plan"),
    params:
        folds=FOLDS,
    message:
        "Final model: its trials."
    script:
        "../workflow/scripts/final_plan.py"


use rule stem as final_stem with:
    input:
        folds="<results>/final/folds.json",
        manifest="<results>/preprocessed.tsv",
    output:
        model="<results>/final/stem/model.safetensors",
        history="<results>/final/stem/history.csv",
        run="<results>/final/stem/run.json",
    log:
        "<logs>/final/stem.log",
    benchmark:
        "<benchmarks>/final/stem.tsv"
    threads: threads_of("final_stem")
    resources:
        **needs("final_stem"),
    params:
        fold=FINAL_FOLD,
        run=lambda wildcards: target_of_stem(),
        folder=preprocessed_folder,
        states=f"{FINAL_STATES}/stem",
        plan=lambda wildcards, output: plan(
            f"{FINAL_STATES}/stem", *target_of_stem(), study.recovery.lease_seconds
        ),
    message:
        "Stem of the final model: {params.plan}."


use rule trial as final_trial with:
    input:
        folds="<results>/final/folds.json",
        manifest="<results>/preprocessed.tsv",
        stem=FINAL_START,
    output:
        model="<results>/final/trials/{trial}/model.safetensors",
        history="<results>/final/trials/{trial}/history.csv",
        run="<results>/final/trials/{trial}/run.json",
        ingredients=expand(
            "<results>/final/trials/{{trial}}/{name}/model.safetensors",
            name=written_beside(study),
        ),
    log:
        "<logs>/final/trials/{trial}.log",
    benchmark:
        "<benchmarks>/final/trials/{trial}.tsv"
    threads: threads_of("final_trial")
    resources:
        **needs("final_trial"),
    params:
        fold=FINAL_FOLD,
        run=lambda wildcards: target_of_trial(wildcards.trial),
        folder=preprocessed_folder,
        states=f"{FINAL_STATES}/trials/{{trial}}",
        plan=lambda wildcards, output: plan(
            f"{FINAL_STATES}/trials/{wildcards.trial}",
            *target_of_trial(wildcards.trial),
            study.recovery.lease_seconds,
        ),
    message:
        "Trial {wildcards.trial} of the final model: {params.plan}."


rule final_soup:
    """Average the trials of the final model."""
    input:
        folds="<results>/final/folds.json",
        plan="<results>/final/plan.json",
        models=models_of_final,
    output:
        model="<results>/final/soup/model.safetensors",
        recipe="<results>/final/soup/recipe.json",
    log:
        "<logs>/final/soup.log",
    benchmark:
        "<benchmarks>/final/soup.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("final_soup")
    resources:
        **needs("final_soup"),
    params:
        fold=FINAL_FOLD,
        folder=preprocessed_folder,
    message:
        "Final model: the average of its trials."
    script:
        "../workflow/scripts/final_soup.py"


rule final:
    """Write the final model down with the score that is to be expected of it."""
    input:
        plan="<results>/final/plan.json",
        recipe="<results>/final/soup/recipe.json",
        cases="<results>/cases.tsv",
        folds="<results>/final/folds.json",
        model=(
            "<results>/final/finish/model.safetensors"
            if study.soup.finish
            else "<results>/final/soup/model.safetensors"
        ),
        tests=fold_files(f"soups/{STANDS_FOR_FINAL}/test.csv"),
        recipes=fold_files(f"soups/{STANDS_FOR_FINAL}/recipe.json"),
    output:
        model="<results>/final/model.safetensors",
        recipe="<results>/final/recipe.json",
        page=report(
            "<results>/final/expected.html",
            caption="../workflow/report/final.rst",
            category=SECTIONS["answer"],
            labels={"table": "the final model"},
        ),
    log:
        "<logs>/final/final.log",
    benchmark:
        "<benchmarks>/final/final.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("final")
    resources:
        **needs("final"),
    params:
        recipe=STANDS_FOR_FINAL,
        stem=study.stem.source,
    message:
        "Final model: its file and its expected score."
    script:
        "../workflow/scripts/final.py"
