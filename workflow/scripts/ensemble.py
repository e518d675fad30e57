"""Score the mean probabilities of a fold's models: the costly reference of the soups."""

import hashlib
import json
import time
from pathlib import Path

from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.case_scores import COLUMNS, write_rows
from voxelsoup.evaluation.postprocessing import Postprocessing
from voxelsoup.models import devices
from voxelsoup.soups.ensemble import ensemble_record, score_ensemble
from voxelsoup.soups.scorer import scoring_context
from voxelsoup.soups.selection import Cache
from voxelsoup.soups.soup import check_alike, descending, ingredients_of_ensemble

with job_log(snakemake.log[0]):
    began, number = time.monotonic(), snakemake.wildcards.fold
    asked, given, made_of = snakemake.params, snakemake.input, snakemake.output
    folder = Path(asked.folder)
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    ingredients = ingredients_of_ensemble(Path(given.candidates), map(Path, given.recipe))
    check_alike(ingredients)
    ensemble = descending(ingredients)

    device = devices.prepare(study.training.device, snakemake.threads)
    cases = sorted({*fold["selection"], *fold["test"]})
    # Its scores depend on the very cases that are scored: each model brings its own statistics.
    scored_on = {"selection": cases, "training": []}
    context = scoring_context(study, scored_on, read_manifest(Path(given.manifest)))
    chosen = read_json(Path(given.postprocessing))["postprocessing"]
    measured = json.dumps([context, study.metrics.model_dump(), chosen, fold["test"]])
    cache = Cache(Path(asked.cache), hashlib.sha256(measured.encode()).hexdigest())
    postprocessing = Postprocessing.from_record(chosen)
    scored = score_ensemble(
        ensemble, cases, folder, study, device, cache, fold["test"], postprocessing
    )

    rows = scored.rows
    write_rows(Path(made_of.selection), rows.loc[rows["case"].isin(fold["selection"]), COLUMNS])
    write_rows(Path(made_of.test), rows[rows["case"].isin(fold["test"])])
    write_rows(Path(made_of.postprocessed), scored.postprocessed)
    write_json(
        Path(made_of.recipe),
        {
            "fold": int(number),
            "protocol": study.evaluation.protocol,
            "selection_cases": len(fold["selection"]),
            **ensemble_record(
                ensemble,
                asked.made_of,
                scored,
                fold["selection"],
                time.monotonic() - began,
            ),
        },
    )
