# Reads and checks the study; holds what the chapters share.
import os
import sys
from functools import cache
from pathlib import Path

REPOSITORY = Path(workflow.basedir)

# The library of this very checkout, here and in the jobs, also where it is not installed.
sys.path.insert(0, str(REPOSITORY / "src"))
SEARCHED = [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")]
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, SEARCHED)))

from snakemake import common as snakemake_common
from snakemake import sourcecache
from snakemake.exceptions import WorkflowError

from voxelsoup.cluster import job_resources
from voxelsoup.prediction.bundle_files import bundle_files
from voxelsoup.data.index.folder_hash import list_files, list_scans
from voxelsoup.common.errors import InputError, Stopped
from voxelsoup.common.files import read_json
from voxelsoup.study.halving import check_halving, rung_epochs, trials_at_rungs
from voxelsoup.study.ingredients import (
    INGREDIENT_PATTERN,
    averaged_already,
    ingredients_of,
    models_of,
    written_beside,
)
from voxelsoup.runs.invocation import write_invocation
from voxelsoup.runs.lease import Lease
from voxelsoup.prediction.outcomes import forget_lost
from voxelsoup.runs.progress import plan
from voxelsoup.runs.invocation import remember_study
from voxelsoup.training.run import run_settings, stem_optimizer
from voxelsoup.study.loading import load
from voxelsoup.study.trials import group_keys, parameters_of, readable
from voxelsoup.study.trials import trials as trials_of

# Snakemake (9.27.1) takes the names of scripts and the signatures of functions apart several times
# for every job, with ten thousand jobs for seconds; they are the same each time.
sourcecache.parse_uri = cache(sourcecache.parse_uri)
snakemake_common.get_function_params = cache(snakemake_common.get_function_params)

STUDY_FILE = str(workflow.configfiles[-1])

try:
    study = load(config, STUDY_FILE)
    trials = {trial.id: trial for trial in trials_of(study, STUDY_FILE)}
    if study.sweep.halving:
        check_halving(study.sweep.halving, list(trials.values()), STUDY_FILE)
except InputError as error:
    raise WorkflowError(str(error))

FOLDS = study.folds.numbers
# By their ids: a sweep in another order repeats nothing that is made of its trials.
TRIALS = sorted(trials.values(), key=lambda trial: trial.id)
STEMS = ["stem"] if study.stem.source == "train" else []
# Models of the trials, as folders below trials/: those that go into soups, and those that the
# best single one is chosen among.
INGREDIENTS = [model for trial in TRIALS for model in ingredients_of(trial)]
CANDIDATES = [model for trial in TRIALS for model in models_of(trial)]
# Recipes whose outcome is a model; an ensemble has no file of its own.
SOUPS = study.soup.averaging_recipes
# Where the runs of a fold keep their states: beside the results, for a failed job's outputs are deleted.
STATES = f"{study.results}/.state/fold{{fold}}"
# The model that the trials of a fold start from, if there is one.
START = {
    "train": [f"{study.results}/fold{{fold}}/stem/model.safetensors"],
    "checkpoint": [study.stem.checkpoint],
    "none": [],
}[study.stem.source]
# The models that are compared with each other, as folders of a fold; an ensemble joins them later.
COMPARED = ["best", *(f"soups/{recipe}" for recipe in SOUPS)]

# Those whose predictions are shown, case by case.
SHOWN = [f"soups/{recipe}" for recipe in SOUPS if recipe != "best"][:1] or ["best"]
TABLES = ["comparisons", "overview", *(f"fold{fold}" for fold in FOLDS), "hyperparameters"]
TABLES += ["seeds", "postprocessing", "overview_postprocessed"]
FIGURES = ["build_up", "selection_against_test", "hyperparameters", "training_curves"]
FIGURES += [f"differences_{recipe}" for recipe in study.soup.recipes]

# The report's menu sorts by name: from the answer to what it rests on.
SECTIONS = {
    "answer": "1 Answer",
    "tables": "2 Tables",
    "figures": "3 Figures",
    "basin": "4 Basin and soups",
    "methods": "5 Methods",
    "provenance": "6 Provenance",
    "run_times": "7 Run times",
    "data": "8 Data and models",
}


def settings(*sections: str) -> dict:
    """The named sections of the study with all defaults: what a rule's results depend on."""
    return {section: STUDY_SETTINGS[section] for section in sections}


STUDY_SETTINGS = study.model_dump(mode="json")


