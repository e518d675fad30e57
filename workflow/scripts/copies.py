"""Copy small files of the study into a configuration's folder, and link to the arrays there."""

import os
import shutil
from pathlib import Path

from voxelsoup.common.files import atomic_write
from voxelsoup.common.logs import job_log

with job_log(snakemake.log[0]):
    for source, output in zip(snakemake.input, snakemake.output, strict=True):
        with atomic_write(Path(output)) as copy:
            shutil.copyfile(source, copy)
    if linked := snakemake.params.get("linked"):
        link = Path(snakemake.params.folder)
        link.unlink(missing_ok=True)
        # Relative, so that the results can be moved.
        link.symlink_to(os.path.relpath(linked, link.parent), target_is_directory=True)
