"""Score one model on the selection cases of its fold, and by all metrics on the test cases."""

from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.evaluation.case_scores import COLUMNS, write_rows
from voxelsoup.evaluation.score import load_model, score_cases
from voxelsoup.evaluation.tensorboard import write_evaluation
from voxelsoup.models import devices

with job_log(snakemake.log[0]):
    folder, number = Path(snakemake.params.folder), snakemake.wildcards.fold
    study, fold = study_of_fold(snakemake.config, Path(snakemake.input.folds), number, folder)
    sharing = study.resources.runs_per_gpu
    device = devices.prepare(study.training.device, snakemake.threads, runs_per_gpu=sharing)
    model = load_model(Path(snakemake.input.model), study, device)

    cases = sorted({*fold["selection"], *fold["test"]})
    rows = score_cases(model, cases, folder, study, device, measured=fold["test"])
    chosen_by = rows.loc[rows["case"].isin(fold["selection"]), COLUMNS]
    write_rows(Path(snakemake.output.selection), chosen_by)
    write_rows(Path(snakemake.output.test), rows[rows["case"].isin(fold["test"])])

    # The run's own model has this beside it, a checkpoint along the run has not.
    record = Path(snakemake.input.model).with_name("run.json")
    if record.exists():
        trained = read_json(record)
        write_evaluation(record.parent, chosen_by, trained["steps"], trained["parameters"])
