"""Compare a fold's trials at the end of a rung, and say which of them continue."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.evaluation.case_scores import mean_dice, read_rows
from voxelsoup.soups.candidates import rung_record
from voxelsoup.study.sections.sweep import Halving

with job_log(snakemake.log[0]):
    asked, wildcards = snakemake.params, snakemake.wildcards
    # Each file lies in the folder of its trial.
    files = map(Path, snakemake.input.selections)
    scores = {path.parent.name: mean_dice(read_rows(path)) for path in files}
    halving = Halving(**asked.halving)
    record = rung_record(int(wildcards.fold), int(wildcards.rung), asked.epochs, halving, scores)
    write_json(Path(snakemake.output[0]), record)
