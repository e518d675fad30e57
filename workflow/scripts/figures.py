"""Figures of the runs and the soups."""

from itertools import chain
from pathlib import Path

import pandas as pd

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.comparison.folds import compare_study, points
from voxelsoup.comparison.names import soup_title
from voxelsoup.report.figures import (
    build_up,
    hyperparameter_effects,
    paired_differences,
    selection_against_test,
    training_curves,
)
from voxelsoup.report.figures.data import case_differences, drawn_effects, intervals_of
from voxelsoup.soups.candidates import models_of_folds, runs_of_folds
from voxelsoup.study.ingredients import only_trained
from voxelsoup.study.loading import load
from voxelsoup.study.trials import model_labels, parameters_of, trials

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    asked, results = snakemake.params, Path(snakemake.params.results)
    folder = Path(snakemake.output.build_up).parent
    models = models_of_folds(results, asked.folds)
    names = model_labels(study, chain(*models.values()))
    trained = {fold: only_trained(found) for fold, found in models.items()}
    histories = {
        (fold, run.name): pd.read_csv(run / "history.csv")
        for fold, run in runs_of_folds(results, trained, study.stem.source == "train")
    }
    comparisons = compare_study(
        results, models, study.compared_recipes, asked.protocol, postprocessed=False
    )
    greedy = {
        fold: read_json(results / f"fold{fold}" / "soups" / "greedy" / "recipe.json")
        for fold in asked.folds
        if "greedy" in study.compared_recipes
    }
    training_curves(histories, folder / "training_curves.svg", names)
    file = folder / "selection_against_test.svg"
    selection_against_test(points(comparisons), file, asked.protocol, names)
    build_up(greedy, folder / "build_up.svg", names)
    parameters = parameters_of(trials(study))
    effects = drawn_effects(comparisons, parameters, names)
    hyperparameter_effects(effects, folder / "hyperparameters.svg", asked.protocol)
    for recipe in study.compared_recipes:
        title = soup_title(recipe)
        paired_differences(
            case_differences(comparisons, title),
            folder / f"differences_{recipe}.svg",
            asked.protocol,
            intervals_of(comparisons, title),
            title,
        )
