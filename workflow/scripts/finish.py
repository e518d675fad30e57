"""Train a soup or the best single model of a fold on, with one learning rate."""

import logging
from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.runs.divergence import Diverged
from voxelsoup.soups.candidates import CANDIDATES, best_model
from voxelsoup.study.loading import load
from voxelsoup.training.job import run_job, take_over_results, write_diverged, write_run
from voxelsoup.training.run import Job, finish_run, run_identity
from voxelsoup.training.targets import targets_of

with job_log(snakemake.log[0]):
    given, asked, model = snakemake.input, snakemake.params, Path(snakemake.output.model)
    # The final model has no fold of its own: it is trained on the cases of all of them.
    final = asked.get("fold")
    fold = str(final or snakemake.wildcards.fold)
    rate = float(asked.rate if final else snakemake.wildcards.rate)
    name = "finish" if final else f"finish/{snakemake.wildcards.start}/{snakemake.wildcards.rate}"
    study, cases = load(snakemake.config), read_json(Path(given.folds))["folds"][fold]["training"]
    share, folder = study.soup.finish.ensemble_share, Path(asked.folder)
    targets = (
        targets_of(read_json(Path(given.targets[0])), Path(asked.targets), share) if share else None
    )
    cases = [*cases, *(targets.unlabelled if targets else ())]
    start = Path(given.start)
    start = best_model(start) if start.name == CANDIDATES else start
    run = finish_run(study, int(fold), cases, folder, start, rate, targets)
    job = Job(
        run,
        int(fold),
        name=name,
        label=f"{name} with rate {rate:g}" if final else name,
        parameters={},
        identity=run_identity(run, read_manifest(Path(given.manifest))),
        states=Path(asked.states),
        events=model.parent,
        log=Path(snakemake.log[0]),
        threads=snakemake.threads,
        place="final model" if final else "",
    )
    # A soup of one model is that model: its finish is done once, unless both are at work at once.
    states, results = Path(asked.states).parents[1], model.parents[2]
    others = {one.name for one in states.glob("*")} - {model.parent.parent.name}
    taken = not final and any(
        take_over_results(
            job, model, f"finish/{one}/{rate}", *(at / one / str(rate) for at in (states, results))
        )
        for one in sorted(others)
    )
    try:
        if not taken:
            with run_job(job) as done:
                write_run(job, done, model, beside=[])
    except Diverged as error:
        if final:
            raise
        logging.error("%s\nthe fold continues without this rate", error)
        write_diverged(job, error, model, beside=[])
