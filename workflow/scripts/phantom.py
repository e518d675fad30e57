"""Generate the phantom data set."""

from pathlib import Path

from voxelsoup.common.files import atomic_folder
from voxelsoup.common.logs import job_log
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.study.sections.data import Phantom

with job_log(snakemake.log[0]), atomic_folder(Path(snakemake.output[0])) as folder:
    write_phantom(folder, Phantom(**snakemake.params.phantom))
