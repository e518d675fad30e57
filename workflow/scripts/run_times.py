"""Time and memory of the jobs of each rule."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.report.run_times import read_benchmarks, write_run_times

with job_log(snakemake.log[0]):
    asked = snakemake.params
    jobs = read_benchmarks(Path(asked.benchmarks), asked.folds, asked.trials, asked.recipes)
    write_run_times(jobs, Path(snakemake.output.table).with_suffix(""))
