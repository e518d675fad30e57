"""Free memory and cores: those of the machine, or what a job's control groups leave of them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from voxelsoup.common.machine import available_memory, usable_cores

MB = 2**20


def group(folder: Path, limit: object, used: int, cache: int, version: int) -> None:
    """Files of a control group, as the kernel shows them."""
    names = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\nactive_file 7\n")


@pytest.mark.parametrize("version", [1, 2])
def test_available_memory_is_the_narrowest_group_s_without_its_cache(
    tmp_path: Path, version: int
) -> None:
    mount = tmp_path / "cgroup"
    top = mount if version == 2 else mount / "memory"
    line = "0::/slurm/job_7/step_0" if version == 2 else "4:cpu,memory:/slurm/job_7/step_0"
    (tmp_path / "self").write_text(f"9:name=systemd:/else\n{line}\n")
    unlimited = "max" if version == 2 else 9223372036854771712
    group(top / "slurm" / "job_7" / "step_0", unlimited, 30 * MB, 0, version)
    group(top / "slurm" / "job_7", 100 * MB, 50 * MB, 20 * MB, version)
    group(top / "slurm" / "job_8", MB, MB, 0, version)
    assert available_memory(tmp_path / "self", mount) == 70 * MB
    group(top / "slurm", 60 * MB, 55 * MB, 0, version)
    assert available_memory(tmp_path / "self", mount) == 5 * MB
    group(top / "slurm", 60 * MB, 65 * MB, 0, version)
    assert available_memory(tmp_path / "self", mount) == 0


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("4:memory:/docker/0f3a\n")
    group(tmp_path / "memory", 90 * MB, 10 * MB, 0, 1)
    assert available_memory(tmp_path / "self", tmp_path) == 80 * MB


def test_available_memory_without_groups_is_the_machine_s() -> None:
    nowhere = Path("/none")
    free = psutil.virtual_memory().available
    assert abs(available_memory(nowhere, nowhere) - free) < 0.2 * free
    assert 0 < available_memory() < psutil.virtual_memory().total


def limit_time(folder: Path, quota: str, version: int) -> None:
    """Files of a control group with a quota per 100 ms, as the kernel shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota} 100000\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{'-1' if quota == 'max' else quota}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize("version", [1, 2])
def test_cores_are_as_many_as_a_container_gets_time_for(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    top = tmp_path / "cgroup" if version == 2 else tmp_path / "cgroup" / "cpu"
    line = "0::/pod/container" if version == 2 else "4:cpu,cpuacct:/pod/container"
    (tmp_path / "self").write_text(f"{line}\n")
    seen = tmp_path / "self", tmp_path / "cgroup"
    assert usable_cores(*seen) == 16
    limit_time(top / "pod" / "container", "max", version)
    assert usable_cores(*seen) == 16
    limit_time(top / "pod", "350000", version)
    assert usable_cores(*seen) == 4
    limit_time(top / "pod" / "container", "50000", version)
    assert usable_cores(*seen) == 1


def test_cores_without_groups_are_those_of_the_process() -> None:
    nowhere = Path("/none")
    assert usable_cores(nowhere, nowhere) == len(os.sched_getaffinity(0))
