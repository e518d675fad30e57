"""Train the stem of a fold: the model that its trials start from."""

from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.study.loading import load
from voxelsoup.training.job import run_job, write_run
from voxelsoup.training.run import Job, run_identity, stem_run

with job_log(snakemake.log[0]):
    given, asked, model = snakemake.input, snakemake.params, Path(snakemake.output.model)
    # The final model has no fold of its own: it is trained on the cases of all of them.
    final = asked.get("fold")
    fold = int(final or snakemake.wildcards.fold)
    cases = read_json(Path(given.folds))["folds"][str(fold)]["training"]
    run = stem_run(load(snakemake.config), fold, cases, Path(asked.folder))
    job = Job(
        run,
        fold,
        name="stem",
        label="stem",
        parameters={},
        identity=run_identity(run, read_manifest(Path(given.manifest))),
        states=Path(asked.states),
        events=model.parent,
        log=Path(snakemake.log[0]),
        threads=snakemake.threads,
        place="final model" if final else "",
    )
    with run_job(job) as done:
        write_run(job, done, model, beside=[])
