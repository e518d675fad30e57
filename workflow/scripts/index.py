"""Find and check the cases of the data set."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.data.index.index import index_cases, write_cases, write_rejected
from voxelsoup.data.preprocessing.raters import check_simpleitk
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    if study.dataset.accept.raters == "staple":
        check_simpleitk()
    cases, rejected = index_cases(
        study.dataset,
        study.regions,
        Path(snakemake.params.root),
        workers=snakemake.threads,
        kept=Path(snakemake.params.verdicts),
        test_sets=list(study.comparison.test_sets.values()),
    )
    write_cases(Path(snakemake.output.cases), cases)
    write_rejected(Path(snakemake.output.rejected), rejected)
