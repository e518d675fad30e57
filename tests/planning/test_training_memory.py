"""GPU memory of trainings: asked once, compared with cards, and what would fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxelsoup.common.errors import InputError
from voxelsoup.common.graphics_cards import GB, Card, memory_of_model
from voxelsoup.planning import training_memory
from voxelsoup.planning.card_fit import CardFit, refuse
from voxelsoup.planning.training_memory import (
    GIB,
    MemoryNeed,
    TrainingShape,
    estimate,
    fitting,
    shapes_of,
)
from voxelsoup.study.loading import load
from voxelsoup.study.sections.training import Network, Optimizer, Training
from voxelsoup.study.trials import trials

REPOSITORY = Path(__file__).parents[2]
NETWORK = Network(name="UNet", arguments={"channels": [4, 8], "strides": [2], "norm": "instance"})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def counted(shapes: Sequence[TrainingShape]) -> list[MemoryNeed]:
    """1 KiB for each voxel of a step, half of it in mixed precision; and some weights."""
    return [
        MemoryNeed(
            weights=GIB // 4,
            activations=(1024 if shape.training.precision == "float32" else 512)
            * shape.training.batch_size
            * math.prod(shape.training.patch),
        )
        for shape in shapes
    ]


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs are counted by a rule of thumb, not by a process with torch."""
    monkeypatch.setattr(training_memory, "_count", counted)


def shape_of(**training: Any) -> TrainingShape:
    settings = Training(**{"patch": [64, 64, 64], "batch_size": 2} | training)
    return TrainingShape(NETWORK, settings, Optimizer(), 1, 1)


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("a100", 40),
        ("nvidia_a100-sxm4-80gb", 80),
        ("a100_3g.20gb", 20),
        ("NVIDIA H100 80GB HBM3", 80),
        ("Tesla T4", 16),
        ("NVIDIA A10G", 24),
        ("l40s", 48),
        ("NVIDIA L4", 24),
        ("NVIDIA GeForce RTX 2080 Ti", 11),
        ("rtx_6000", 24),
        ("NVIDIA RTX 6000 Ada Generation", 48),
        ("NVIDIA GH200 480GB", 96),
        ("v100", 16),
        ("gtx_unheard_of", None),
    ],
)
def test_memory_of_a_model_is_known_by_its_name(name: str, memory: int | None) -> None:
    assert memory_of_model(name) == (None if memory is None else memory * GB)


def test_an_estimate_is_made_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [shape_of(), shape_of(batch_size=4)]
    first = estimate(shapes)
    assert first[1].activations == pytest.approx(2 * first[0].activations, rel=0.1)
    # From here on no process is started.
    monkeypatch.setattr("subprocess.run", None)
    assert estimate(shapes) == first
    # Settings that change nothing of it share the answer.
    assert estimate([shape_of(seed=3, epochs=9)]) == first[:1]
    with pytest.raises(TypeError):
        estimate([shape_of(batch_size=3)])


def test_the_different_trainings_of_a_study_are_its_stem_and_its_trials() -> None:
    content = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    content["sweep"]["grid"] = {"optimizer.lr": [0.1, 0.2], "training.precision": ["float32"]}
    study = load(content)
    assert len(shapes_of(study, trials(study))) == 1
    content["sweep"]["grid"]["training.precision"] = ["float32", "bfloat16"]
    study = load(content)
    assert len(shapes_of(study, trials(study))) == 2


@pytest.mark.parametrize(
    ("training", "gib", "ways"),
    [
        # 0.25 GiB of weights, 0.5 for CUDA and 1 GiB for 2^20 voxels.
        ({"patch": [128, 128, 64]}, 2.0, ["training.precision: bfloat16", "[96, 96, 64]"]),
        ({"patch": [128, 128, 64]}, 1.2, ["[48, 64, 64]"]),
        # The batch first, which nnU-Net has two patches in at least.
        ({"patch": [64, 64, 64], "batch_size": 8}, 1.3, ["[64, 64, 64], training.batch_size: 2"]),
        ({"patch": [64, 64, 64], "precision": "bfloat16"}, 0.9, ["[48, 48, 64]"]),
        ({"patch": [64, 64, 64]}, 0.7, []),
    ],
)
def test_what_would_fit_is_named_setting_by_setting(
    training: dict[str, Any], gib: float, ways: list[str], no_process: None
) -> None:
    found = fitting(shape_of(**training), gib * GIB)
    assert all(need.total <= gib * GIB for _, need in found)
    assert len(found) == len(ways)
    assert all(way in words for way, (words, _) in zip(ways, found, strict=True)), found


def test_a_network_that_refuses_smaller_patches_has_no_advice_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count(shapes: Sequence[TrainingShape]) -> list[MemoryNeed]:
        if any(shape.training.patch != [128, 128, 128] for shape in shapes):
            raise InputError("training.patch", "refused", "another", "take it")
        return counted(shapes)

    monkeypatch.setattr(training_memory, "_count", count)
    (way,) = fitting(shape_of(patch=[128, 128, 128]), 3 * GIB)
    assert way[0] == "training.precision: bfloat16"


def fit_of(times: float, accepted: bool = False) -> CardFit:
    """Two patches of 128^3, on a card that has so many times less than they need."""
    shape = shape_of(patch=[128, 128, 128])
    need = estimate([shape])[0]
    return CardFit(shape, need, Card("card", round(need.total / times)), accepted=accepted)


def test_what_fits_is_only_stated(no_process: None) -> None:
    assert refuse(fit_of(0.9)) == []
    assert str(fit_of(0.9)).startswith(
        "GPU memory: a training of UNet, 2 patches of 128 x 128 x 128"
    )


def test_above_the_cards_memory_it_warns_with_what_would_fit(no_process: None) -> None:
    (warning,) = refuse(fit_of(1.05))
    assert "1.05 times what card (this machine) has" in warning
    assert "`training.precision: bfloat16`" in warning and "`training.patch: [" in warning


def test_far_above_it_refuses_unless_that_is_accepted(no_process: None) -> None:
    with pytest.raises(InputError, match=r"accept_gpu_memory: true"):
        refuse(fit_of(1.4))
    assert len(refuse(fit_of(1.4, accepted=True))) == 1


def test_runs_that_share_a_card_need_it_together() -> None:
    need = MemoryNeed(weights=GIB)
    fit = CardFit(shape_of(), need, Card("card", 2 * GIB), copies=2)
    assert fit.share == 1.5
