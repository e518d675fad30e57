"""Score a run's models: on selection cases, and by all metrics on the test cases of its fold."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.case_scores import write_no_rows, write_rows
from voxelsoup.evaluation.kept_scores import KeptScores, kept_scores
from voxelsoup.runs.divergence import divergence_of
from voxelsoup.study.study import Study


def score_missing(known: list[KeptScores], fold: dict, folder: Path, study: Study) -> None:
    """Score what the job that trained the run has not scored."""
    # The others need neither a device nor the seconds that torch takes to start.
    from voxelsoup.evaluation.run_scores import score_models, write_evaluations
    from voxelsoup.models import devices

    sharing = study.resources.runs_per_gpu
    device = devices.prepare(study.training.device, snakemake.threads, runs_per_gpu=sharing)
    score_models(known, fold, folder, study, device)
    write_evaluations(known, fold)


with job_log(snakemake.log[0]):
    asked, given, made_of = snakemake.params, snakemake.input, snakemake.output
    folder, number = Path(asked.folder), snakemake.wildcards.fold
    models, places = list(map(Path, given.models)), [made_of.selections, made_of.tests]
    if divergence_of(int(number), models[0].parent) is None:
        study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
        fingerprints = read_manifest(Path(given.manifest))
        kept = kept_scores(models, Path(asked.scores), study, fold, fingerprints)
        known = list(dict.fromkeys(kept))
        if any(one.missing for one in known):
            score_missing(known, fold, folder, study)
        for scores, selection, test in zip(kept, *places, strict=True):
            write_rows(Path(selection), scores.rows(fold["selection"]))
            write_rows(Path(test), scores.rows(fold["test"], study.metrics.names))
        for one in known:
            one.forget()
    else:
        # There are no models to score, and no device is needed to say so.
        for path in (*made_of.selections, *made_of.tests):
            write_no_rows(Path(path))
