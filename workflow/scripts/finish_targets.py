"""Write an ensemble's probabilities of the cases that a fold's finish trains on."""

from pathlib import Path

from voxelsoup.common.files import write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.index.index import read_cases
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.models import devices
from voxelsoup.soups.ensemble_targets import unlabelled_cases, write_targets_of_fold
from voxelsoup.soups.soup import check_alike, descending, ingredients_of_ensemble

with job_log(snakemake.log[0]):
    asked, given, number = snakemake.params, snakemake.input, snakemake.wildcards.fold
    folder = Path(asked.folder)
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    ensemble = ingredients_of_ensemble(Path(given.candidates), map(Path, given.recipe))
    check_alike(ensemble)

    device = devices.prepare(study.training.device, snakemake.threads)
    unlabelled = unlabelled_cases(read_cases(Path(given.cases)), fold) if asked.unlabelled else []
    record = write_targets_of_fold(
        descending(ensemble),
        study,
        fold,
        unlabelled,
        read_manifest(Path(given.manifest)),
        folder,
        device,
        Path(asked.targets),
    )
    write_json(Path(snakemake.output[0]), record)
