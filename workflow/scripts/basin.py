"""Measure whether the models of a fold share a basin."""

from pathlib import Path

from segsoup import devices
from segsoup.basin import basin_record, spread
from segsoup.case_rows import read_rows
from segsoup.evaluation import WeightsScorer, scores_of, scoring_context
from segsoup.files import read_json, sha256, write_json
from segsoup.logs import job_log
from segsoup.preprocess import read_manifest
from segsoup.selection import Cache, Selection
from segsoup.soups import Ingredient, check_alike, descending
from segsoup.study import load

with job_log(snakemake.log[0]):
    study, asked, given = load(snakemake.config), snakemake.params, snakemake.input
    fold = read_json(Path(given.folds))["folds"][snakemake.wildcards.fold]
    ingredients = [
        Ingredient(trial, Path(model), sha256(Path(model)), scores_of(read_rows(Path(rows))))
        for trial, model, rows in zip(asked.trials, given.models, given.selections, strict=True)
    ]
    check_alike(ingredients)
    ordered = descending(ingredients)

    device = devices.prepare(study.training.device, snakemake.threads)
    scorer = WeightsScorer(study, fold, Path(asked.folder), device)
    # The soups' own: what the greedy recipe has scored is known here, and the other way round.
    context = scoring_context(study, fold, read_manifest(Path(given.manifest)))
    cache = Cache(Path(asked.cache), context)
    selection = Selection(spread(ordered[0].scores, asked.cases), [scorer], cache)
    write_json(
        Path(snakemake.output[0]),
        {
            "fold": int(snakemake.wildcards.fold),
            "protocol": study.evaluation.protocol,
            "loss": study.evaluation.loss,
            **basin_record(ordered, selection, asked.points, asked.stem, asked.averaged),
        },
    )
