"""Report whether all cases were predicted, and fail if some were not."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.prediction.outcomes import refuse_bad

with job_log(snakemake.log[0]):
    refuse_bad(Path(snakemake.input[0]))
