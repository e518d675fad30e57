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
from segsoup.errors import InputError
from segsoup.study import load
from segsoup.sweep import trials as trials_of

STUDY_FILE = str(workflow.configfiles[-1])

try:
    study = load(config, STUDY_FILE)
    trials = {trial.id: trial for trial in trials_of(study, STUDY_FILE)}
except InputError as error:
    raise WorkflowError(str(error))

FOLDS = study.folds.numbers
CASE_SETS = ["selection", "test"]
RUNS = [f"trials/{trial}" for trial in trials]
if study.stem.source == "train":
    RUNS.insert(0, "stem")


def settings(*sections: str) -> dict:
    """The named sections of the study with all defaults: what a rule's results hang on."""
    return {section: STUDY_SETTINGS[section] for section in sections}


STUDY_SETTINGS = study.model_dump(mode="json")

# Where a job runs and what it needs does not change what it computes.
for ignored in ("device", "workers"):
    STUDY_SETTINGS["training"].pop(ignored)

MODEL_SECTIONS = ("dataset", "regions", "preprocess", "network", "training")


def trial_settings(wildcards) -> dict:
    """What the result of one trial hangs on, beside its stem and its data."""
    own = trials[wildcards.trial].study.model_dump(mode="json")
    for ignored in ("device", "workers"):
        own["training"].pop(ignored)
    return {section: own[section] for section in ("network", "training", "optimizer")}


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


def check_start() -> None:
    """Stop before the first job if the study cannot work on this machine or with these data."""
    from segsoup.checks import check_start

    try:
        check_start(study)
        check_cluster()
    except InputError as error:
        raise WorkflowError(str(error))


def check_cluster() -> None:
    """On a Slurm cluster: refuse what no partition can serve, before anything is submitted."""
    if workflow.executor_plugin.name != "slurm" or not workflow.executor_settings.partition_config:
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


def show_findings() -> None:
    """Print the comparison and where the report lies, once there are any."""
    overview = Path(study.results, "comparison", "overview.csv")
    if overview.exists():
        from segsoup.comparison import print_overview

        print_overview(overview)
    page = Path(study.results, "report.html")
    if page.exists():
        print(f"Report: {page}", flush=True)
