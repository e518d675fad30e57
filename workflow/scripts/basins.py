"""Tables and figures of the barriers between the models of each fold."""

from itertools import chain
from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.comparison.barriers import read_basins, write_basins
from voxelsoup.report.figures import barriers, weight_distances
from voxelsoup.soups.candidates import models_of_folds
from voxelsoup.study.loading import load
from voxelsoup.study.trials import model_labels

with job_log(snakemake.log[0]):
    asked, made_of = snakemake.params, snakemake.output
    basins = read_basins(Path(asked.results), asked.folds, asked.recipes)
    write_basins(basins, Path(made_of.table).with_suffix(""))
    records = {basin.record["fold"]: basin.record for basin in basins}
    models = models_of_folds(Path(asked.results), asked.folds)
    names = model_labels(load(snakemake.config), chain(*models.values()))
    barriers(records, Path(made_of.barriers).with_suffix(".svg"), names)
    weight_distances(records, Path(made_of.weight_distances).with_suffix(".svg"), names)
