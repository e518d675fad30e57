"""What the jobs of each rule took."""

from pathlib import Path

from segsoup.benchmarks import read_benchmarks, write_run_times
from segsoup.logs import job_log

with job_log(snakemake.log[0]):
    asked = snakemake.params
    jobs = read_benchmarks(Path(asked.benchmarks), asked.folds, asked.trials, asked.recipes)
    write_run_times(jobs, Path(snakemake.output.table).with_suffix(""))