@cache
def run_of(trial: str | None) -> tuple[int, dict]:
    """Epochs of a trial or of a stem, and the settings that its result depends on."""
    if trial is None:
        epochs, optimizer = study.stem.epochs, stem_optimizer(study)
        return epochs, run_settings(study, optimizer, epochs)
    own = trials[trial].study
    epochs, count = own.training.epochs, own.training.checkpoints
    return epochs, run_settings(own, own.optimizer, epochs, count, own.soup.weights)


def length_and_settings(wildcards) -> tuple[int, dict]:
    """What a run depends on, beside its stem and its data: the same for all folds."""
    return run_of(wildcards.get("trial"))


def case_score_cache(wildcards) -> str:
    """Where the case scores of a fold's candidate soups are kept, for all recipes."""
    return f"{study.results}/.state/fold{wildcards.fold}/candidates.jsonl"


def ensemble_case_scores(wildcards) -> str:
    """Where a fold's ensemble keeps its case scores: apart from those that soups choose by."""
    return f"{study.results}/.state/fold{wildcards.fold}/ensemble.jsonl"


def selection_predictions(wildcards) -> str:
    """Where predictions of selection cases lie while a fold's post-processing is chosen."""
    return f"{study.results}/.state/fold{wildcards.fold}/predictions"


def recipe_of_ensemble(wildcards) -> list[str]:
    """The soup whose ingredients the ensemble has, if it has not all."""
    if study.soup.ensemble_of == "all":
        return []
    return [f"{study.results}/fold{wildcards.fold}/soups/{study.soup.ensemble_of}/recipe.json"]


def kept_at(fold: str, rung: int) -> list[str]:
    """The trials of a fold that go on after a rung; all of them before the first one."""
    if rung == 0:
        return [trial.id for trial in TRIALS]
    record = checkpoints.halve.get(fold=fold, rung=rung).output[0]
    kept = set(read_json(Path(record))["kept"])
    return [trial.id for trial in TRIALS if trial.id in kept]


def selections_at_rung(wildcards) -> list[str]:
    """Scores of the trials that are compared at the end of a rung."""
    rung, folder = int(wildcards.rung), f"{study.results}/fold{wildcards.fold}/rungs"
    contestants = kept_at(wildcards.fold, rung - 1)
    return [f"{folder}/{rung}/{trial}/selection.csv" for trial in contestants]


def epochs_of_rung(wildcards) -> int:
    """Epochs at the end of a rung."""
    return rung_epochs(study.sweep.halving, study.training.epochs)[int(wildcards.rung) - 1]


def going_on(wildcards) -> str:
    """What follows a rung, in words for the plan: how many runs cannot be seen there yet."""
    rung, counts = int(wildcards.rung), trials_at_rungs(study.sweep.halving, len(trials))
    ends = rung_epochs(study.sweep.halving, study.training.epochs)
    return f"{counts[rung]} of {counts[rung - 1]} trials go on, to epoch {ends[rung]}"


def candidates_of(wildcards) -> list[str]:
    """The models of a fold that are scored on its test cases."""
    if study.sweep.halving is None:
        return CANDIDATES
    kept = set(kept_at(wildcards.fold, study.sweep.halving.rungs - 1))
    return [model for model in CANDIDATES if model.partition("/")[0] in kept]


def files_of_candidates(name: str):
    """A file of each of a fold's models, for ``input``."""

    def files(wildcards) -> list[str]:
        folder = f"{study.results}/fold{wildcards.fold}/trials"
        return [f"{folder}/{model}/{name}" for model in candidates_of(wildcards)]

    return files


def trial_groups() -> dict[str, str]:
    """What each trial shares with the others of its group, for the hierarchical recipe."""
    found = list(trials.values())
    keys, values = group_keys(study, found), parameters_of(found)
    return {trial: readable({key: swept[key] for key in keys}) for trial, swept in values.items()}


def learned_settings() -> dict:
    """What the learned recipe depends on, beside the models and the evaluation."""
    patches = ("batch_size", "foreground_share", "seed")
    training = {key: STUDY_SETTINGS["training"][key] for key in patches}
    return STUDY_SETTINGS["soup"]["learned"] | training


def training_plan(wildcards, output) -> str:
    """What training a run now will do: it asks for the output so that it is no reason to rerun."""
    epochs, settings = length_and_settings(wildcards)
    steps_per_epoch = study.training.steps_per_epoch
    if wildcards.get("trial"):
        steps_per_epoch = trials[wildcards.trial].study.training.steps_per_epoch
    run = f"trials/{wildcards.trial}" if wildcards.get("trial") else "stem"
    states = f"{study.results}/.state/fold{wildcards.fold}/{run}"
    return plan(states, settings, epochs, steps_per_epoch)


