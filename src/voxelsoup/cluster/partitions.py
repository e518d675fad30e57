"""Where a cluster will run the jobs of a study, or that it cannot: known before submission.

The partition that a job will go to is chosen by the very code that Snakemake's Slurm plugin
chooses with, and is then compared with what its nodes really have.

Slurm's own answer, ``sbatch --test-only``, does not replace the comparison. Where
``EnforcePartLimits`` is off, which is the default, it takes a job that is longer than its partition
allows and that would pend for ever; it refuses a job whose nodes are only drained or down for a
while; and it does not say whether memory, cores, GPUs or the GPU model are missing
(tests/cluster/test_doctor.py). The doctor asks it besides, for accounts and QOS.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from snakemake_executor_plugin_slurm.partitions import Partition, get_best_partition

from voxelsoup.cluster.job_resources import RULES, Request, group_request
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import Node, read_nodes
from voxelsoup.common.errors import InputError
from voxelsoup.common.text import did_you_mean
from voxelsoup.study.study import Study

# The plugin logs its choice; here the caller reports it.
SILENT = logging.Logger("silent", level=logging.CRITICAL + 1)


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        required: whether the study cannot run with the problem; otherwise it stands in the way of
            one way to run it.
    """

    what: str
    problem: InputError | None = None
    required: bool = True


@dataclass(frozen=True)
class Submission:
    """What will be submitted for a group of rules, or one rule, at one attempt.

    It has the attributes of a Snakemake job that the plugin looks at to choose a partition.
    """

    name: str
    attempt: int
    resources: Request

    @property
    def rules(self) -> list[str]:
        """The rules whose jobs it runs."""
        return self.name.partition(" (")[0].split(", ")

    @property
    def threads(self) -> int:
        """CPU cores."""
        return int(self.resources["cpus_per_task"])

    def __str__(self) -> str:
        """The request in words."""
        asked = self.resources
        model = f" {asked['gpu_model']}" if "gpu_model" in asked else ""
        gpus = f"{asked['gpu']}{model} GPU, " if asked["gpu"] else ""
        return f"{gpus}{self.threads} CPU, {asked['mem_mb']} MB, {asked['runtime']} min"


