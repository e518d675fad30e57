"""Write the final model down with the score that is to be expected of it."""

import shutil
from pathlib import Path

from voxelsoup.common.files import atomic_write, read_json, sha256, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.comparison.final import in_words, write_expected
from voxelsoup.comparison.folds import patients_of_cases
from voxelsoup.comparison.score_summary import means_of
from voxelsoup.evaluation.case_scores import read_rows

with job_log(snakemake.log[0]):
    asked, given, made_of = snakemake.params, snakemake.input, snakemake.output
    plan, recipe = read_json(Path(given.plan)), read_json(Path(given.recipe))
    parts = read_json(Path(given.folds))["folds"].values()
    (cases,) = (part["training"] for part in parts)
    records = [read_json(Path(path)) for path in given.recipes]
    patients = patients_of_cases(Path(given.cases).parent)
    expected = means_of([read_rows(Path(path)) for path in given.tests], patients)
    sentences = in_words(plan, len(cases), asked.stem, expected, records)
    write_expected(expected, sentences, records[0]["protocol"], Path(made_of.page))
    with atomic_write(Path(made_of.model)) as copy:
        shutil.copyfile(given.model, copy)
    write_json(
        Path(made_of.recipe),
        {
            **plan,
            "ingredients": recipe["ingredients"],
            "training_cases": len(cases),
            "expected_by": asked.recipe,
            "expected": {
                region: {"dice": value.mean, "low": value.low, "high": value.high}
                for region, value in expected["dice"].items()
            },
            "statement": sentences,
            "sha256": sha256(Path(made_of.model)),
        },
    )
