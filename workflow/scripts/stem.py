"""Train the stem of a fold: the model that its trials start from."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.evaluation.run_scores import SHARE_OF_A_STEM, score_at_once
from voxelsoup.runs.record import read_record
from voxelsoup.study.loading import load
from voxelsoup.training.job import run_job, write_run
from voxelsoup.training.run import Job, run_identity, stem_run

with job_log(snakemake.log[0]):
    given, asked, model = snakemake.input, snakemake.params, Path(snakemake.output.model)
    # The final model has no fold of its own: it is trained on the cases of all of them.
    final = asked.get("fold")
    fold = int(final or snakemake.wildcards.fold)
    folder, fingerprints = Path(asked.folder), read_manifest(Path(given.manifest))
    study, parts = study_of_fold(snakemake.config, Path(given.folds), fold, folder)
    run = stem_run(load(snakemake.config), fold, parts["training"], folder)
    job = Job(
        run,
        fold,
        name="stem",
        label="stem",
        parameters={},
        identity=run_identity(run, fingerprints),
        states=Path(asked.states),
        events=model.parent,
        log=Path(snakemake.log[0]),
        threads=snakemake.threads,
        place="final model" if final else "",
    )
    with run_job(job) as done:
        write_run(job, done, model, beside=[])
    if done.at_once and not final:
        kept, record = Path(asked.scores), read_record(job.states)
        seconds = SHARE_OF_A_STEM * (record.seconds if record else 0)
        score_at_once([model], kept, parts, folder, fingerprints, study, done.device, seconds)
