"""Choose a fold's post-processing on the predictions of its selection cases."""

import shutil
from pathlib import Path

from segsoup import devices
from segsoup.evaluation import load_model, prediction_in_the_scan, scoring_context
from segsoup.files import read_json, sha256, write_json
from segsoup.logs import job_log
from segsoup.postprocessing import WholePrediction, choose, predictions_of
from segsoup.preprocess import read_manifest
from segsoup.study import load

with job_log(snakemake.log[0]):
    study, asked = load(snakemake.config), snakemake.params
    device = devices.prepare(study.training.device, snakemake.threads)
    fold = read_json(Path(snakemake.input.folds))["folds"][snakemake.wildcards.fold]
    context = scoring_context(study, fold, read_manifest(Path(snakemake.input.manifest)))
    folder, kept = Path(asked.folder), Path(asked.predictions)
    kept.mkdir(parents=True, exist_ok=True)

    predictions = []
    for name, path in zip(asked.models, snakemake.input.models, strict=True):
        model = load_model(Path(path), study, device)

        def predict(case: str, model=model) -> WholePrediction:
            scan = prediction_in_the_scan(model, case, folder, study, device)
            return WholePrediction(scan.probabilities, scan.truth, scan.spacing)

        predictions += predictions_of(
            name,
            sha256(Path(path)),
            sorted(fold["selection"]),
            predict,
            kept,
            context,
            study.postprocessing,
        )
    chosen = choose(predictions, study.postprocessing, list(study.regions))
    write_json(
        Path(snakemake.output[0]),
        {"fold": int(snakemake.wildcards.fold), "protocol": study.evaluation.protocol}
        | chosen.record,
    )
    shutil.rmtree(kept)
