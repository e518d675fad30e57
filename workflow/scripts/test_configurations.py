"""Score the chosen ensemble of configurations on a fold's test cases, with post-processing too."""

import shutil
from pathlib import Path

from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.evaluation.postprocessing_search import (
    WholePrediction,
    choose,
    nothing_to_choose,
    predictions_of,
)
from voxelsoup.models import devices
from voxelsoup.soups.configurations import EnsemblePredictor, context_of, models_of_fold

with job_log(snakemake.log[0]):
    given, made_of, number = snakemake.input, snakemake.output, snakemake.wildcards.fold
    names, kept = read_json(Path(given.chosen))["ensemble"], Path(snakemake.params.predictions)
    fold = read_json(Path(given.folds))["folds"][number]
    models = models_of_fold(snakemake.config, Path(given.folds), int(number), names)
    study, selection = models[0].study, sorted(fold["selection"])
    ensemble = EnsemblePredictor(models, devices.prepare(study.training.device, snakemake.threads))

    def predict(case: str) -> WholePrediction:
        scan = ensemble.scan(case)
        return WholePrediction(scan.probabilities, scan.truth, scan.spacing, scan.known)

    kept.mkdir(parents=True, exist_ok=True)
    digest, search = "+".join(model.sha256 for model in models), study.postprocessing
    chosen = nothing_to_choose(list(study.regions))
    if search.searches:
        context = context_of(models, selection)
        found = predictions_of("ensemble", digest, selection, predict, kept, context, search)
        hidden = {case: study.not_annotated_in(case) for case in selection}
        chosen = choose(found, search, list(study.regions), hidden)
    rows, after = ensemble.scores(sorted(fold["test"]), chosen.postprocessing)
    write_rows(Path(made_of.test), rows)
    write_rows(Path(made_of.postprocessed), after)
    about = {"fold": int(number), "protocol": study.evaluation.protocol}
    write_json(Path(made_of.postprocessing), about | {"configurations": names} | chosen.record)
    shutil.rmtree(kept)
