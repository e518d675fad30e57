"""What each rule asks of a machine or a cluster, in one place.

The workflow takes its ``threads`` and ``resources`` from here, and the doctor asks the same
functions what will be submitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Literal

from voxelsoup.common.errors import InputError
from voxelsoup.study.sections.resources import Needs
from voxelsoup.study.study import Study

# Snakemake's names of resources -> whole numbers, and the name of a GPU model.
Request = dict[str, int | str]


@dataclass(frozen=True)
class RuleJobs:
    """The jobs of one rule.

    Attributes:
        needs: the part of the study's `resources` that they go by.
        one_per: what there is one job for. A group over two of these would join the jobs of a
            whole fold or study.
        waits_for: the submitted rules with the same `one_per` whose outputs they read; members of
            a group run in this order.
        local: whether they run beside Snakemake itself and are never submitted.
    """

    needs: Literal["preprocess", "training", "evaluation", "tables"]
    one_per: Literal["study", "fold", "run", "rung", "recipe", "finish", "final trial", "batch"]
    waits_for: tuple[str, ...] = ()
    local: bool = False

    @property
    def may_share_gpu(self) -> bool:
        """Whether `runs_per_gpu` of them may share a GPU: a run and its scores."""
        return self.one_per == "run"


# tests/repository/test_rules.py compares this table with the rule files.
RULES = {
    "phantom": RuleJobs("tables", "study"),
    "index": RuleJobs("preprocess", "study", ("phantom",)),
    "folds": RuleJobs("tables", "study", ("index",)),
    "preprocess": RuleJobs("preprocess", "study", ("index",)),
    "convert": RuleJobs("tables", "study"),
    "stem": RuleJobs("training", "fold"),
    "rung": RuleJobs("training", "run"),
    "halve": RuleJobs("tables", "rung", local=True),
    "trial": RuleJobs("training", "run"),
    "evaluate": RuleJobs("evaluation", "run", ("trial",)),
    "evaluate_stem": RuleJobs("evaluation", "fold", ("stem",)),
    # One per fold and model.
    "ingredient": RuleJobs("evaluation", "recipe"),
    "soup": RuleJobs("evaluation", "recipe"),
    "candidates": RuleJobs("tables", "fold", local=True),
    "best": RuleJobs("tables", "fold"),
    "postprocessing": RuleJobs("evaluation", "fold", ("best", "long_run")),
    "evaluate_soups": RuleJobs("evaluation", "fold", ("best", "postprocessing", "long_run")),
    "ensemble": RuleJobs("evaluation", "fold", ("postprocessing",)),
    "finish_targets": RuleJobs("evaluation", "fold"),
    # One per fold, model that is finished and learning rate.
    "finish": RuleJobs("training", "finish"),
    "finished": RuleJobs("evaluation", "recipe", ("soup",)),
    "long_run": RuleJobs("training", "fold"),
    "final_cases": RuleJobs("tables", "study", local=True),
    "final_plan": RuleJobs("tables", "study", local=True),
    "final_stem": RuleJobs("training", "study"),
    # One per trial.
    "final_trial": RuleJobs("training", "final trial"),
    "final_soup": RuleJobs("evaluation", "study"),
    "final_targets": RuleJobs("evaluation", "study", ("index", "preprocess")),
    "final_finish": RuleJobs("training", "study", ("preprocess", "final_soup", "final_targets")),
    "final": RuleJobs("tables", "study", ("index", "final_soup", "final_finish")),
    "basin": RuleJobs("evaluation", "fold"),
    # One per fold, model and test set.
    "test_set": RuleJobs("evaluation", "recipe", ("soup", "finished")),
    "test_sets": RuleJobs("tables", "study"),
    "score_configurations": RuleJobs("evaluation", "fold"),
    "choose_configuration": RuleJobs("tables", "study", local=True),
    "test_configurations": RuleJobs("evaluation", "fold"),
    "compare_configurations": RuleJobs("tables", "study", ("index",)),
    # One per tool. It reads label maps, and computes what no GPU does.
    "other_tool": RuleJobs("preprocess", "study", ("index", "folds")),
    "other_tools": RuleJobs("tables", "study", ("index", "other_tool")),
    "case_slices": RuleJobs("evaluation", "study", ("folds", "preprocess")),
    "compare": RuleJobs("tables", "study", ("index", "other_tool")),
    "figures": RuleJobs("tables", "study", ("index",)),
    "basins": RuleJobs("tables", "study"),
    "collect": RuleJobs("tables", "study"),
    "methods": RuleJobs("tables", "study", local=True),
    "run_times": RuleJobs("tables", "study", local=True),
    "report": RuleJobs("tables", "study", local=True),
    # On the CPU: it computes one patch per model.
    "bundle": RuleJobs("preprocess", "study", ("index", "collect", "compare", "final")),
    "manifest": RuleJobs("tables", "study", local=True),
    "scans": RuleJobs("tables", "study", local=True),
    "predict_batch": RuleJobs("evaluation", "batch"),
    "predictions": RuleJobs("tables", "study", local=True),
    "predict": RuleJobs("tables", "study", local=True),
}


def needs_of(study: Study, rule: str) -> Needs:
    """The part of the study's ``resources`` that applies to a rule."""
    needs: Needs = getattr(study.resources, RULES[rule].needs)
    return needs


