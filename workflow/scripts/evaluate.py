"""Score one model on the selection and test cases of its fold, or on the test cases alone."""

from pathlib import Path

from segsoup import devices
from segsoup.comparison import write_rows
from segsoup.evaluation import load_model, score_cases
from segsoup.files import read_json
from segsoup.logs import job_log
from segsoup.study import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    device = devices.prepare(study.training.device, snakemake.threads)
    fold = read_json(Path(snakemake.input.folds))["folds"][snakemake.wildcards.fold]
    model = load_model(Path(snakemake.input.model), study, device)

    asked = {name: fold[name] for name in snakemake.output.keys()}  # noqa: SIM118
    cases = sorted({case for names in asked.values() for case in names})
    rows = score_cases(model, cases, Path(snakemake.params.folder), study, device)
    for name, names in asked.items():
        write_rows(Path(snakemake.output[name]), rows[rows["case"].isin(names)])
