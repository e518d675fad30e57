"""List the single models of a fold with their scores."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.runs.divergence import check_divergence, divergence_of
from voxelsoup.soups.candidates import list_candidates, trials_of, write_candidates
from voxelsoup.study.loading import load
from voxelsoup.study.trials import trial_labels, trials

with job_log(snakemake.log[0]):
    listed, asked = Path(snakemake.output[0]), snakemake.params
    fold, folder = int(snakemake.wildcards.fold), listed.parent / "trials"
    trained = trials_of(asked.models)
    found = [divergence_of(fold, folder / trial) for trial in trained]
    diverged = [one for one in found if one is not None]
    if diverged:
        study = load(snakemake.config)
        labels = trial_labels(trials(study))
        check_divergence(study.sweep.on_diverged, diverged, trained, labels)
    names = [one.trial for one in diverged]
    models = list_candidates(folder, asked.models, set(asked.ingredients), names)
    write_candidates(listed, models, names)
