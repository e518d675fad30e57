"""Choose the learning rate of a fold's finish on its selection cases."""

import shutil
from pathlib import Path

from voxelsoup.common.files import atomic_write, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.evaluation.score import load_model, score_cases
from voxelsoup.models import devices
from voxelsoup.runs.divergence import divergence_of
from voxelsoup.soups.candidates import OWN
from voxelsoup.soups.finished import FinishedModel, chosen_rate, finished_record, source_of

with job_log(snakemake.log[0]):
    asked, given, number = snakemake.params, snakemake.input, snakemake.wildcards.fold
    made_of, folder = snakemake.output, Path(asked.folder)
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    device = devices.prepare(study.training.device, snakemake.threads)
    tried = []
    for rate, path in zip(asked.rates, map(Path, given.models), strict=True):
        rows = None
        if divergence_of(int(number), path.parent) is None:
            rows = score_cases(
                load_model(path, study, device), fold["selection"], folder, study, device
            )
        tried.append(FinishedModel(rate, path.parent, rows))

    chosen = chosen_rate(tried)
    with atomic_write(Path(made_of.model)) as copy:
        shutil.copyfile(chosen.folder / OWN, copy)
    write_rows(Path(made_of.selection), chosen.scores)
    source = source_of(asked.of, Path(given.candidates), [Path(path) for path in given.recipe])
    write_json(
        Path(made_of.recipe),
        {
            "fold": int(number),
            "protocol": study.evaluation.protocol,
            "selection_cases": len(fold["selection"]),
            **finished_record(snakemake.wildcards.finished, tried, chosen, source),
        },
    )
