"""Measure whether the models of a fold can be averaged: barriers and distances."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.models import devices
from voxelsoup.soups.barriers import barrier_record, spread
from voxelsoup.soups.scorer import WeightsScorer, scoring_context
from voxelsoup.soups.selection import Cache, Selection
from voxelsoup.soups.soup import check_alike, descending, ingredients_of_fold

with job_log(snakemake.log[0]):
    asked, given, number = snakemake.params, snakemake.input, snakemake.wildcards.fold
    folder = Path(asked.folder)
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    ingredients = ingredients_of_fold(Path(given.candidates))
    check_alike(ingredients)
    ordered = descending(ingredients)

    device = devices.prepare(study.training.device, snakemake.threads)
    scorer = WeightsScorer(study, fold, folder, device)
    # The soups' own: what the greedy recipe has scored is known here, and the other way round.
    context = scoring_context(study, fold, read_manifest(Path(given.manifest)))
    cache = Cache(Path(asked.cache), context)
    selection = Selection(spread(ordered[0].scores, asked.cases), [scorer], cache)
    write_json(
        Path(snakemake.output[0]),
        {
            "fold": int(number),
            "protocol": study.evaluation.protocol,
            "loss": study.evaluation.loss,
            **barrier_record(
                ordered, selection, asked.points, asked.stem, asked.averaged, asked.models
            ),
        },
    )
