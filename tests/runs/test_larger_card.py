"""After a GPU's memory was not enough: a larger card, or which setting to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from voxelsoup.cluster.profile import Site
from voxelsoup.common.errors import describe
from voxelsoup.common.graphics_cards import GB, MIB
from voxelsoup.runs.failures import GPU_MEMORY, end_by_error
from voxelsoup.runs.larger_card import larger_card
from voxelsoup.runs.lease import Owner
from voxelsoup.runs.record import Recorder

PARTITIONS = {
    "cpu": {"max_threads": 8},
    "old": {"max_gpu": 2, "available_gpu_models": ["v100", "a100"]},
    "new": {"max_gpu": 2, "available_gpu_models": ["h100"]},
    "own": {"max_gpu": 1, "available_gpu_models": ["homebrew"]},
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    content = {"partitions": PARTITIONS, "gpu_memory_mb": {"homebrew": 200_000}}
    file = tmp_path / "partitions.yaml"
    file.write_text(yaml.safe_dump(content))
    return Site(file)


def attempt(states: Path, memory: int | None, error: BaseException) -> None:
    """One more attempt of a run, on a card of so many bytes, which ended with an error."""
    recorder = Recorder(states, Owner.this_process(), steps=10)
    recorder.start()
    recorder.trains_on("NVIDIA", 0, memory)
    recorder.ended(error)


def test_a_run_goes_to_the_smallest_card_that_is_larger_than_those_that_were_too_small(
    site: Site, tmp_path: Path
) -> None:
    states = tmp_path / "states"
    assert larger_card(states, site) is None
    attempt(states, 16 * GB, RuntimeError("CUDA error: out of memory, says a text"))
    assert larger_card(states, site) is None
    # Not the 16 GB that a data sheet calls them, but what the card has.
    attempt(states, 16 * 1024 * MIB, torch.OutOfMemoryError("CUDA out of memory."))
    assert larger_card(states, site) == "a100"
    attempt(states, 40 * 1024 * MIB, torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert larger_card(states, site) == "h100"
    # What happened in between does not bring it back to a card that was too small.
    attempt(states, 80 * GB, KeyboardInterrupt())
    assert larger_card(states, site) == "h100"
    attempt(states, 81 * GB, torch.OutOfMemoryError("CUDA out of memory."))
    assert larger_card(states, site) == "homebrew"
    attempt(states, 300 * GB, torch.OutOfMemoryError("CUDA out of memory."))
    assert larger_card(states, site) is None


def test_the_error_is_known_by_its_type_and_brings_its_own_fix() -> None:
    error = torch.OutOfMemoryError("no room")
    vars(error)["fix"] = "set `training.patch: [64, 64, 64]`"
    failure = end_by_error(describe(error))
    assert failure is not None
    assert (failure.words, failure.fix) == (GPU_MEMORY, "set `training.patch: [64, 64, 64]`")
