"""Score a fold's soups on its test cases, and all compared models after post-processing."""

from pathlib import Path

from segsoup import devices
from segsoup.case_rows import write_rows
from segsoup.evaluation import load_model, score_before_and_after
from segsoup.files import read_json
from segsoup.logs import job_log
from segsoup.postprocessing import Postprocessing
from segsoup.study import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    given, made_of = snakemake.input, snakemake.output
    device = devices.prepare(study.training.device, snakemake.threads)
    cases = sorted(read_json(Path(given.folds))["folds"][snakemake.wildcards.fold]["test"])
    postprocessing = Postprocessing.from_record(
        read_json(Path(given.postprocessing))["postprocessing"]
    )

    models = [given.best, *given.soups]
    # The best model was scored as it is when it was one of many.
    tests = [None, *made_of.tests]
    postprocessed = [made_of.best_postprocessed, *made_of.postprocessed]
    for path, test, after in zip(models, tests, postprocessed, strict=True):
        model, folder = load_model(Path(path), study, device), Path(snakemake.params.folder)
        rows, rows_after = score_before_and_after(
            model, cases, folder, study, device, postprocessing
        )
        if test is not None:
            write_rows(Path(test), rows)
        write_rows(Path(after), rows_after)
