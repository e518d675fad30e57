"""Generate the phantom data set."""

from pathlib import Path

from segsoup.cases.phantom import write_phantom
from segsoup.logs import job_log
from segsoup.study import Phantom

with job_log(snakemake.log[0]):
    write_phantom(Path(snakemake.output[0]), Phantom(**snakemake.params.phantom))
