"""What this process may take of the machine: cores, and memory of a job's share in it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
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


def usable_cores() -> int:
    """CPU cores that this process may use."""
    # macOS has no such function.
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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
    return min([psutil.virtual_memory().available, *_left(groups, mount)])


def _left(groups: Path, mount: Path) -> Iterator[int]:
    """Bytes that each group around the process has left."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        for kind, names in FILES.items():
            if kind in controllers.split(","):
                top = mount / kind
                own = top / place.lstrip("/")
                # In a container the groups above its own are not to be seen.
                for group in (own, *own.parents):
                    yield from _left_in(group, *names)
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
