"""Score the models of all configurations, and ensembles of them, on a fold's selection cases."""

from dataclasses import asdict
from pathlib import Path

from voxelsoup.common.files import read_json, write_json, write_text
from voxelsoup.common.logs import job_log
from voxelsoup.models import devices
from voxelsoup.soups.configurations import context_of, models_of_fold, score_candidates
from voxelsoup.soups.selection import Cache

with job_log(snakemake.log[0]):
    given, made_of, fold = snakemake.input, snakemake.output, snakemake.wildcards.fold
    models = models_of_fold(snakemake.config, Path(given.folds), int(fold))
    cases = sorted(read_json(Path(given.folds))["folds"][fold]["selection"])
    device = devices.prepare(models[0].study.training.device, snakemake.threads)
    cache = Cache(Path(snakemake.params.cache), context_of(models, cases))
    scored = score_candidates(models, cases, device, cache)
    write_text(Path(made_of.scores), scored.rows.to_csv(index=False, lineterminator="\n"))
    write_json(
        Path(made_of.costs),
        {
            "device": devices.name(device),
            **{name: asdict(cost) for name, cost in scored.costs.items()},
        },
    )
