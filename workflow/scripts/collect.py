"""Gather every model of the study under a readable name."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.deploy.collection import collect, run_entry, soup_entry
from voxelsoup.soups.candidates import models_of_folds

with job_log(snakemake.log[0]):
    asked, entries = snakemake.params, []
    results = Path(asked.results)
    for fold, models in models_of_folds(results, asked.folds).items():
        of_fold = results / f"fold{fold}"
        for name in [*asked.stems, *(f"trials/{model}" for model in models)]:
            model = of_fold / name
            # The checkpoints of a trial lie below it.
            record = of_fold.joinpath(*Path(name).parts[:2], "run.json")
            files = (model / file for file in ("selection.csv", "test.csv"))
            entries.append(run_entry(fold, name, model / "model.safetensors", record, *files))
        for recipe in asked.recipes:
            files = ("model.safetensors", "recipe.json", "selection.csv", "test.csv")
            folder = of_fold / "soups" / recipe
            entries.append(soup_entry(fold, recipe, *(folder / name for name in files)))
    manifest = Path(snakemake.output.manifest)
    collect(entries, manifest.parent, manifest, asked.protocol)
