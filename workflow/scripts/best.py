"""Copy the best single model of a fold."""

import shutil
from pathlib import Path

from voxelsoup.common.files import atomic_write
from voxelsoup.common.logs import job_log
from voxelsoup.soups.candidates import OWN, ranking, read_candidates

with job_log(snakemake.log[0]):
    listed = Path(snakemake.input.candidates)
    scores = {one.model: one.selection_score for one in read_candidates(listed)}
    best = listed.parent / "trials" / ranking(scores)[0] / OWN
    with atomic_write(Path(snakemake.output[0])) as copy:
        shutil.copyfile(best, copy)
