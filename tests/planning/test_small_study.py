"""`voxelsoup init` where there is no card, and where there is one: what is proposed for it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxelsoup.commands.cli import main
from voxelsoup.planning import card_fit, propose_for_card, small_study
from voxelsoup.planning.small_study import ACDC, HIPPOCAMPUS, SMALL_MEDNEXT, Example
from voxelsoup.planning.training_memory import GIB, MemoryNeed
from voxelsoup.study.loading import read
from voxelsoup.study.study import Study

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("example", [HIPPOCAMPUS, ACDC])
def test_the_numbers_are_those_of_the_examples(example: Example) -> None:
    study = yaml.safe_load((REPOSITORY / example.file).read_text())
    training, stem = study["training"], study["stem"]
    assert training["patch"] == list(example.patch)
    assert (training["epochs"], training["steps_per_epoch"], training["batch_size"]) == (
        example.epochs,
        example.steps_per_epoch,
        2,
    )
    assert stem["epochs"] == example.stem_epochs
    assert study["optimizer"]["lr"] == stem["optimizer"]["lr"] == example.lr
    assert study["optimizer"]["warmup_steps"] == small_study.WARMUP
    assert study["sweep"]["grid"]["optimizer.lr"] == list(example.rates)
    if example is HIPPOCAMPUS:
        assert study["network"] == SMALL_MEDNEXT
    else:
        assert study["network"]["arguments"]["filters"] == list(small_study.FILTERS)


def proposed(folder: Path, file: Path, *options: str) -> Study:
    assert main(["init", str(folder), "--output", str(file), "--force", *options]) == 0
    return read(file)


@pytest.fixture
def on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a card and without Slurm, whatever this one has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("shutil.which", lambda name: None)


def test_without_a_card_a_small_study_is_proposed_and_what_a_card_would_change(
    phantom_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    on_cpus: None,
) -> None:
    monkeypatch.setattr("voxelsoup.planning.init.usable_cores", lambda: 2)
    study = proposed(phantom_folder, tmp_path / "study.yaml")
    assert study.network.arguments == SMALL_MEDNEXT["arguments"]
    assert math.prod(study.training.patch) <= math.prod(HIPPOCAMPUS.patch)
    assert (study.resources.training.gpu, study.training.precision) == (0, "float32")
    # Six cases, where the example has 260.
    assert study.training.steps_per_epoch == 20
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"With a card it would be MedNeXt S on 2 patches of [\d ×]+ in bfl", printed)
    monkeypatch.setattr("voxelsoup.planning.init.usable_cores", lambda: 16)
    larger = proposed(phantom_folder, tmp_path / "study.yaml")
    assert math.prod(larger.training.patch) >= math.prod(study.training.patch)


def need_of(study: Study, voxels: float) -> MemoryNeed:
    """So many bytes for each voxel of a step, and half a GiB of weights."""
    training = study.training
    size = round(voxels * training.batch_size * math.prod(training.patch))
    return MemoryNeed(weights=GIB // 2, activations=size)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    folder = tmp_path / "profile"
    folder.mkdir()
    settings = {"executor": "slurm", "slurm-partition-config": "partitions.yaml"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"__use_yte__": True, **settings}))
    return folder


def write_partitions(folder: Path, memory_mb: int) -> None:
    gpus: dict[str, Any] = {"max_gpu": 1, "available_gpu_models": ["h100", "homebrew"]}
    content = {"partitions": {"gpu": gpus}, "gpu_memory_mb": {"homebrew": memory_mb}}
    (folder / "partitions.yaml").write_text(yaml.safe_dump(content))


def test_the_smallest_card_of_a_profile_decides_patch_and_batch(
    phantom_folder: Path,
    tmp_path: Path,
    profile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # 0.75 GiB for two patches of a usual case.
    usual = [32, 32, 16]
    voxels = 0.75 * GIB / (2 * math.prod(usual))
    monkeypatch.setattr(
        card_fit, "largest_need", lambda study, trials: (study, need_of(study, voxels))
    )
    options = ["--profile", str(profile)]
    write_partitions(profile, 2_000)
    study = proposed(phantom_folder, tmp_path / "study.yaml", *options)
    assert (study.training.patch, study.training.batch_size) == (usual, 2)
    assert "homebrew (partition gpu) has 2.0 GiB" in capsys.readouterr().out
    write_partitions(profile, 1_700)
    smaller = proposed(phantom_folder, tmp_path / "study.yaml", *options)
    assert math.prod(smaller.training.patch) < math.prod(usual)
    assert smaller.network.size == "S" and smaller.resources.training.gpu == 1
    # With room for more, a step has more patches, but no more than a part of so few cases.
    monkeypatch.setattr(propose_for_card, "SHARE_OF_DATA", 1.0)
    write_partitions(profile, 80_000)
    assert proposed(phantom_folder, tmp_path / "study.yaml", *options).training.batch_size > 2
