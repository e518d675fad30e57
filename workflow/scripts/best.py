"""Copy the best single model of a fold."""

import shutil
from pathlib import Path

from segsoup.candidates import OWN, read_candidates
from segsoup.comparison import best_trial
from segsoup.files import whole
from segsoup.logs import job_log

with job_log(snakemake.log[0]):
    listed = Path(snakemake.input.candidates)
    scores = {one.model: one.selection_score for one in read_candidates(listed)}
    best = listed.parent / "trials" / best_trial(scores) / OWN
    with whole(Path(snakemake.output[0])) as copy:
        shutil.copyfile(best, copy)
