"""List the cases of all folds as one fold that holds nothing out."""

from pathlib import Path

from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.soups.final import all_cases

with job_log(snakemake.log[0]):
    folds = read_json(Path(snakemake.input[0]))
    everything = {"training": all_cases(folds["folds"]), "selection": [], "test": []}
    content = {**folds, "folds": {str(snakemake.params.fold): everything}}
    write_json(Path(snakemake.output[0]), content)
