"""Where the head job of a study may run, for how long, and how many jobs it may submit.

The head job is the Slurm job in which the study's own Snakemake runs (``voxelsoup submit``): small,
and as long as a partition allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from snakemake_executor_plugin_slurm.partitions import Partition

from voxelsoup.cluster.associations import Limits, limits_of_jobs
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import Node, read_nodes
from voxelsoup.common.errors import InputError

THREADS = 1
# Snakemake with the plan of some ten thousand jobs, and a rule that runs beside it.
MEM_MB = 4000
# Of partitions without a limit: a hand-over a week costs nothing.
LONGEST_MIN = 7 * 24 * 60


@dataclass(frozen=True)
class Placement:
    """What a head job asks for, and how many jobs its Snakemake may have in Slurm at a time.

    Attributes:
        minutes: its time limit, before which it hands over to its successor.
        jobs: None where the profile's own number will do.
    """

    partition: str
    minutes: int
    jobs: int | None


def place_head(site: Site, minutes: int | None = None) -> Placement:
    """Choose a partition for a head job; ``minutes`` replaces the longest time that is allowed.

    Raises:
        InputError: if no partition takes it, or if the site's limits leave no job beside it.
    """
    limits = limits_of_jobs(site)
    partition, longest = choose_partition(site, read_nodes(), minutes)
    of_account = min((one.runtime for one in limits), default=math.inf)
    chosen = minutes or int(min(longest, of_account, LONGEST_MIN))
    if chosen > of_account:
        raise InputError(
            "--runtime",
            f"{chosen} min",
            f"at most {of_account:g} min, which your account or QOS allows",
            "ask for less: the head job hands over before its end",
        )
    return Placement(partition, chosen, jobs_beside_head(site, limits))


def choose_partition(site: Site, nodes: list[Node], minutes: int | None) -> tuple[str, float]:
    """The partition of a head job and its longest run time (minutes).

    One without GPUs if there is any, and of these the one that lets it run longest.

    Raises:
        InputError: if no described partition takes it.
    """
    partitions = {each.name: each for each in site.partitions()}
    longest = {name: _longest(each, nodes) for name, each in partitions.items()}
    fitting = [name for name in partitions if longest[name] >= (minutes or 1)]
    if not fitting:
        asked = f"{THREADS} CPU, {MEM_MB} MB, {minutes or 1} min"
        found = "; ".join(f"{name}: {longest[name]:g} min" for name in partitions)
        raise InputError(
            site.partition_file,
            f"no partition takes the head job ({asked}). Longest there: {found}",
            "a partition for a small, long job",
            "describe a CPU partition, or ask for less with --runtime",
        )
    best = max(fitting, key=lambda name: (partitions[name].limits.max_gpu == 0, longest[name]))
    return best, longest[best]


def _longest(partition: Partition, nodes: list[Node]) -> float:
    """How long (minutes) a head job may run in a partition; 0 if it takes none."""
    limits = partition.limits
    if min(limits.max_threads, limits.max_cpus_per_task) < THREADS or limits.max_mem_mb < MEM_MB:
        return 0
    members = [
        n for n in nodes if n.partition == partition.name and n.has(THREADS, MEM_MB, 0, None)
    ]
    served = max((node.max_runtime for node in members), default=0.0)
    return min(float(limits.max_runtime), served)


def jobs_beside_head(site: Site, limits: list[Limits]) -> int | None:
    """How many jobs may be submitted at a time; None if the profile's own number will do.

    Raises:
        InputError: if account or QOS allow a single job, which would be the head job itself.
    """
    for one in limits:
        if min(one.submitted, one.running) < 2:
            raise InputError(
                one.of,
                f"allows {min(one.submitted, one.running):g} job at a time",
                "two: the head job, and a job of the study beside it",
                "start Snakemake on a login node instead (docs/cluster.md), or ask for another QOS",
            )
    allowed = min((one.submitted for one in limits), default=math.inf) - 1
    return int(allowed) if allowed < (site.jobs or math.inf) else None
