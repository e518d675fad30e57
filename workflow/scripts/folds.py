"""Split the cases into folds."""

from pathlib import Path

from segsoup.cases.index import read_cases, read_rejected
from segsoup.files import write_json
from segsoup.folds import make_folds
from segsoup.logs import job_log
from segsoup.study import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    patients = {case.name: case.patient for case in read_cases(Path(snakemake.input.cases))}
    rejected = read_rejected(Path(snakemake.input.rejected))
    folds = make_folds(patients, study.folds, study.evaluation.protocol, rejected)
    write_json(Path(snakemake.output[0]), folds)
