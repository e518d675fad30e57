"""One job per GPU: reservations that die with their process."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch

from segsoup import devices
from segsoup.devices import claim

CLAIM = """
import sys, time
from segsoup.devices import claim
print(claim(sys.argv[1:], patience=60), flush=True)
time.sleep(600)
"""


@pytest.fixture
def names() -> list[str]:
    """Names that nobody else on this machine uses."""
    return [f"test-{uuid.uuid4()}" for _ in range(2)]


def claimed_elsewhere(names: list[str]) -> tuple[subprocess.Popen[str], int]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", CLAIM, *names]
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


def test_automatic_precision_is_what_the_device_has() -> None:
    cpu = torch.device("cpu")
    assert devices.precision_on(cpu, "auto") == "float32"
    assert devices.precision_on(cpu, "float16") == "float16"
    with devices.autocast(cpu, "auto"):
        assert not torch.is_autocast_enabled("cpu")
