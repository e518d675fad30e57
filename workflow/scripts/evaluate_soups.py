"""Score a fold's best model and its soups on its test cases, before and after post-processing."""

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
    chosen = read_json(Path(given.postprocessing))["postprocessing"]
    postprocessing = Postprocessing.from_record(chosen)
    folder = Path(snakemake.params.folder)
    for path, test, after in zip(given.models, made_of.tests, made_of.postprocessed, strict=True):
        model = load_model(Path(path), study, device)
        rows, rows_after = score_before_and_after(
            model, cases, folder, study, device, postprocessing
        )
        write_rows(Path(test), rows)
        write_rows(Path(after), rows_after)
