"""Choose the configuration, and the ensemble of some, that score highest on selection cases."""

from pathlib import Path

import pandas as pd

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.soups.configuration_choice import choose

with job_log(snakemake.log[0]):
    folds = [pd.read_csv(path, dtype={"case": str}) for path in snakemake.input.scores]
    write_json(Path(snakemake.output[0]), choose(folds, snakemake.params.names).record())
