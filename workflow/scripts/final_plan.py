"""Choose the trials of the final model, and the learning rate of its finish."""

from pathlib import Path

from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.soups.candidates import read_candidates
from voxelsoup.soups.final import final_plan

with job_log(snakemake.log[0]):
    given, folds = snakemake.input, snakemake.params.folds
    greedy = dict(zip(folds, (read_json(Path(path)) for path in given.greedy), strict=True))
    lists = [read_candidates(Path(path)) for path in given.candidates]
    candidates = {
        fold: [one for one in found if one.ingredient]
        for fold, found in zip(folds, lists, strict=True)
    }
    finished = [read_json(Path(path)) for path in given.finished]
    write_json(Path(snakemake.output[0]), final_plan(greedy, candidates, finished))
