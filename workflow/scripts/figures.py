"""Figures of the runs and the soups."""

from pathlib import Path

import pandas as pd

from segsoup.comparison import compare_study, points
from segsoup.figures import build_up, selection_against_test, training_curves
from segsoup.files import read_json
from segsoup.logs import job_log
from segsoup.study import load
from segsoup.sweep import readable, trials

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    asked, results = snakemake.params, Path(snakemake.params.results)
    names = {trial.id: f"{trial.id} {readable(trial.parameters)}" for trial in trials(study)}
    histories = {
        (fold, names.get(Path(run).name, run)): pd.read_csv(
            results / f"fold{fold}" / run / "history.csv"
        )
        for fold in asked.folds
        for run in asked.runs
    }
    comparisons = compare_study(results, asked.folds, asked.trials, asked.recipes, asked.protocol)
    greedy = {
        fold: read_json(results / f"fold{fold}" / "soups" / "greedy" / "recipe.json")
        for fold in asked.folds
        if "greedy" in asked.recipes
    }
    training_curves(histories, Path(snakemake.output.training_curves))
    selection_against_test(
        points(comparisons), Path(snakemake.output.selection_against_test), asked.protocol
    )
    build_up(greedy, Path(snakemake.output.build_up))
