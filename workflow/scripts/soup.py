"""Make one soup of the trials of a fold."""

import time
from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.case_scores import rows_of, write_rows
from voxelsoup.models import devices, weight_files
from voxelsoup.soups.recipes import recipe_of
from voxelsoup.soups.scorer import WeightsScorer, scoring_context
from voxelsoup.soups.selection import Cache, Selection
from voxelsoup.soups.soup import check_alike, check_unchanged, ingredients_of_fold, recipe_record

with job_log(snakemake.log[0]):
    began, number = time.monotonic(), snakemake.wildcards.fold
    asked, given, made_of = snakemake.params, snakemake.input, snakemake.output
    folder = Path(asked.folder)
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    ingredients = ingredients_of_fold(Path(given.candidates), study)
    description = check_alike(ingredients)

    device = devices.prepare(study.training.device, snakemake.threads)
    scorers = [
        WeightsScorer(study, fold, folder, place)
        for place in devices.several(device, study.soup.at_once)
    ]
    context = scoring_context(study, fold, read_manifest(Path(given.manifest)))
    cache = Cache(Path(asked.cache), context)
    selection = Selection(fold["selection"], scorers, cache, study.soup.race)
    made = recipe_of(snakemake.wildcards.recipe)(ingredients, selection)

    check_unchanged(made.parts)
    weights = scorers[0].batch_norm_re_estimated(made.weights)
    weight_files.save(Path(made_of.model), weights, description)
    write_rows(Path(made_of.selection), rows_of(made.scores))
    write_json(
        Path(made_of.recipe),
        {
            "fold": int(number),
            "protocol": study.evaluation.protocol,
            "selection_cases": len(fold["selection"]),
            **recipe_record(snakemake.wildcards.recipe, made, selection, time.monotonic() - began),
        },
    )
