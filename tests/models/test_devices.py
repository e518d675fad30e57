"""One job per GPU: reservations that die with their process."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch

from voxelsoup.common.errors import InputError
from voxelsoup.models import devices
from voxelsoup.models.devices import claim, claim_all

CLAIM = """
import sys, time
from voxelsoup.models.devices import claim
print(claim(sys.argv[2:], patience=60, runs=int(sys.argv[1])), flush=True)
time.sleep(600)
"""


@pytest.fixture
def names() -> list[str]:
    """Names that no other process on this machine uses."""
    return [f"test-{uuid.uuid4()}" for _ in range(2)]


def claimed_elsewhere(names: list[str], runs: int = 1) -> tuple[subprocess.Popen[str], int]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", CLAIM, str(runs), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_every_process_gets_a_device_of_its_own(names: list[str]) -> None:
    first, one = claimed_elsewhere(names)
    second, other = claimed_elsewhere(names)
    try:
        assert {one, other} == {0, 1}
        with pytest.raises(TimeoutError, match="in use"):
            claim(names, patience=0)
        # A killed process holds nothing.
        first.kill()
        first.wait()
        assert claim(names, patience=10) == one
    finally:
        second.kill()
        second.wait()


def test_a_device_has_as_many_places_as_runs_may_share_it(names: list[str]) -> None:
    # One after the other: the first places of all devices go before the second ones.
    taken = [claimed_elsewhere(names, runs=2) for _ in range(4)]
    try:
        assert [index for _, index in taken] == [0, 1, 0, 1]
        with pytest.raises(TimeoutError):
            claim(names, patience=0, runs=2)
        # A process that needs a device alone waits for both that share it.
        for process, _ in taken[:3:2]:
            with pytest.raises(TimeoutError):
                claim(names, patience=0)
            process.kill()
            process.wait()
        assert claim(names, patience=10) == 0
    finally:
        for process, _ in taken:
            process.kill()
            process.wait()


def test_several_devices_are_taken_together_or_not_at_all(names: list[str]) -> None:
    other, taken = claimed_elsewhere(names)
    handles: list[int] = []
    try:
        with pytest.raises(TimeoutError, match="fewer than 2"):
            claim_all(names, 2, handles, patience=0)
        # Nothing was kept.
        assert not handles
        assert claim_all(names, 1, handles, patience=0) == [1 - taken]
    finally:
        other.kill()
        other.wait()
        for handle in handles:
            os.close(handle)


def test_automatic_precision_is_what_the_device_has() -> None:
    cpu = torch.device("cpu")
    assert devices.precision_on(cpu, "auto") == "float32"
    assert devices.precision_on(cpu, "float16") == "float16"
    with devices.autocast(cpu, "auto"):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this is a Mac with a GPU")
def test_an_apple_gpu_that_is_not_there_is_refused_with_the_fix() -> None:
    with pytest.raises(InputError, match=r"--device: is `mps`.*\n.*\n  fix: set it to `cpu`"):
        devices.prepare("mps", 1, "--device")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB, max allowed: 9 GB)"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_too_little_memory_is_known_by_what_is_raised(error: Exception, expected: bool) -> None:
    assert devices.ran_out_of_memory(error) is expected
