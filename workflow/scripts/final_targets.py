"""Write the probabilities of the ensemble of the final model's trials, of all cases."""

from pathlib import Path

from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.index.index import read_cases
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.models import devices
from voxelsoup.soups.ensemble_targets import unlabelled_cases, write_targets_of_fold
from voxelsoup.soups.final import ingredients_of_final

with job_log(snakemake.log[0]):
    asked, given = snakemake.params, snakemake.input
    folder = Path(asked.folder)
    study, fold = study_of_fold(snakemake.config, Path(given.folds), asked.fold, folder)
    ensemble = ingredients_of_final(read_json(Path(given.plan)), list(map(Path, given.models)))

    device = devices.prepare(study.training.device, snakemake.threads)
    unlabelled = unlabelled_cases(read_cases(Path(given.cases)), fold) if asked.unlabelled else []
    record = write_targets_of_fold(
        ensemble,
        study,
        fold,
        unlabelled,
        read_manifest(Path(given.manifest)),
        folder,
        device,
        Path(asked.targets),
    )
    write_json(Path(snakemake.output[0]), record)
