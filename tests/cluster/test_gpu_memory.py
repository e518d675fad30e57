"""Which card a training gets on a cluster, and what is said of its memory before submission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from voxelsoup.cluster.gpu_memory import card_of_trainings, cards_of_site, check_gpu_memory
from voxelsoup.cluster.profile import Site
from voxelsoup.common.errors import InputError
from voxelsoup.common.graphics_cards import GB, MIB
from voxelsoup.planning import card_fit
from voxelsoup.planning.training_memory import GIB, MemoryNeed, TrainingShape
from voxelsoup.study.loading import load
from voxelsoup.study.study import Study
from voxelsoup.study.trials import trials

REPOSITORY = Path(__file__).parents[2]
PARTITIONS: dict[str, Any] = {
    "cpu": {"max_runtime": 600, "max_mem_mb": 50_000, "max_threads": 8},
    "short": {
        **{"max_runtime": 60, "max_mem_mb": 20_000, "max_threads": 8, "max_gpu": 2},
        "available_gpu_models": ["v100", "a100"],
    },
    "long": {
        **{"max_runtime": 6000, "max_mem_mb": 90_000, "max_threads": 8, "max_gpu": 2},
        "available_gpu_models": ["h100"],
    },
    "bare": {"max_runtime": 90_000, "max_mem_mb": 400_000, "max_threads": 64, "max_gpu": 8},
}


def site_of(folder: Path, **stated: Any) -> Site:
    file = folder / "partitions.yaml"
    file.write_text(yaml.safe_dump({"partitions": PARTITIONS, **stated}))
    return Site(file)


def study_of(**training: Any) -> Study:
    """The shipped study, which asks for a GPU."""
    content = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    content["resources"] = {"training": {"gpu": 1, "mem_mb": 8000, "runtime": 30} | training}
    return load(content)


def test_cards_are_known_by_their_models_or_as_the_partition_file_states_them(
    tmp_path: Path,
) -> None:
    found = {card.model: card.memory for card in cards_of_site(site_of(tmp_path))}
    assert found == {"v100": 16 * GB, "a100": 40 * GB, "h100": 80 * GB, "its GPU": None}
    stated = site_of(tmp_path, gpu_memory_mb={"a100": 81920, "bare": 11264})
    found = {card.model: card.memory for card in cards_of_site(stated)}
    assert (found["a100"], found["its GPU"]) == (81920 * MIB, 11264 * MIB)
    assert [card.model for card in cards_of_site(stated, wanted="h100")] == ["h100"]
    with pytest.raises(InputError, match="gpu_memory_mb"):
        cards_of_site(site_of(tmp_path, gpu_memory_mb=["a100"]))


@pytest.mark.parametrize(
    ("training", "model"),
    [
        ({}, "v100"),
        # Too long for the partition of the small cards.
        ({"runtime": 600}, "h100"),
        ({"gpu_model": "a100"}, "a100"),
    ],
)
def test_a_training_is_compared_with_the_smallest_card_that_it_may_get(
    training: dict[str, Any], model: str, tmp_path: Path
) -> None:
    card = card_of_trainings(study_of(**training), site_of(tmp_path))
    assert card is not None and card.model == model


def test_what_does_not_fit_is_refused_before_it_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def need(study: Study, trials: Any) -> tuple[TrainingShape, MemoryNeed]:
        return TrainingShape.of(study, study.optimizer), MemoryNeed(weights=size * GIB)

    monkeypatch.setattr(card_fit, "largest_need", need)
    monkeypatch.setattr(card_fit, "fitting", lambda shape, limit: [])
    study, site = study_of(), site_of(tmp_path)
    size = 8
    (check,) = check_gpu_memory(study, trials(study), site)
    assert check.problem is None and "warning" not in check.what
    assert "v100 (partition short) has 14.9 GiB" in check.what
    size = 16
    (check,) = check_gpu_memory(study, trials(study), site)
    assert check.problem is None and "1.11 times what v100" in check.what
    size = 24
    (check,) = check_gpu_memory(study, trials(study), site)
    assert check.problem is not None and "1.6 times" in check.problem.found
    # On CPUs nothing is compared.
    assert not [*check_gpu_memory(study_of(gpu=0), trials(study), site)]
