"""Score the label maps that another tool has made of the test cases."""

import logging
import tempfile
from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.index.index import read_cases
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.prediction.other_tools import note_on_others, score_tool, tested_cases
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]), tempfile.TemporaryDirectory() as scratch:
    asked, given, tool = snakemake.params, snakemake.input, snakemake.wildcards.tool
    tested = set(tested_cases(read_json(Path(given.folds))["folds"]))
    rows, maps = score_tool(
        tool,
        Path(asked.maps),
        [case for case in read_cases(Path(given.cases)) if case.name in tested],
        load(snakemake.config),
        Path(asked.root),
        Path(asked.folder),
        Path(scratch),
        snakemake.threads,
    )
    if maps.others:
        logging.getLogger(__name__).info("%s", note_on_others(tool, maps))
    write_rows(Path(snakemake.output[0]), rows)
