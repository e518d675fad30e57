"""Copy the best single model of a fold."""

import shutil
from pathlib import Path

from voxelsoup.common.files import atomic_write
from voxelsoup.common.logs import job_log
from voxelsoup.soups.candidates import best_model

with job_log(snakemake.log[0]):
    best = best_model(Path(snakemake.input.candidates))
    with atomic_write(Path(snakemake.output[0])) as copy:
        shutil.copyfile(best, copy)
