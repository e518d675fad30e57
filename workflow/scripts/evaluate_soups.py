"""Score a fold's best model and its soups on its test cases, before and after post-processing."""

from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.evaluation.postprocessing import Postprocessing
from voxelsoup.evaluation.score import load_model, score_before_and_after
from voxelsoup.models import devices

with job_log(snakemake.log[0]):
    given, made_of = snakemake.input, snakemake.output
    folder, number = Path(snakemake.params.folder), snakemake.wildcards.fold
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    device = devices.prepare(study.training.device, snakemake.threads)
    cases = sorted(fold["test"])
    chosen = read_json(Path(given.postprocessing))["postprocessing"]
    postprocessing = Postprocessing.from_record(chosen)
    for path, test, after in zip(given.models, made_of.tests, made_of.postprocessed, strict=True):
        model = load_model(Path(path), study, device)
        rows, rows_after = score_before_and_after(
            model, cases, folder, study, device, postprocessing
        )
        write_rows(Path(test), rows)
        write_rows(Path(after), rows_after)
