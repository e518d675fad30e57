"""Average the trials of the final model."""

from pathlib import Path

from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.models import devices, weight_files
from voxelsoup.soups.averaging import average
from voxelsoup.soups.final import ingredients_of_final
from voxelsoup.soups.scorer import WeightsScorer
from voxelsoup.soups.soup import check_alike, in_equal_parts, ingredient_record

with job_log(snakemake.log[0]):
    asked, given, made_of = snakemake.params, snakemake.input, snakemake.output
    folder = Path(asked.folder)
    study, fold = study_of_fold(snakemake.config, Path(given.folds), asked.fold, folder)
    plan = read_json(Path(given.plan))
    ingredients = ingredients_of_final(plan, list(map(Path, given.models)))
    description, parts = check_alike(ingredients), in_equal_parts(ingredients)

    device = devices.prepare(study.training.device, snakemake.threads)
    scorer = WeightsScorer(study, fold, folder, device)
    weights = scorer.batch_norm_re_estimated(average(parts))
    weight_files.save(Path(made_of.model), weights, description)
    listed = [
        ingredient_record(one.trial, part, chosen["selection_score"])
        for one, part, chosen in zip(ingredients, parts, plan["models"], strict=True)
    ]
    write_json(Path(made_of.recipe), {"recipe": "final", "ingredients": listed, **plan})
