# Functions of single chapters that take statements: Snakemake's lint wants them apart from rules.
from voxelsoup.common.files import read_json
from voxelsoup.data.index.folder_hash import list_files
from voxelsoup.prediction.outcomes import forget_lost

# data.smk


@cache
def listing_of_scans() -> str:
    """Sizes and dates of the scans; walking a folder of thousands takes a while."""
    try:
        return list_files(study.dataset)
    except InputError as error:
        raise StudyError(str(error))


def data_root(wildcards) -> str:
    """The folder of the scans."""
    if study.dataset.layout != "phantom":
        return study.dataset.root
    return f"{study.part_of.results if study.part_of else study.results}/phantom"


# halving.smk, and evaluate.smk where trials are halved


def kept_at(fold: str, rung: int) -> list[str]:
    """The trials of a fold that continue after a rung; all of them before the first one."""
    if rung == 0:
        return [trial.id for trial in TRIALS]
    record = checkpoints.halve.get(fold=fold, rung=rung).output[0]
    kept = set(read_json(Path(record))["kept"])
    return [trial.id for trial in TRIALS if trial.id in kept]


# evaluate.smk


def candidates_of(wildcards) -> list[str]:
    """The models of a fold that are scored on its test cases."""
    if study.sweep.halving is None:
        return CANDIDATES + GIVEN
    kept = set(kept_at(wildcards.fold, study.sweep.halving.rungs - 1))
    return [model for model in CANDIDATES if model.partition("/")[0] in kept] + GIVEN


def files_of_candidates(name: str):
    """A file of each of a fold's models, for ``input``."""

    def files(wildcards) -> list[str]:
        folder = f"{study.results}/fold{wildcards.fold}/trials"
        return [f"{folder}/{model}/{name}" for model in candidates_of(wildcards)]

    return files


# final.smk


def models_of_final(wildcards) -> list[str]:
    """The models that the final one is made of; known once the folds have chosen."""
    models = read_json(Path(checkpoints.final_plan.get().output[0]))["models"]
    return [f"{study.results}/final/trials/{one['model']}/model.safetensors" for one in models]


def rate_of_final() -> float:
    """The learning rate that the folds chose; the first one as long as they have not.

    Not of the checkpoint, of which Snakemake knows nothing yet when it asks what is current; before
    a job runs, it asks again.
    """
    plan = Path(study.results, "final", "plan.json")
    return read_json(plan)["lr"] if plan.exists() else FINISH.rates[0]


# predict.smk, and the target in deploy.smk


def batches_of_scans() -> dict[str, dict]:
    """Batch -> its cases with the dates of their files; known once the scans are listed."""
    return read_json(Path(checkpoints.scans.get().output[0]))["batches"]


def table_of_predictions(wildcards) -> str:
    """The outcome of all cases: forgotten here, and for a batch, if label maps are missing.

    Snakemake knows nothing of label maps and looks for what is written down of them right after
    this. It is forgotten for a plan (-n) too, which would not be true else.
    """
    if study.predict.input is None:
        raise StudyError(
            f"{STUDY_FILE}: `predict.input` names no scans\n"
            "  expected: the folder of the scans to segment\n"
            "  fix: set it in the study"
        )
    table = f"{study.results}/predictions.tsv"
    if workflow.is_main_process:
        batches = Path(study.results, ".predict").glob("[0-9]*.json")
        forget_lost(Path(table), batches, Path(PREDICTIONS), study.predict.probabilities)
    return table
