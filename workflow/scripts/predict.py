"""Predict one batch of scans; bad cases are reported and stop no other."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.models import devices
from voxelsoup.prediction.batch import OutputSettings, PredictionProgress, predict_cases
from voxelsoup.prediction.model_files import open_models
from voxelsoup.prediction.outcomes import log_outcome
from voxelsoup.prediction.predictor import PredictionSettings, order_of, shared_postprocessing
from voxelsoup.prediction.scans import find_scans
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    asked, study = snakemake.params, load(snakemake.config)
    predict = study.predict
    models = open_models([Path(model) for model in snakemake.input.models])
    channels = models[0].description.channels
    cases = find_scans(asked.scans, channels, predict.channels, layout=predict.layout)
    settings = PredictionSettings(
        models,
        order_of(models, predict.label_order, "predict.label_order"),
        overlap=study.evaluation.overlap if predict.overlap is None else predict.overlap,
        window_batch=study.evaluation.window_batch,
        flips=predict.flips,
        every_window=predict.every_window,
        precision=study.training.precision,
        postprocessing=shared_postprocessing(models) if predict.postprocess else None,
        accept=study.dataset.accept,
    )
    device = devices.prepare(study.training.device, snakemake.threads)
    outputs = OutputSettings(Path(asked.folder), predict.probabilities, predict.naming)
    batch = [case for case in cases if case.name in asked.cases]
    progress = PredictionProgress(finished=log_outcome)
    outcomes = predict_cases(batch, settings, outputs, device, progress)
    write_json(Path(snakemake.output[0]), [one.as_record() for one in outcomes])
