"""Compare the models of all folds on each test set."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.comparison.test_sets import read_test_set, write_test_set
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    asked, study = snakemake.params, load(snakemake.config)
    for name, scans in study.comparison.test_sets.items():
        folder = Path(asked.results) / "test_sets" / name
        models = read_test_set(folder, asked.folds, asked.models)
        write_test_set(models, folder / "comparison", f"{name} ({scans})")
