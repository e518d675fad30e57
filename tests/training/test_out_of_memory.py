"""What a run says after its GPU's memory was not enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from voxelsoup.common.errors import CardTooSmall, GpuMemoryFull
from voxelsoup.planning import training_memory
from voxelsoup.planning.training_memory import GIB, MemoryNeed
from voxelsoup.runs.failures import GPU_MEMORY_FIX
from voxelsoup.study.loading import load
from voxelsoup.training.out_of_memory import as_refusal, explained, what_would_fit
from voxelsoup.training.peers import read_report, write_report
from voxelsoup.training.run import Run, stem_run

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The stem of the shipped study; no process counts what it needs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        training_memory,
        "_count",
        lambda shapes: [
            MemoryNeed(
                weights=GIB, activations=8 * GIB // (1 + (s.training.precision != "float32"))
            )
            for s in shapes
        ],
    )
    return stem_run(load(yaml.safe_load((REPOSITORY / "config.yaml").read_text())), 0, [], tmp_path)


def test_it_names_the_settings_that_would_fit_and_what_they_need(run: Run) -> None:
    text = what_would_fit(run, 8 * GIB)
    assert text.startswith("set `training.precision: bfloat16` (5.5 GiB) in the study: 9.5 GiB")
    # The estimate may be below a card that was too small nevertheless.
    assert what_would_fit(run, 80 * GIB) == text.replace("card has 8.0", "card has 80.0")
    assert what_would_fit(run, GIB) == GPU_MEMORY_FIX


def test_torchs_own_error_is_given_a_fix_and_others_are_left_alone(run: Run) -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught, explained(run, torch.device("cpu")):
        raise torch.cuda.OutOfMemoryError("no room")
    assert caught.value.fix == GPU_MEMORY_FIX
    refusal = as_refusal(caught.value, "Trial 1 of fold 0")
    assert isinstance(refusal, CardTooSmall) and refusal.fix == GPU_MEMORY_FIX
    assert str(refusal).startswith("Trial 1 of fold 0: no room\n  expected: a GPU that")
    with pytest.raises(RuntimeError) as other, explained(run, torch.device("cpu")):
        raise RuntimeError("CUDA out of memory, says a text")
    assert not hasattr(other.value, "fix")
    assert as_refusal(other.value, "Trial 1 of fold 0") is other.value


def test_a_run_that_shares_its_card_may_fit_at_another_time(run: Run) -> None:
    resources = run.study.resources.model_copy(update={"runs_per_gpu": 2})
    shared = replace(run, study=run.study.model_copy(update={"resources": resources}))
    with pytest.raises(torch.OutOfMemoryError) as caught, explained(shared, torch.device("cpu")):
        raise torch.OutOfMemoryError("no room")
    assert type(as_refusal(caught.value, "Trial 1 of fold 0")) is GpuMemoryFull


def test_the_processes_of_several_gpus_say_it_to_the_job(tmp_path: Path) -> None:
    write_report(tmp_path, 0, CardTooSmall("Stem", "no room", "a larger GPU", "set it"))
    assert type(read_report(tmp_path)) is CardTooSmall
