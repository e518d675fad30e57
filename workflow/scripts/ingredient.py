"""Score a model that was not trained here in one fold, and put it beside the fold's trials."""

from pathlib import Path

from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.evaluation.case_scores import COLUMNS, write_rows
from voxelsoup.evaluation.score import load_model, score_cases
from voxelsoup.models import devices, weight_files
from voxelsoup.study.ingredients import GIVEN

with job_log(snakemake.log[0]):
    given, made_of, name = snakemake.input, snakemake.output, snakemake.wildcards.given
    folder, number = Path(snakemake.params.folder), snakemake.wildcards.fold
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    # Its description is that of the fold's models, with the constants of the fold if it has any.
    model = Path(made_of.model)
    weights, _ = weight_files.load(Path(given.model))
    digest = weight_files.save(model, weights, weight_files.describe(study))

    sharing = study.resources.runs_per_gpu
    device = devices.prepare(study.training.device, snakemake.threads, runs_per_gpu=sharing)
    scored = load_model(model, study, device)
    cases = sorted({*fold["selection"], *fold["test"]})
    rows = score_cases(scored, cases, folder, study, device, measured=fold["test"])
    write_rows(Path(made_of.selection), rows.loc[rows["case"].isin(fold["selection"]), COLUMNS])
    write_rows(Path(made_of.test), rows[rows["case"].isin(fold["test"])])
    seen = next(one.seen for one in study.ingredients if one.name == name)
    write_json(
        Path(made_of.run),
        {
            "fold": int(number),
            "run": f"{GIVEN}{name}",
            "parameters": {"ingredient": name},
            "epochs": None,
            "seen": seen,
            "source": read_json(Path(given.record)),
            "models": {model.name: digest},
        },
    )