def results_folder(wildcards) -> str:
    """The folder that everything is written to."""
    return study.results


def kept_verdicts(wildcards) -> str:
    """Where the verdicts on the cases are kept, so that only changed ones are checked again."""
    return f"{study.results}/.state/verdicts.jsonl"


def preprocessed_folder(wildcards) -> str:
    """The folder of the preprocessed cases, which their manifest stands for as an input."""
    return f"{study.results}/preprocessed"


def data_root(wildcards) -> str:
    """The folder of the scans."""
    if study.dataset.layout == "phantom":
        return f"{study.results}/phantom"
    return study.dataset.root


def needs(rule: str) -> dict:
    """What a rule asks for, for ``resources``; each value is a function of the attempt."""

    def asked(attempt: int) -> dict:
        # Known once jobs are made; within a submission `slurm-jobstep` starts them.
        plugin = workflow.executor_plugin
        submitted = plugin is not None and plugin.name.startswith("slurm")
        return job_resources.job_request(study, rule, attempt, submitted)

    def resource(name: str):
        return lambda wildcards, attempt: asked(attempt)[name]

    return {name: resource(name) for name in asked(1)}


def count_shares_of_gpus() -> None:
    """Let a GPU count as many as may share it, where GPUs are counted (``job_resources.job_request``)."""
    limit = workflow.global_resources.get("gpu").value
    if limit is not None:
        workflow.register_resource("gpu", study.resources.runs_per_gpu * limit)


if study.resources.runs_per_gpu > 1:
    count_shares_of_gpus()


def threads_of(rule: str) -> int:
    """CPU cores of a rule, for ``threads``."""
    return job_resources.needs_of(study, rule).threads


@cache
def list_files_once() -> str:
    """The data set's listing; walking a folder of thousands of scans takes a while."""
    try:
        return list_files(study.dataset)
    except InputError as error:
        raise WorkflowError(str(error))


def listing(wildcards) -> str:
    """Sizes and dates of the scans stand for the contents, which the index rule hashes.

    A function, so that only who plans or runs the index rule walks the data folder.
    """
    return list_files_once()


def scan_listing(wildcards) -> str:
    """Sizes and dates of the scans to predict stand for their contents, which each job hashes."""
    return list_scans(study.predict.input)


def no_scans(wildcards) -> list[str]:
    """Why there is nothing to predict."""
    raise WorkflowError(
        f"{STUDY_FILE}: `predict.input` names no scans\n"
        "  expected: the folder of the scans to segment\n"
        "  fix: set it in the study"
    )


def models_to_predict_with(wildcards) -> list[str]:
    """The model files and bundles that predict, one for each fold by default."""
    own = [f"{study.results}/fold{fold}/{SHOWN[0]}/model.safetensors" for fold in FOLDS]
    return study.predict.models or own


def postprocessing_to_predict_with(wildcards) -> list[str]:
    """What is done to the predictions of the study's own models, if it is asked for."""
    if study.predict.models or not study.predict.postprocess:
        return []
    return [f"{study.results}/fold{fold}/postprocessing.json" for fold in FOLDS]


def batches_of_scans() -> dict[str, dict]:
    """Batch -> its cases with the dates of their files; known once the scans are listed."""
    return read_json(Path(checkpoints.scans.get().output[0]))["batches"]


def cases_of_batch(wildcards) -> dict:
    """The cases that one job predicts, with the dates of their files."""
    return batches_of_scans()[wildcards.batch]


def predicted_batches(wildcards) -> list[str]:
    """What became of each batch."""
    return [f"{study.results}/.predict/{batch}.json" for batch in batches_of_scans()]


def table_of_predictions(wildcards) -> str:
    """What became of all cases: forgotten here, and of a batch, where label maps are gone.

    Snakemake knows nothing of label maps and looks for what is written down of them right after
    this. It is forgotten for a plan (-n) too, which would not be true else.
    """
    table = f"{study.results}/predictions.tsv"
    if workflow.is_main_process:
        batches = Path(study.results, ".predict").glob("[0-9]*.json")
        folder = Path(predictions_folder(wildcards))
        forget_lost(Path(table), batches, folder, study.predict.probabilities)
    return table


