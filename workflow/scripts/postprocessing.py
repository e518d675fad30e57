"""Choose a fold's post-processing on the predictions of its selection cases."""

import shutil
from functools import cache
from pathlib import Path

from voxelsoup.common.files import sha256, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.postprocessing_search import (
    Chosen,
    WholePrediction,
    choose,
    nothing_to_choose,
    predictions_of,
)
from voxelsoup.study.study import Study


def search_for_it(study: Study, fold: dict, folder: Path) -> Chosen:
    """The best post-processing for the compared models; those of the same weights predict once.

    Their scores are known, but not the probabilities, on which thresholds are tried.
    """
    # Without a search a job needs neither a device nor the seconds that torch takes.
    from voxelsoup.evaluation.score import load_model, prediction_in_the_scan
    from voxelsoup.models import devices
    from voxelsoup.soups.scorer import scoring_context

    kept, cases = Path(snakemake.params.predictions), sorted(fold["selection"])
    device = devices.prepare(study.training.device, snakemake.threads)
    context = scoring_context(study, fold, read_manifest(Path(snakemake.input.manifest)))
    kept.mkdir(parents=True, exist_ok=True)
    predictions = []
    for name, path in zip(snakemake.params.models, snakemake.input.models, strict=True):
        model = cache(lambda path=Path(path): load_model(path, study, device))

        def predict(case: str, model=model) -> WholePrediction:
            scan = prediction_in_the_scan(model(), case, folder, study, device)
            return WholePrediction(scan.probabilities, scan.truth, scan.spacing, scan.known)

        digest, search = sha256(Path(path)), study.postprocessing
        predictions += predictions_of(name, digest, cases, predict, kept, context, search)
    hidden = {case: study.not_annotated_in(case) for case in cases}
    chosen = choose(predictions, study.postprocessing, list(study.regions), hidden)
    shutil.rmtree(kept)
    return chosen


with job_log(snakemake.log[0]):
    folder, number = Path(snakemake.params.folder), snakemake.wildcards.fold
    study, fold = study_of_fold(snakemake.config, Path(snakemake.input.folds), number, folder)
    chosen = (
        search_for_it(study, fold, folder)
        if study.postprocessing.searches
        else nothing_to_choose(list(study.regions))
    )
    about = {"fold": int(number), "protocol": study.evaluation.protocol}
    write_json(Path(snakemake.output[0]), about | chosen.record)
