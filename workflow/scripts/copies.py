"""Copy small files of the study into a configuration's folder, and link to the arrays there."""

import shutil
from pathlib import Path

from voxelsoup.common.files import atomic_write
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.store import share_arrays

with job_log(snakemake.log[0]):
    for source, output in zip(snakemake.input, snakemake.output, strict=True):
        with atomic_write(Path(output)) as copy:
            shutil.copyfile(source, copy)
    if linked := snakemake.params.get("linked"):
        share_arrays(Path(snakemake.params.folder), Path(linked))
