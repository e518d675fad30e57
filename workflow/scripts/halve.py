"""Compare a fold's trials at the end of a rung, and say which of them continue."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.runs.divergence import check_divergence
from voxelsoup.soups.candidates import rung_record, scores_at_rung
from voxelsoup.study.loading import load
from voxelsoup.study.sections.sweep import Halving
from voxelsoup.study.trials import trial_labels, trials

with job_log(snakemake.log[0]):
    asked, study = snakemake.params, load(snakemake.config)
    fold, rung = int(snakemake.wildcards.fold), int(snakemake.wildcards.rung)
    # Each file lies in the folder of its trial.
    folders = [Path(file).parent for file in snakemake.input.selections]
    scores, diverged = scores_at_rung(fold, folders)
    compared, labels = [folder.name for folder in folders], trial_labels(trials(study))
    check_divergence(study.sweep.on_diverged, diverged, compared, labels)
    halving = Halving(**asked.halving)
    record = rung_record(fold, rung, asked.epochs, halving, scores, diverged)
    write_json(Path(snakemake.output[0]), record)
