"""Draw the best, the median and the worst case, with outlines of ground truth and predictions."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.comparison.names import soup_title
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.models import devices
from voxelsoup.report.figures import case_slices
from voxelsoup.report.figures.example_cases import cases_to_show, slice_of
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    study, given, asked = load(snakemake.config), snakemake.input, snakemake.params
    device = devices.prepare(study.training.device, snakemake.threads)
    tests = dict(zip(asked.folds, map(Path, given.tests), strict=True))
    models = dict(zip(asked.folds, zip(given.best, given.soups, strict=True), strict=True))
    folder = Path(asked.folder)
    slices = [
        slice_of(
            rank,
            fold,
            case,
            (Path(models[fold][0]), Path(models[fold][1])),
            folder,
            study_of_fold(snakemake.config, Path(given.folds), fold, folder)[0],
            device,
        )
        for rank, fold, case in cases_to_show(tests)
    ]
    figure = Path(snakemake.output.page).with_suffix(".svg")
    recipe = Path(asked.shown).name
    case_slices(slices, figure, study.evaluation.protocol, soup_title(recipe))
