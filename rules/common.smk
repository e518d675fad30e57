# The study, its trials and what several chapters share.
import os
import sys
from functools import cache
from pathlib import Path

# Not `workflow.basedir`, which is that of a workflow that uses this one as a module.
RULES_FOLDER = workflow.current_basedir.get_path_or_uri(secret_free=True)
REPOSITORY = Path(RULES_FOLDER).parent

# The library of this very checkout, here and in the jobs, also where it is not installed. What is
# read from a URL has none: there it has to be installed.
if (REPOSITORY / "src").is_dir():
    sys.path.insert(0, str(REPOSITORY / "src"))
    SEARCHED = [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")]
    os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, SEARCHED)))

from voxelsoup.cluster import job_resources, upstream_patches
from voxelsoup.common.errors import InputError
from voxelsoup.runs.snakemake_records import StudyError
from voxelsoup.study.loading import contents_of_configurations, load
from voxelsoup.study.trials import trials as trials_of

# Before anything is planned.
upstream_patches.plan_quickly()

# What messages call the study; another workflow may have made it without any file.
STUDY_FILE = str(workflow.configfiles[-1]) if workflow.configfiles else "`config` of the module"

try:
    study = load(config, STUDY_FILE)
    trials = {trial.id: trial for trial in trials_of(study, STUDY_FILE)}
    # Name -> what it is as a study of its own, as a file says it, and checked.
    CONTENTS = contents_of_configurations(config, study, STUDY_FILE)
    configurations = {name: load(content) for name, content in CONTENTS.items()}
except InputError as error:
    raise StudyError(str(error))

# Parameters name the folder too, and Snakemake would leave them as they are.
if workflow.modifier.path_modifier.replace_prefix(f"{study.results}/") != f"{study.results}/":
    raise StudyError(
        f"{STUDY_FILE}: the module has a `prefix` or `replace_prefix` for {study.results}\n"
        "  expected: the folder of results as `results` of the study names it\n"
        "  fix: leave the prefix out, and name the folder in `results` of the module's `config`"
    )

# Label maps that other tools have made: name -> folder.
OTHER_TOOLS = study.comparison.other_tools

# Sections of the study with all defaults: a rule names those that its results depend on.
# How code is compared, where runs are mirrored to and who hears of the end decides no result.
SETTINGS = study.model_dump(mode="json", exclude={"on_code_change", "tracking", "notify"})

FOLDS = study.folds.numbers
# By their ids: a sweep in another order repeats nothing that is made of its trials.
TRIALS = sorted(trials.values(), key=lambda trial: trial.id)
STEMS = ["stem"] if study.stem.source == "train" else []
# Recipes whose outcome is a model; an ensemble has no file of its own.
SOUPS = study.soup.averaging_recipes
# All that are compared with the best single model; those among them that are one model.
RECIPES = study.compared_recipes
MODELS = [recipe for recipe in RECIPES if recipe != "ensemble"]
# The models that are compared with each other, as folders of a fold; an ensemble joins them later.
COMPARED = ["best", *(f"soups/{recipe}" for recipe in MODELS)]
# The model of each fold that is made as the final one is.
STANDS_FOR_FINAL = "finished" if study.soup.finish else "greedy"
# Those whose predictions are shown, case by case.
SHOWN = [f"soups/{recipe}" for recipe in SOUPS if recipe != "best"][:1] or ["best"]

# The report's menu sorts by name: from the answer to what it rests on.
SECTIONS = {
    "configurations": "0 Configurations",
    "answer": "1 Answer",
    "tables": "2 Tables",
    "figures": "3 Figures",
    "basin": "4 Basin and soups",
    "methods": "5 Methods",
    "provenance": "6 Provenance",
    "run_times": "7 Run times",
    "data": "8 Data and models",
    "test_sets": "9 Test sets",
}

if study.part_of:
    of_configuration = f"Configuration {study.part_of.configuration}"
    SECTIONS = {key: f"{of_configuration}, {title[2:]}" for key, title in SECTIONS.items()}

# What folders are called in the records of what results were made from: they may be moved.
PLACES = {
    study.results: "<results>",
    str(REPOSITORY): "<project>",
    study.dataset.root: "<scans>",
    study.part_of.results if study.part_of else "": "<study>",
    study.stem.checkpoint: "<checkpoint>",
    **{one.file: f"<ingredient {one.name}>" for one in study.ingredients},
    **{folder: f"<other tool {name}>" for name, folder in OTHER_TOOLS.items()},
}


