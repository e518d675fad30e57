"""After a GPU's memory was not enough: a larger card, or which setting to change."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from voxelsoup.cluster.profile import Site
from voxelsoup.common.errors import FINAL, CardTooSmall, GpuMemoryFull, describe
from voxelsoup.common.graphics_cards import GB, MIB
from voxelsoup.common.logs import job_log, read_error
from voxelsoup.runs import snakemake_records
from voxelsoup.runs.failures import GPU_MEMORY, end_by_error
from voxelsoup.runs.larger_card import larger_card, largest_model, may_get_larger_card
from voxelsoup.runs.lease import Owner
from voxelsoup.runs.record import Recorder
from voxelsoup.study.loading import load
from voxelsoup.study.study import Study

REPOSITORY = Path(__file__).parents[2]

LIMITS = {"max_threads": 8, "max_mem_mb": 100_000}
PARTITIONS: dict[str, dict[str, Any]] = {
    "cpu": {"max_threads": 8},
    "old": {"max_gpu": 2, "available_gpu_models": ["v100", "a100"]},
    "new": {"max_gpu": 2, "available_gpu_models": ["h100"]},
    "own": {"max_gpu": 1, "available_gpu_models": ["homebrew"]},
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return write_site(tmp_path, PARTITIONS)


def write_site(folder: Path, partitions: dict[str, dict[str, Any]], **more: Any) -> Site:
    described = {name: LIMITS | limits for name, limits in partitions.items()}
    content = {"partitions": described, "gpu_memory_mb": {"homebrew": 200_000, "unnamed": 11_000}}
    file = folder / "partitions.yaml"
    file.write_text(yaml.safe_dump(content))
    return Site(file, groups={"trial": "run", "evaluate": "run"}, **more)


def study(**training: Any) -> Study:
    content = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    gpu = {"gpu": 1, "threads": 2, "mem_mb": 1000, "runtime": 5}
    content["resources"] = {"training": gpu | training, "evaluation": gpu}
    return load(content)


def larger(states: Path, site: Site, rule: str = "trial", **training: Any) -> str | None:
    return larger_card(states, study(**training), site, rule, attempt=2)


def may_get_larger(states: Path, site: Site, attempt: int = 2, **training: Any) -> bool:
    return may_get_larger_card(states, study(**training), site, "trial", attempt)


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
    assert larger(states, site) is None
    attempt(states, 16 * GB, RuntimeError("CUDA error: out of memory, says a text"))
    assert larger(states, site) is None
    # Not the 16 GB that a data sheet calls them, but what the card has.
    attempt(states, 16 * 1024 * MIB, torch.OutOfMemoryError("CUDA out of memory."))
    assert larger(states, site) == "a100"
    attempt(states, 40 * 1024 * MIB, torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert larger(states, site) == "h100"
    # What happened in between does not bring it back to a card that was too small.
    attempt(states, 80 * GB, KeyboardInterrupt())
    assert larger(states, site) == "h100"
    attempt(states, 81 * GB, torch.OutOfMemoryError("CUDA out of memory."))
    assert larger(states, site) == "homebrew"
    assert may_get_larger(states, site)
    attempt(states, 300 * GB, torch.OutOfMemoryError("CUDA out of memory."))
    assert larger(states, site) is None and not may_get_larger(states, site)


FULL = torch.OutOfMemoryError("CUDA out of memory.")


def test_the_larger_card_is_one_that_a_partition_serves_all_that_shares_the_submission_with(
    tmp_path: Path,
) -> None:
    states = tmp_path / "states"
    attempt(states, 40 * 1024 * MIB, FULL)
    assert larger(states, write_site(tmp_path, PARTITIONS, components={"run": 2})) == "h100"
    # Three trials have three GPUs, and no partition has a node with so many.
    three = write_site(tmp_path, PARTITIONS, components={"run": 3})
    assert larger(states, three) is None and not may_get_larger(states, three)
    assert larger(states, three, rule="stem") == "h100"
    short = PARTITIONS | {"new": PARTITIONS["new"] | {"max_runtime": 20}}
    assert larger(states, write_site(tmp_path, short), runtime=5) == "h100"
    assert larger(states, write_site(tmp_path, short), runtime=25) == "homebrew"


def test_a_study_that_names_its_model_gets_no_other_one(site: Site, tmp_path: Path) -> None:
    states = tmp_path / "states"
    attempt(states, 40 * 1024 * MIB, FULL)
    assert larger(states, site, gpu_model="a100") is None
    assert not may_get_larger(states, site, gpu_model="a100")


def test_where_cards_are_not_known_another_attempt_may_get_a_larger_one(tmp_path: Path) -> None:
    states = tmp_path / "states"
    attempt(states, 40 * 1024 * MIB, FULL)
    unknown = write_site(tmp_path, {"any": {"max_gpu": 4}})
    assert larger(states, unknown) is None and may_get_larger(states, unknown)
    # Its memory is known, and no job can ask for it.
    small = write_site(tmp_path, {"unnamed": {"max_gpu": 4}})
    assert larger(states, small) is None and not may_get_larger(states, small)


def test_of_several_models_the_largest_is_known(site: Site) -> None:
    assert largest_model(["a100", "homebrew", "h100"], site) == "homebrew"


@pytest.mark.parametrize("larger_one", [True, False])
def test_without_a_larger_card_a_job_that_had_its_card_for_itself_is_not_repeated(
    larger_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    log = tmp_path / "trial.log"
    records = SimpleNamespace(may_get_larger_card=lambda job: larger_one)
    monkeypatch.setattr(snakemake_records, "STUDIES", {"trial": records})
    job = SimpleNamespace(rule=SimpleNamespace(name="trial"), log=[str(log)])
    with pytest.raises(SystemExit), job_log(log):
        raise GpuMemoryFull("Trial 1", "full", "room", "set `training.patch`")
    assert not snakemake_records._ended_for_good(job)
    with pytest.raises(SystemExit), job_log(log):
        raise CardTooSmall("Trial 1", "full", "room", "set `training.patch`")
    # Snakemake asks for each member of a group, and more than once.
    for _ in range(2):
        assert snakemake_records._ended_for_good(job) is not larger_one
    said = "no larger GPU can be had: Trial 1: full\n  fix: set `training.patch`"
    assert capsys.readouterr().err.count(said) == (0 if larger_one else 1)
    error = read_error(log)
    assert error is not None and (error.kind in FINAL) is not larger_one


def test_the_error_is_known_by_its_type_and_brings_its_own_fix() -> None:
    error = torch.OutOfMemoryError("no room")
    vars(error)["fix"] = "set `training.patch: [64, 64, 64]`"
    failure = end_by_error(describe(error))
    assert failure is not None
    assert (failure.words, failure.fix) == (GPU_MEMORY, "set `training.patch: [64, 64, 64]`")
