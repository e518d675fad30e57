"""What this process may take of the machine: cores, and memory of a job's share in it."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil

Result = TypeVar("Result")

# Limit, usage, and its part that is a reclaimable cache, in cgroups of version 2 and 1.
FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def usable_cores(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> int:
    """CPU cores that this process may use, or fewer where it gets less time than these have.

    Containers are held to a share of the time of all cores, through control groups (cgroups).
    ``groups`` and ``mount``: see cgroups(7).
    """
    # macOS has no such function.
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    shares = [
        share
        for group, kind in _groups(groups, mount, ("", "cpu"))
        if (share := _share_of_time(group, kind)) is not None
    ]
    return max(1, min([cores, *(math.ceil(share) for share in shares)]))


def _share_of_time(group: Path, kind: str) -> float | None:
    """How many cores' time a group may take; None if that is not limited."""
    try:
        if kind:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((group / name).read_text().strip() for name in names)
        else:
            quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    # `max` or -1: no limit.
    return int(quota) / int(period) if quota.isdecimal() and int(period) > 0 else None


def in_processes(
    function: Callable[..., Result], workers: int, *given: Sequence[Any]
) -> Iterator[Result]:
    """As ``map``, in at most ``workers`` processes; in this one where one is enough."""
    processes = min(workers, len(given[0]))
    if processes <= 1:
        yield from map(function, *given)
        return
    # Other start methods import the main module again, which in a Snakemake script would run the
    # script once more.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(function, *given)


def available_memory(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> int:
    """Bytes that can be taken before the machine swaps, or a job or container is killed.

    Slurm, Docker and Kubernetes hold a job to its share through control groups (cgroups), of
    which the machine's own count of free memory knows nothing. The narrowest of all groups around
    this process counts; a group's cache of files is freed before anything is killed.
    ``groups`` and ``mount``: see cgroups(7).
    """
    around = _groups(groups, mount, FILES)
    left = (number for group, kind in around for number in _left_in(group, *FILES[kind]))
    return min([psutil.virtual_memory().available, *left])


def _groups(groups: Path, mount: Path, kinds: Collection[str]) -> Iterator[tuple[Path, str]]:
    """The groups around the process, and the kind of each: "" of version 2, else a controller's."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        for kind in kinds:
            if kind in controllers.split(","):
                top = mount / kind
                own = top / place.lstrip("/")
                # In a container the groups above its own are not to be seen.
                for group in (own, *own.parents):
                    yield group, kind
                    if group == top:
                        break


def _left_in(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    try:
        most, used = (group / limit).read_text().strip(), int((group / usage).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return
    if most.isdecimal():
        yield max(0, int(most) - used + int(counts.get(cache, 0)))
