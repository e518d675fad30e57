"""Choose a fold's post-processing on the predictions of its selection cases."""

import shutil
from pathlib import Path

from voxelsoup.common.files import sha256, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.postprocessing_search import (
    WholePrediction,
    choose,
    nothing_to_choose,
    predictions_of,
)
from voxelsoup.evaluation.score import load_model, prediction_in_the_scan
from voxelsoup.models import devices
from voxelsoup.soups.scorer import scoring_context

with job_log(snakemake.log[0]):
    asked, number = snakemake.params, snakemake.wildcards.fold
    folder, kept = Path(asked.folder), Path(asked.predictions)
    study, fold = study_of_fold(snakemake.config, Path(snakemake.input.folds), number, folder)
    device = devices.prepare(study.training.device, snakemake.threads)
    context = scoring_context(study, fold, read_manifest(Path(snakemake.input.manifest)))
    search = study.postprocessing

    predictions = []
    kept.mkdir(parents=True, exist_ok=True)
    for name, path in zip(asked.models, snakemake.input.models, strict=True):
        if not search.searches:
            break
        model = load_model(Path(path), study, device)

        def predict(case: str, model=model) -> WholePrediction:
            scan = prediction_in_the_scan(model, case, folder, study, device)
            return WholePrediction(scan.probabilities, scan.truth, scan.spacing, scan.known)

        cases, digest = sorted(fold["selection"]), sha256(Path(path))
        predictions += predictions_of(name, digest, cases, predict, kept, context, search)
    regions = list(study.regions)
    hidden = {case: study.not_annotated_in(case) for case in fold["selection"]}
    chosen = (
        choose(predictions, search, regions, hidden) if predictions else nothing_to_choose(regions)
    )
    about = {"fold": int(number), "protocol": study.evaluation.protocol}
    write_json(Path(snakemake.output[0]), about | chosen.record)
    shutil.rmtree(kept)
