"""Where a head job goes, what it asks Slurm for, and what of its environment jobs inherit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from voxelsoup.cluster.associations import Limits
from voxelsoup.cluster.head_job import parse_state, sbatch_command, without_job
from voxelsoup.cluster.head_placement import choose_partition, jobs_beside_head
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import Node
from voxelsoup.common.errors import InputError

PARTITIONS = {
    "cpu": {"max_runtime": 2880, "max_mem_mb": 190000, "max_threads": 48},
    "debug": {"max_runtime": 30, "max_mem_mb": 190000, "max_threads": 48},
    "tiny": {"max_runtime": 9999, "max_mem_mb": 2000, "max_threads": 48},
    "gpu": {"max_runtime": 10080, "max_mem_mb": 500000, "max_threads": 64, "max_gpu": 8},
}
NODES = [
    Node(name, "n1", 48, 190000, {"a100": 4} if name == "gpu" else {}, limit)
    for name, limit in {"cpu": 1440.0, "debug": 60.0, "tiny": math.inf, "gpu": math.inf}.items()
]


def site(folder: Path, *names: str, jobs: int | None = 100) -> Site:
    file = folder / "partitions.yaml"
    file.write_text(yaml.safe_dump({"partitions": {name: PARTITIONS[name] for name in names}}))
    return Site(partition_file=file, jobs=jobs)


@pytest.mark.parametrize(
    ("described", "minutes", "expected"),
    [
        # The longest without GPUs, for as long as profile and cluster both allow.
        (("debug", "gpu", "cpu"), None, ("cpu", 1440)),
        (("debug", "gpu"), None, ("debug", 30)),
        # Among GPUs only where nothing else is long enough, or there is nothing else.
        (("debug", "gpu"), 600, ("gpu", 10080)),
        (("tiny", "gpu"), None, ("gpu", 10080)),
    ],
)
def test_a_head_job_goes_to_the_longest_cpu_partition(
    tmp_path: Path, described: tuple[str, ...], minutes: int | None, expected: tuple[str, float]
) -> None:
    assert choose_partition(site(tmp_path, *described), NODES, minutes) == expected


def test_a_head_job_that_no_partition_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no partition takes the head job .*cpu: 1440 min"):
        choose_partition(site(tmp_path, "cpu", "tiny"), NODES, 2000)


@pytest.mark.parametrize(
    ("jobs", "submitted", "expected"),
    [(100, 20, 19), (None, 20, 19), (10, 20, None), (10, math.inf, None), (None, math.inf, None)],
)
def test_snakemake_leaves_the_head_job_its_place(
    tmp_path: Path, jobs: int | None, submitted: float, expected: int | None
) -> None:
    limits = [Limits("account a", submitted, 50, math.inf), Limits("QOS b", math.inf, 5, math.inf)]
    assert jobs_beside_head(site(tmp_path, "cpu", jobs=jobs), limits) == expected


@pytest.mark.parametrize("limits", [(1, math.inf), (math.inf, 1)])
def test_a_head_job_that_would_stand_alone_is_refused(
    tmp_path: Path, limits: tuple[float, float]
) -> None:
    with pytest.raises(InputError, match="QOS small: allows 1 job at a time"):
        jobs_beside_head(site(tmp_path, "cpu"), [Limits("QOS small", *limits, math.inf)])


@pytest.mark.parametrize(("minutes", "seconds"), [(2880, 300), (20, 300), (2, 30)])
def test_slurm_asks_for_the_hand_over_before_the_time_limit(minutes: int, seconds: int) -> None:
    options = {"account": "mine", "qos": None}
    extra = "--reservation=r --signal=USR1@60"
    command = sbatch_command("a", "cpu", minutes, 4000, Path("head.log"), options, extra)
    # The last of two is taken: a profile's signal is that of its jobs.
    assert [word for word in command if word.startswith("--signal")] == [
        "--signal=USR1@60",
        f"--signal=B:USR1@{seconds}",
    ]
    assert {"--account=mine", "--reservation=r", "--requeue"} < set(command)
    assert not any(word.startswith("--qos") for word in command)


def test_jobs_inherit_nothing_of_the_head_job() -> None:
    inherited = {"SLURM_CONF": "/etc/a", "SLURMD_NODENAME": "n1", "SBATCH_ACCOUNT": "mine"}
    of_job = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "4000", "SLURM_CPUS_PER_TASK": "1"}
    assert without_job(inherited | of_job) == inherited


def test_a_job_is_open_until_slurm_is_done_with_it() -> None:
    running = parse_state("RUNNING|c1|2026-11-30T21:45:17|None")
    assert running.is_open and running.node == "c1" and running.since is not None
    waiting = parse_state("PENDING||N/A|(Resources)")
    assert waiting.is_open and waiting.since is None
    assert parse_state("COMPLETING|c1|N/A|None").is_open
    assert not parse_state("COMPLETED|c1|N/A|None").is_open