def predictions_folder(wildcards) -> str:
    """Where label maps go."""
    return study.predict.output or f"{study.results}/predictions"


def fold_files(pattern: str, **wildcards) -> list[str]:
    """One file name per fold and combination of the wildcards."""
    return expand(f"<results>/fold{{fold}}/{pattern}", fold=FOLDS, **wildcards)


# One Snakemake at a time; the lease of one that was killed is free at once on the same host.
study_lease = Lease(Path(study.results, ".state"), study.recovery.lease_seconds, wait=False)


def check_start() -> None:
    """Stop before the first job if the study cannot work on this machine or with these data."""
    from voxelsoup.training.preflight import check_start

    try:
        check_start(study)
        if workflow.executor_plugin.name == "slurm":
            check_cluster()
            remember_job_age()
            name_runs_in_comments()
        # Kept until this process ends, also where Snakemake's own lock is switched off.
        study_lease.acquire(tell_waiting())
        remember_study(Path(study.results), workflow.configfiles)
        write_invocation(
            study_lease.folder,
            STUDY_FILE,
            workflow.executor_plugin.name,
            workflow.execution_settings.retries,
            getattr(workflow.scheduler._executor, "run_uuid", None),
        )
    except (InputError, Stopped) as error:
        raise WorkflowError(str(error))


def tell_waiting():
    """Say once that the lease of a Snakemake on another host is being watched."""

    @cache
    def tell() -> None:
        seconds = study.recovery.lease_seconds
        print(f"Waiting up to {seconds:g} s: is {study_lease.taken_from} alive?", flush=True)

    return tell


def check_cluster() -> None:
    """On a Slurm cluster: refuse what no partition can serve, before anything is submitted."""
    if not workflow.executor_settings.partition_config:
        return
    from voxelsoup.cluster.partitions import refuse_unservable
    from voxelsoup.cluster.profile import Site, check_rules, overridden_rules

    asked = workflow.resource_settings
    site = Site(
        partition_file=Path(workflow.executor_settings.partition_config),
        retries=workflow.execution_settings.retries,
        groups=check_rules(dict(workflow.group_settings.overwrite_groups), "groups"),
        components=dict(workflow.group_settings.group_components),
        overridden=overridden_rules(asked.overwrite_resources, asked.default_resources or {}),
    )
    refuse_unservable(study, site, {job.rule.name for job in workflow.dag.needrun_jobs()})


def remember_job_age() -> None:
    """Let `squeue` tell of ended jobs also after the controller was away.

    The Slurm plugin (2.8.0) asks for MinJobAge before every round of status queries. Where the
    controller does not answer just then, it asks `sacct` for the whole round: in vain where there
    is no accounting, and after the round it has forgotten its jobs and waits for ever.
    """
    import snakemake_executor_plugin_slurm as plugin

    age = plugin.get_min_job_age()
    if age is not None:
        plugin.get_min_job_age = lambda: age


def name_runs_in_comments() -> None:
    """Let a submission's comment say which runs it trains, for `voxelsoup status`.

    The Slurm plugin (2.8.0) writes the rule and its wildcards there, and for a group of jobs only
    the names of the rules: a pending one could be any trial's.
    """
    import snakemake_executor_plugin_slurm as plugin

    submit_command = plugin.get_submit_command

    def with_runs(job, params, *arguments, **options):
        jobs = job.jobs if job.is_group() else [job]
        trained = [one for one in jobs if one.rule.name in ("stem", "rung", "trial")]
        runs = [f"fold{one.wildcards.fold}/{one.wildcards.get('trial', 'stem')}" for one in trained]
        comment = " ".join([params["comment_str"], *sorted(runs)])
        return submit_command(job, params | {"comment_str": comment}, *arguments, **options)

    plugin.get_submit_command = with_runs


def show_findings() -> None:
    """Print the comparison and where the report lies, once there are any."""
    overview = Path(study.results, "comparison", "overview.csv")
    if overview.exists():
        from voxelsoup.comparison.findings import print_conclusions
        from voxelsoup.comparison.overview import print_overview

        print_overview(overview)
        print_conclusions(overview.with_name("comparisons.csv"))
    if Path(study.results, "comparison", "basin.csv").exists():
        from voxelsoup.comparison.barriers import print_findings, read_basins

        print_findings(read_basins(Path(study.results), FOLDS, study.soup.recipes))
    page = Path(study.results, "report.html")
    if page.exists():
        print(f"Report: {page}", flush=True)
