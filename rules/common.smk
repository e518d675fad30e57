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

from snakemake.exceptions import WorkflowError

from segsoup import requests
from segsoup.cases.listing import list_files
from segsoup.errors import InputError, Stopped
from segsoup.ingredients import (
    INGREDIENT_PATTERN,
    averaged_already,
    ingredients_of,
    models_of,
    written_beside,
)
from segsoup.invocation import write_invocation
from segsoup.lease import Lease
from segsoup.progress import plan
from segsoup.runs import run_settings, stem_optimizer
from segsoup.study import load
from segsoup.sweep import readable
from segsoup.sweep import trials as trials_of

STUDY_FILE = str(workflow.configfiles[-1])

try:
    study = load(config, STUDY_FILE)
    trials = {trial.id: trial for trial in trials_of(study, STUDY_FILE)}
except InputError as error:
    raise WorkflowError(str(error))

FOLDS = study.folds.numbers
RUNS = [f"trials/{trial}" for trial in trials]
if study.stem.source == "train":
    RUNS.insert(0, "stem")
# Models of the trials, as folders below trials/: those that go into soups, and those that the
# best single one is chosen among.
INGREDIENTS = [model for trial in trials.values() for model in ingredients_of(trial)]
CANDIDATES = [model for trial in trials.values() for model in models_of(trial)]
MODELS = [run for run in RUNS if run == "stem"] + [f"trials/{model}" for model in CANDIDATES]
# Recipes whose outcome is a model; an ensemble has no file of its own.
SOUPS = study.soup.averaging_recipes
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
    """The named sections of the study with all defaults: what a rule's results hang on."""
    return {section: STUDY_SETTINGS[section] for section in sections}


STUDY_SETTINGS = study.model_dump(mode="json")


def length_and_settings(wildcards) -> tuple[int, dict]:
    """Epochs of a run, and the settings that its result hangs on, beside its stem and its data."""
    if wildcards.get("trial") is None:
        epochs, optimizer = study.stem.epochs, stem_optimizer(study)
        return epochs, run_settings(study, optimizer, epochs)
    own = trials[wildcards.trial].study
    epochs, count = own.training.epochs, own.training.checkpoints
    return epochs, run_settings(own, own.optimizer, epochs, count, own.soup.weights)


def state_folder(wildcards) -> str:
    """Where a run keeps its states: beside the results, for a failed job's outputs are deleted."""
    run = f"trials/{wildcards.trial}" if wildcards.get("trial") else "stem"
    return f"{study.results}/.state/fold{wildcards.fold}/{run}"


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


def trial_groups() -> list[str]:
    """What each ingredient shares with the others of its group, for the hierarchical recipe."""
    keys = study.soup.group_by or list(study.sweep.grid)[:1]
    of_ingredients = [trials[model.partition("/")[0]] for model in INGREDIENTS]
    return [readable({key: trial.parameters[key] for key in keys}) for trial in of_ingredients]


def learned_settings() -> dict:
    """What the learned recipe hangs on, beside the models and the evaluation."""
    patches = ("batch_size", "foreground_share", "seed")
    training = {key: STUDY_SETTINGS["training"][key] for key in patches}
    return STUDY_SETTINGS["soup"]["learned"] | training


def training_plan(wildcards, output) -> str:
    """What training a run now will do: it asks for the output so that it is no reason to rerun."""
    epochs, settings = length_and_settings(wildcards)
    steps_per_epoch = study.training.steps_per_epoch
    if wildcards.get("trial"):
        steps_per_epoch = trials[wildcards.trial].study.training.steps_per_epoch
    return plan(Path(state_folder(wildcards)), settings, epochs, steps_per_epoch)


def stem_of(wildcards) -> list[str]:
    """The model that the trials of a fold start from, if there is one."""
    if study.stem.source == "train":
        return [f"{study.results}/fold{wildcards.fold}/stem/model.safetensors"]
    if study.stem.source == "checkpoint":
        return [study.stem.checkpoint]
    return []


def results_folder(wildcards) -> str:
    """The folder that everything is written to."""
    return study.results


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

    def resource(name: str):
        return lambda wildcards, attempt: requests.request(study, rule, attempt)[name]

    return {name: resource(name) for name in requests.request(study, rule, 1)}


def threads_of(rule: str) -> int:
    """CPU cores of a rule, for ``threads``."""
    return requests.needs_of(study, rule).threads


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


def fold_files(pattern: str, **wildcards) -> list[str]:
    """One file name per fold and combination of the wildcards."""
    return expand(f"<results>/fold{{fold}}/{pattern}", fold=FOLDS, **wildcards)


# One Snakemake at a time; the lease of one that was killed is free at once on the same host.
study_lease = Lease(Path(study.results, ".state"), study.recovery.lease_seconds, wait=False)


def check_start() -> None:
    """Stop before the first job if the study cannot work on this machine or with these data."""
    from segsoup.checks import check_start

    try:
        check_start(study)
        if workflow.executor_plugin.name == "slurm":
            check_cluster()
            remember_job_age()
            name_runs_in_comments()
        # Kept until this process ends, also where Snakemake's own lock is switched off.
        study_lease.acquire(tell_waiting())
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
    from segsoup.placement import refuse_unservable
    from segsoup.site import Site, check_rules, overridden_rules

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
    """Let a submission's comment say which runs it trains, for `segsoup status`.

    The Slurm plugin (2.8.0) writes the rule and its wildcards there, and for a group of jobs only
    the names of the rules: a pending one could be any trial's.
    """
    import snakemake_executor_plugin_slurm as plugin

    submit_command = plugin.get_submit_command

    def with_runs(job, params, *arguments, **options):
        jobs = job.jobs if job.is_group() else [job]
        trained = [one for one in jobs if one.rule.name in ("stem", "trial")]
        runs = [f"fold{one.wildcards.fold}/{one.wildcards.get('trial', 'stem')}" for one in trained]
        comment = " ".join([params["comment_str"], *sorted(runs)])
        return submit_command(job, params | {"comment_str": comment}, *arguments, **options)

    plugin.get_submit_command = with_runs


def show_findings() -> None:
    """Print the comparison and where the report lies, once there are any."""
    overview = Path(study.results, "comparison", "overview.csv")
    if overview.exists():
        from segsoup.findings import print_conclusions
        from segsoup.overview import print_overview

        print_overview(overview)
        print_conclusions(overview.with_name("comparisons.csv"))
    if Path(study.results, "comparison", "basin.csv").exists():
        from segsoup.basin import print_findings, read_basins

        print_findings(read_basins(Path(study.results), FOLDS, study.soup.recipes))
    page = Path(study.results, "report.html")
    if page.exists():
        print(f"Report: {page}", flush=True)
