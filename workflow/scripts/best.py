"""Copy the best single model of a fold."""

import shutil
from pathlib import Path

from segsoup.case_rows import mean_dice, read_rows
from segsoup.comparison import best_trial
from segsoup.files import whole
from segsoup.logs import job_log

with job_log(snakemake.log[0]):
    given, trials = snakemake.input, snakemake.params.trials
    scores = {
        trial: mean_dice(read_rows(Path(rows)))
        for trial, rows in zip(trials, given.selections, strict=True)
    }
    best = given.models[trials.index(best_trial(scores))]
    with whole(Path(snakemake.output[0])) as copy:
        shutil.copyfile(best, copy)
