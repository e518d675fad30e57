"""Predict one batch of scans; bad cases are told of and stop no other."""

from pathlib import Path

from segsoup import devices
from segsoup.cases.scans import find_scans
from segsoup.files import write_json
from segsoup.logs import job_log
from segsoup.models import open_models
from segsoup.outcomes import log_told
from segsoup.prediction import Way, order_of, shared_postprocessing
from segsoup.predictions import Listener, Wanted, predict_cases
from segsoup.study import load

with job_log(snakemake.log[0]):
    asked, study = snakemake.params, load(snakemake.config)
    predict = study.predict
    models = open_models([Path(model) for model in snakemake.input.models])
    channels = models[0].description.channels
    cases = find_scans(asked.scans, channels, predict.channels)
    way = Way(
        models,
        order_of(models, predict.label_order, "predict.label_order"),
        overlap=study.evaluation.overlap if predict.overlap is None else predict.overlap,
        window_batch=study.evaluation.window_batch,
        flips=predict.flips,
        every_window=predict.every_window,
        precision=study.training.precision,
        postprocessing=shared_postprocessing(models) if predict.postprocess else None,
    )
    device = devices.prepare(study.training.device, snakemake.threads)
    wanted = Wanted(Path(asked.folder), predict.probabilities, predict.naming)
    batch = [case for case in cases if case.name in asked.cases]
    told = predict_cases(batch, way, wanted, device, Listener(told=log_told))
    write_json(Path(snakemake.output[0]), [one.as_record() for one in told])
