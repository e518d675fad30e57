"""Generate the phantom data set."""

from pathlib import Path

from segsoup.cases.phantom import write_phantom
from segsoup.files import whole_folder
from segsoup.logs import job_log
from segsoup.study import Phantom

with job_log(snakemake.log[0]), whole_folder(Path(snakemake.output[0])) as folder:
    write_phantom(folder, Phantom(**snakemake.params.phantom))