def submissions(study: Study, site: Site, rules: Collection[str] = RULES) -> list[list[Submission]]:
    """Everything that a study submits: per group or single rule, one entry per attempt.

    ``rules`` are those that have something to do.

    Raises:
        InputError: if a group of the profile cannot be submitted.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for rule in RULES:
        if rule in rules and _is_submitted(rule, study) and rule not in site.overridden:
            members[site.groups.get(rule, rule)].append(rule)
    attempts = range(1, site.retries + 2)
    planned = []
    for group, grouped in members.items():
        name = group if grouped == [group] else f"{', '.join(grouped)} (group {group})"
        copies = 1 if RULES[grouped[0]].one_per == "study" else site.components.get(group, 1)
        requests = [group_request(study, grouped, attempt, copies) for attempt in attempts]
        planned.append([Submission(name, *asked) for asked in zip(attempts, requests, strict=True)])
    return planned


def _is_submitted(rule: str, study: Study) -> bool:
    of_some_studies = {
        "convert": bool(study.ingredients) or study.stem.is_converted,
        "ingredient": bool(study.ingredients),
        "phantom": study.dataset.layout == "phantom",
        "stem": study.stem.source == "train",
        "rung": study.sweep.halving is not None,
        "soup": bool(study.soup.averaging_recipes),
        "ensemble": "ensemble" in study.soup.recipes,
        "finish_targets": bool(study.soup.finish and study.soup.finish.ensemble_share),
        "finish": study.soup.finish is not None,
        "finished": study.soup.finish is not None,
        "long_run": study.comparison.long_run,
        **dict.fromkeys(("final_trial", "final_soup", "final"), study.final),
        "final_stem": study.final and study.stem.source == "train",
        "final_finish": study.final and study.soup.finish is not None,
        "final_targets": bool(
            study.final and study.soup.finish and study.soup.finish.ensemble_share
        ),
        "predict_batch": study.predict.input is not None,
        "score_configurations": bool(study.configurations),
        "test_configurations": bool(study.configurations),
        "compare_configurations": bool(study.configurations),
        "test_set": bool(study.comparison.test_sets),
        "test_sets": bool(study.comparison.test_sets),
        **dict.fromkeys(("other_tool", "other_tools"), bool(study.comparison.other_tools)),
    }
    return of_some_studies.get(rule, True) and not RULES[rule].local


def refuse_unservable(study: Study, site: Site, rules: Collection[str]) -> None:
    """Stop before the first submission if some attempt of some job could only pend for ever.

    Needs no node and no free place: it compares what is asked for with what the partitions have.
    ``rules`` are those that have something to do.

    Raises:
        InputError: with everything that no partition serves.
    """
    nodes = read_nodes()
    findings = [*check_partitions(site, nodes), *check_requests(study, site, nodes, rules)]
    problems = [finding.problem for finding in findings if finding.problem is not None]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listing = "\n".join(f"  - {problem.where}: {problem.found}" for problem in problems)
        raise InputError(
            site.partition_file,
            f"{len(problems)} problems\n{listing}",
            "a partition that serves every attempt of every job",
            "; ".join(dict.fromkeys(problem.fix for problem in problems)),
        )


def check_partitions(site: Site, nodes: list[Node]) -> Iterator[Check]:
    """Whether every described partition exists and has what the profile states."""
    known = sorted({node.partition for node in nodes})
    for partition in site.partitions():
        members = [node for node in nodes if node.partition == partition.name]
        where = f"{site.partition_file}: {partition.name}"
        if not members:
            problem = InputError(
                where,
                f"the cluster has no partition of this name{did_you_mean(partition.name, known)}",
                f"one of {', '.join(known)}",
                "correct or remove it",
            )
            yield Check(f"partition {partition.name} exists", problem)
            continue
        what = f"partition {partition.name} has what the profile states"
        problems = list(_broken_promises(partition, members, where))
        yield from [Check(what, problem) for problem in problems] or [Check(what)]


def _broken_promises(partition: Partition, nodes: list[Node], where: str) -> Iterator[InputError]:
    limits = partition.limits
    largest = {
        "max_runtime": max(node.max_runtime for node in nodes),
        "max_mem_mb": max(node.mem_mb for node in nodes),
        "max_threads": max(node.cpus for node in nodes),
        "max_gpu": max(sum(node.gpus.values()) for node in nodes),
    }
    for limit, found in largest.items():
        promised = getattr(limits, limit)
        # A limit that is left out promises nothing; the requests themselves are checked too.
        if not math.isinf(promised) and promised > found:
            yield InputError(
                where,
                f"`{limit}` is {promised:g}, and the cluster has {found:g} at most"
                + (" (minutes)" if limit == "max_runtime" else ""),
                f"no more than one of its nodes has: {found:g}",
                f"set `{limit}` to {found:g}",
            )
    models = sorted({model for node in nodes for model in node.gpus})
    for model in limits.available_gpu_models or []:
        if model not in models:
            yield InputError(
                where,
                f"`available_gpu_models` names {model}, which none of its nodes has",
                f"GPUs of this partition: {', '.join(filter(None, models)) or 'without a model'}",
                "correct `available_gpu_models`",
            )


def check_requests(
    study: Study, site: Site, nodes: list[Node], rules: Collection[str] = RULES
) -> Iterator[Check]:
    """Which partition will serve each attempt of each submission, or that none can.

    Raises:
        InputError: if a group of the profile cannot be submitted.
    """
    partitions = site.partitions()
    for attempts in submissions(study, site, rules):
        chosen = [(submission, choose(submission, partitions)) for submission in attempts]
        route = ", ".join(f"attempt {s.attempt} {name or 'nowhere'} ({s})" for s, name in chosen)
        problems = (_unserved(*choice, partitions, nodes, site) for choice in chosen)
        # Later attempts ask for more: the first that fails says it all.
        first = next(filter(None, problems), None)
        yield Check(f"{attempts[0].name}: {route}", first)


def choose(submission: Submission, partitions: list[Partition]) -> str | None:
    """The partition that the Slurm plugin will choose, if there is one."""
    name: str | None = get_best_partition(partitions, submission, SILENT)
    return name


def _unserved(
    submission: Submission,
    name: str | None,
    partitions: list[Partition],
    nodes: list[Node],
    site: Site,
) -> InputError | None:
    """Why a submission would wait for ever, if it would."""
    where = f"{submission.name}, attempt {submission.attempt}"
    fix = (
        "lower `resources` in the study or `retries` in the profile, or describe a larger "
        f"partition in {site.partition_file}"
    )
    if name is None:
        reasons = "; ".join(f"{part.name}: {_too_small(part, submission)}" for part in partitions)
        return InputError(
            where,
            f"no partition serves {submission} ({reasons})",
            "a partition that serves all of it",
            fix,
        )
    members = [node for node in nodes if node.partition == name]
    if not members or any(_fits(node, submission) for node in members):
        # `check_partitions` reports a partition that does not exist.
        return None
    return InputError(
        where,
        f"would go to {name}, where no single node has {submission}",
        "one node that has all of it at once, for so long",
        fix,
    )


def _fits(node: Node, submission: Submission) -> bool:
    asked = submission.resources
    model = str(asked["gpu_model"]) if "gpu_model" in asked else None
    has = node.has(submission.threads, int(asked["mem_mb"]), int(asked["gpu"]), model)
    return has and int(asked["runtime"]) <= node.max_runtime


def _too_small(partition: Partition, submission: Submission) -> str:
    limits, asked = partition.limits, submission.resources
    compared: list[tuple[str, int | str, float]] = [
        ("min", asked["runtime"], limits.max_runtime),
        ("MB", asked["mem_mb"], limits.max_mem_mb),
        ("CPU", asked["cpus_per_task"], min(limits.max_threads, limits.max_cpus_per_task)),
        ("GPU", asked["gpu"], limits.max_gpu),
    ]
    reasons = [
        f"at most {limit:g} {unit}" for unit, amount, limit in compared if int(amount) > limit
    ]
    model, models = asked.get("gpu_model"), limits.available_gpu_models
    if model and models and model not in models:
        reasons.append(f"no {model}")
    return ", ".join(reasons) or "does not fit"