def request(study: Study, rule: str, attempt: int) -> Request:
    """GPUs, memory in MB, run time in minutes and CPU cores of a job, and the GPU model if set.

    Memory and run time grow with ``attempt``, 1 for the first: what failed may have run out of
    either.
    """
    needs = needs_of(study, rule)
    asked: Request = {
        "gpu": needs.gpu,
        "mem_mb": needs.mem_mb * attempt,
        "runtime": needs.runtime * attempt,
        "cpus_per_task": needs.threads,
    }
    if needs.gpu_model is not None:
        asked["gpu_model"] = needs.gpu_model
    return asked


def job_request(study: Study, rule: str, attempt: int, submitted: bool) -> Request:
    """What a job of a rule asks Snakemake for.

    That is its ``request``, but for GPUs that several runs share on one machine: Snakemake counts
    whole numbers, so that there a GPU counts as many as may share it. A job that is ``submitted``
    goes to a cluster, where GPUs are shared by the site's rules.
    """
    asked = request(study, rule, attempt)
    if submitted or RULES[rule].may_share_gpu:
        return asked
    return asked | {"gpu": int(asked["gpu"]) * study.resources.runs_per_gpu}


def group_request(study: Study, rules: Iterable[str], attempt: int, copies: int = 1) -> Request:
    """What one submission asks for that runs jobs of several rules.

    Members that wait for each other follow one another, so that run times add up and the
    largest of everything else counts; the others run side by side, so that everything but the
    run time adds up. This is how Snakemake counts. ``copies`` are the runs or recipes that share a
    submission (its ``group-components``).

    Raises:
        InputError: if members ask for different GPU models, or a group would join the jobs of
            a whole fold.
    """
    rules = sorted(rules)
    _check_unit(rules)
    _check_model(study, rules)
    total: Request = dict.fromkeys(("gpu", "mem_mb", "runtime", "cpus_per_task"), 0)
    for layer in _layers(rules):
        members = [request(study, rule, attempt) for rule in layer]
        for name in ("gpu", "mem_mb", "cpus_per_task"):
            at_once = copies * sum(int(member[name]) for member in members)
            total[name] = max(int(total[name]), at_once)
        total["runtime"] = int(total["runtime"]) + max(int(m["runtime"]) for m in members)
        for member in members:
            total |= {name: value for name, value in member.items() if name == "gpu_model"}
    return total


def _layers(rules: list[str]) -> list[list[str]]:
    """The rules in the order in which they run; those of one layer run side by side."""
    sorter = TopologicalSorter({rule: set(RULES[rule].waits_for) & set(rules) for rule in rules})
    sorter.prepare()
    layers = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        layers.append(ready)
        sorter.done(*ready)
    return layers


def _check_unit(rules: list[str]) -> None:
    units = {rule: RULES[rule].one_per for rule in rules}
    if len(set(units.values())) > 1:
        raise InputError(
            "groups",
            "one group holds " + ", ".join(f"{rule} (one per {units[rule]})" for rule in rules),
            "rules of one kind: Snakemake would join the jobs of a whole fold into one submission",
            "give them groups of their own in the profile",
        )


def _check_model(study: Study, rules: list[str]) -> None:
    models = {rule: needs_of(study, rule).gpu_model for rule in rules}
    named = sorted({model for model in models.values() if model is not None})
    if len(named) > 1:
        raise InputError(
            "resources",
            f"{', '.join(rules)} run in one submission and ask for {' and '.join(named)}",
            "one `gpu_model` for all members of a group",
            "use the same `gpu_model`, or take a rule out of the profile's `groups`",
        )
