"""Whether jobs can be submitted from the nodes that the head job of a study may run on.

``AllocNodes`` of a partition names the hosts from which it takes jobs; Slurm says it without a
submission. All else that a site may do to jobs of its nodes shows when one asks from there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from voxelsoup.cluster import submission_probe
from voxelsoup.cluster.acceptance import check_acceptance, options_of, question
from voxelsoup.cluster.head_placement import MEM_MB, THREADS, Placement, place_head
from voxelsoup.cluster.node_probe import run_on_node
from voxelsoup.cluster.partitions import Check, Submission, choose, submissions
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import ask
from voxelsoup.common.errors import InputError
from voxelsoup.common.text import listed
from voxelsoup.study.study import Study

FOR = "voxelsoup submit"
FROM_ANYWHERE = "ALL"
NAMED = 3
OTHERWISE = "start Snakemake on a login node instead (docs/cluster.md)"


def check_submitting(
    site: Site, used: Mapping[str, Submission], seconds: float | None, probe: bool
) -> Iterator[Check]:
    """What ``voxelsoup submit`` needs beside what the study's jobs need; nothing of it is required.

    Args:
        used: partition -> a submission that the study has there.
        seconds: how long to wait for a free node; None: no job looks at one.
        probe: ask from the node whether Slurm takes jobs of it.
    """
    try:
        placement = place_head(site)
    except InputError as error:
        yield Check(f"{FOR}: a partition takes the head job", error, required=False)
        return
    where = f"{FOR}: the head job, in partition {placement.partition}"
    taken = check_acceptance(site, placement.partition, head_submission(placement))
    yield Check(f"{where}, {placement.minutes} min", taken.problem, required=False)
    if not used:
        return
    what = f"{where}, may submit to {', '.join(used)}"
    try:
        refuse_excluded_nodes(placement.partition, used)
    except InputError as error:
        yield Check(what, error, required=False)
        return
    yield Check(what)
    if seconds is not None:
        asked = used if probe else {}
        yield from check_from_node(site, placement.partition, asked, seconds)


def head_submission(placement: Placement) -> Submission:
    """The head job as one of the submissions of a study."""
    resources: dict[str, Any] = {
        "cpus_per_task": THREADS,
        "mem_mb": MEM_MB,
        "runtime": placement.minutes,
        "gpu": 0,
    }
    return Submission("head job", 1, resources)


def partitions_of(study: Study, site: Site) -> list[str]:
    """The partitions that the jobs of a study go to, at any attempt."""
    partitions = site.partitions()
    every = (each for attempts in submissions(study, site) for each in attempts)
    chosen = (choose(submission, partitions) for submission in every)
    return sorted({name for name in chosen if name is not None})


def refuse_excluded_nodes(head: str, used: Collection[str]) -> None:
    """Make sure that every node of the head job's partition may submit to the used partitions.

    Raises:
        InputError: naming the first partition that takes no job from some of these nodes, or if
            Slurm does not answer.
    """
    allowed = {name: text for name, text in read_alloc_nodes().items() if name in used}
    if all(text == FROM_ANYWHERE for text in allowed.values()):
        return
    hosts = read_hosts(head)
    for name, text in allowed.items():
        excluded = [] if text == FROM_ANYWHERE else sorted(hosts - _expanded(text))
        if excluded:
            more = f" and {len(excluded) - NAMED} more" if len(excluded) > NAMED else ""
            all_of_them = len(excluded) == len(hosts)
            raise InputError(
                f"partition {head}",
                f"{'no' if all_of_them else 'not every'} node of it, where the head job would run, "
                f"may submit to partition {name}: {', '.join(excluded[:NAMED])}{more} "
                f"{'is' if len(excluded) == 1 else 'are'} not in its AllocNodes ({text})",
                "nodes of which Slurm takes jobs",
                f"{OTHERWISE}, or ask the cluster's administrators to add the nodes to AllocNodes",
            )


def read_alloc_nodes() -> dict[str, str]:
    """Partition -> its ``AllocNodes``, as Slurm writes it.

    Raises:
        InputError: if Slurm does not answer.
    """
    return parse_alloc_nodes(_answer("scontrol", "--all", "--oneliner", "show", "partitions"))


def parse_alloc_nodes(printed: str) -> dict[str, str]:
    """Read what ``scontrol --oneliner show partitions`` prints."""
    found = {}
    for line in printed.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split())
        if "PartitionName" in words:
            found[words["PartitionName"]] = words.get("AllocNodes", FROM_ANYWHERE)
    return found


def read_hosts(partition: str) -> set[str]:
    """The hosts of a partition's nodes, by the short names that jobs of them are submitted under.

    Raises:
        InputError: if Slurm does not answer.
    """
    printed = _answer("sinfo", "--noheader", "--Node", f"--partition={partition}", "-o", "%n")
    return {line.strip().partition(".")[0] for line in printed.split()}


def _expanded(names: str) -> set[str]:
    """``login[1-2],x`` as Slurm expands it."""
    return set(_answer("scontrol", "show", "hostnames", names).split())


def _answer(*command: str) -> str:
    answer = ask(*command)
    if answer.returncode != 0:
        raise InputError(
            command[0],
            f"Slurm does not answer: {answer.stderr.strip()}",
            "what the cluster has",
            "try again later; if this persists, ask the cluster's administrators",
        )
    return answer.stdout


def check_from_node(
    site: Site, head: str, used: Mapping[str, Submission], seconds: float
) -> Iterator[Check]:
    """Look from a node of the head job's partition, in a job of a second.

    With ``used`` (partition -> a submission), the controller is asked from there about each.
    """
    questions = {name: question(site, name, submission) for name, submission in used.items()}
    command = [sys.executable, "-m", submission_probe.__name__, json.dumps(questions)]
    what = f"{FOR}: a node of {head} has {', '.join(submission_probe.COMMANDS)}"
    try:
        report = run_on_node(options_of(site, head), command, seconds)
    except InputError as error:
        problem = InputError(f"partition {head}", error.found, error.expected, error.fix)
        yield Check(what, problem, required=False)
        return
    node = report["node"]
    if report["absent"]:
        problem = InputError(
            f"node {node}",
            f"there is no {listed(report['absent'], 'or')}",
            "Slurm's client commands on the node, by which the head job submits the others",
            f"{OTHERWISE}, or load Slurm's module in your shell's profile",
        )
        yield Check(what, problem, required=False)
        return
    yield Check(f"{what} ({node})")
    for name in questions:
        said = report["refused"].get(name)
        taken = f"{FOR}: Slurm would take a job for partition {name} from {node}"
        if said is None:
            yield Check(taken)
            continue
        problem = InputError(
            f"node {node}",
            f"asked from there, sbatch refuses a job for partition {name}: {said}",
            "a job that the controller takes from compute nodes as well",
            f"{OTHERWISE}, or ask the cluster's administrators",
        )
        yield Check(taken, problem, required=False)