def results_folder(wildcards) -> str:
    """The folder that everything is written to."""
    return study.results


def preprocessed_folder(wildcards) -> str:
    """The folder of the preprocessed cases; their manifest is the input in its place."""
    return f"{study.results}/preprocessed"


def kept_scores(wildcards, output) -> str:
    """Where scores of a fold's models wait for their rule; by the output too: it is no setting.

    The final model, whose rules are those of stems and trials, has no fold that scores it.
    """
    place = f"fold{wildcards.fold}" if "fold" in wildcards.keys() else "final"
    return f"{study.results}/.state/{place}/scores"


def list_of_fold(wildcards, output) -> str:
    """The list of a fold's models; by the output too: it is no setting."""
    return f"{study.results}/fold{wildcards.fold}/candidates.tsv"


def fold_files(pattern: str, **wildcards) -> list[str]:
    """One file name per fold and combination of the wildcards."""
    return expand(f"<results>/fold{{fold}}/{pattern}", fold=FOLDS, **wildcards)


def threads_of(rule: str) -> int:
    """CPU cores of a rule, for ``threads``."""
    return job_resources.needs_of(study, rule).threads


def needs(rule: str) -> dict:
    """What a rule requests, for ``resources``; each value is a function of the attempt."""

    def asked(attempt: int) -> dict:
        # Known once jobs are made; within a submission `slurm-jobstep` starts them.
        plugin = workflow.executor_plugin
        submitted = plugin is not None and plugin.name.startswith("slurm")
        return job_resources.job_request(study, rule, attempt, submitted)

    def resource(name: str):
        return lambda wildcards, attempt: asked(attempt)[name]

    asks_for = {name: resource(name) for name in asked(1)}
    # A study that names a model has chosen; no resource is made of None.
    if OF_RUNS.get(rule) and "gpu_model" not in asks_for:
        asks_for["gpu_model"] = lambda wildcards, attempt: larger_model(rule, wildcards, attempt)
    return asks_for


# Rules that train a run, and that which scores it on the same card -> where its record is.
OF_RUNS = {
    "stem": "fold{fold}/stem",
    "rung": "fold{fold}/trials/{trial}",
    "trial": "fold{fold}/trials/{trial}",
    "evaluate": "fold{fold}/trials/{trial}",
    "finish": "fold{fold}/finish/{start}/{rate}",
    "long_run": "fold{fold}/long-run",
    "final_stem": "final/stem",
    "final_trial": "final/trials/{trial}",
    "final_finish": "final/finish",
}


def site_of_gpus():
    """The site whose partitions have GPUs, with its groups; None where no partitions are described.

    Inside a submission, where nothing is submitted, there is none either.
    """
    file = getattr(workflow.executor_settings, "partition_config", None)
    if not file:
        return None
    from voxelsoup.cluster.profile import Site

    groups = workflow.group_settings
    named, sizes = dict(groups.overwrite_groups), dict(groups.group_components)
    return Site(Path(file), groups=named, components=sizes)


def larger_model(rule: str, wildcards, attempt: int):
    """A GPU model with more memory than those on which a run was out of it, or None."""
    place = Path(study.results, ".state", OF_RUNS[rule].format(**wildcards))
    if study.resources.training.gpu == 0 or not place.is_dir() or (site := site_of_gpus()) is None:
        return None
    from voxelsoup.runs.larger_card import larger_card

    return larger_card(place, study, site, rule, attempt)


def may_get_larger_card(job) -> bool:
    """Whether the next attempt of a training may get a GPU with more memory."""
    if not workflow.is_main_process:
        # Left to the one that has submitted it.
        return True
    if workflow.executor_plugin.name == "local":
        # The job has seen all GPUs of this machine.
        return False
    site = site_of_gpus()
    if site is None:
        return True
    from voxelsoup.runs.larger_card import may_get_larger_card

    return may_get_larger_card(
        Path(job.params.states), study, site, OWN_NAMES[job.rule.name], job.attempt + 1
    )


def largest_model(models) -> str:
    """That of some GPU models which has the most memory."""
    site = site_of_gpus()
    if site is None:
        return max(models)
    from voxelsoup.runs.larger_card import largest_model

    return largest_model(models, site)
