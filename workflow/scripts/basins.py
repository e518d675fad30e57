"""Tables and figures of the barriers between the models of each fold."""

from itertools import chain
from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.comparison.barriers import read_barriers, write_barriers
from voxelsoup.report.figures import barriers, weight_distances
from voxelsoup.soups.candidates import models_of_folds
from voxelsoup.study.loading import load
from voxelsoup.study.trials import model_labels

with job_log(snakemake.log[0]):
    asked, made_of = snakemake.params, snakemake.output
    study = load(snakemake.config)
    models = models_of_folds(Path(asked.results), asked.folds)
    names = model_labels(study, chain(*models.values()))
    measured = read_barriers(Path(asked.results), asked.folds, asked.recipes, names)
    write_barriers(measured, Path(made_of.table).with_suffix(""))
    records = {fold.record["fold"]: fold.record for fold in measured}
    barriers(records, Path(made_of.barriers).with_suffix(".svg"), names)
    weight_distances(records, Path(made_of.weight_distances).with_suffix(".svg"), names)
