"""Make one soup of the trials of a fold."""

from pathlib import Path

from segsoup import checkpoints, devices
from segsoup.comparison import mean_dice, read_rows, write_rows
from segsoup.evaluation import WeightsScorer
from segsoup.files import read_json, write_json
from segsoup.logs import job_log
from segsoup.soups import RECIPES, Ingredient, check_alike, recipe_record
from segsoup.study import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    device = devices.prepare(study.training.device, snakemake.threads)
    fold = read_json(Path(snakemake.input.folds))["folds"][snakemake.wildcards.fold]
    selections = {
        trial: read_rows(Path(path))
        for trial, path in zip(snakemake.params.trials, snakemake.input.selections, strict=True)
    }
    ingredients = [
        Ingredient(trial, Path(model), mean_dice(selections[trial]))
        for trial, model in zip(snakemake.params.trials, snakemake.input.models, strict=True)
    ]
    description = check_alike(ingredients)
    scorer = WeightsScorer(study, fold, Path(snakemake.params.folder), device)
    made = RECIPES[snakemake.wildcards.recipe](ingredients, scorer)

    alone = len(made.ingredients) == 1
    rows = selections[made.ingredients[0].trial] if alone else scorer.rows(made.weights)
    checkpoints.save(Path(snakemake.output.model), made.weights, description)
    write_rows(Path(snakemake.output.selection), rows)
    write_json(
        Path(snakemake.output.recipe),
        {
            "fold": int(snakemake.wildcards.fold),
            "protocol": study.evaluation.protocol,
            "selection_cases": len(fold["selection"]),
            **recipe_record(snakemake.wildcards.recipe, made),
        },
    )
