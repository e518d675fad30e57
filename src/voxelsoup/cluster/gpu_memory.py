"""Which graphics cards the trainings of a study get on a cluster, and whether they are enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from snakemake_executor_plugin_slurm.partitions import Partition

from voxelsoup.cluster.partitions import Check, choose, submissions
from voxelsoup.cluster.profile import Site
from voxelsoup.common.errors import InputError
from voxelsoup.common.graphics_cards import MIB, Card, memory_of_model, smallest
from voxelsoup.planning.card_fit import CardFit, fit
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial

# Beside `partitions`, where the Slurm plugin looks at nothing: model or partition -> MB.
KEY = "gpu_memory_mb"
# The card of a partition that names no models: no job can ask for it.
UNNAMED = "its GPU"
# Rules of which a training is one per job.
TRAININGS = {"stem", "trial", "final_trial"}


def cards_of_site(site: Site, wanted: str | None = None) -> list[Card]:
    """The models of all GPU partitions, with their memory where it is known.

    ``wanted`` is the one model that jobs ask for, if they do.

    Raises:
        InputError: if the partition file cannot be used.
    """
    stated = _stated(site.partition_file)
    cards = [card for part in site.partitions() for card in _cards(part, stated)]
    return [card for card in cards if wanted in (None, card.model)]


def _cards(partition: Partition, stated: dict[str, int]) -> Iterator[Card]:
    if not partition.limits.max_gpu:
        return
    where = f"partition {partition.name}"
    of_partition = stated.get(partition.name)
    for model in partition.limits.available_gpu_models or [UNNAMED]:
        given = stated.get(model, of_partition)
        memory = memory_of_model(model) if given is None else given * MIB
        yield Card(model, memory, where)


def _stated(file: Path) -> dict[str, int]:
    """What the partition file says of the memory of GPUs: model or partition -> MB."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        found: Any = content.get(KEY) or {}
        return {str(name): int(memory) for name, memory in found.items()}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: {KEY}",
            f"cannot be read: {error}",
            "a model or a partition and its memory in MB, such as `a100: 40960`",
            "correct it, or leave it out",
        ) from error


def card_of_trainings(study: Study, site: Site) -> Card | None:
    """The smallest card that the first attempt of a training may get; None: nothing is known of it.

    Raises:
        InputError: if the partition file or a group of the profile cannot be used.
    """
    needs = study.resources.training
    partitions = site.partitions()
    chosen = {
        choose(attempts[0], partitions)
        for attempts in submissions(study, site)
        if TRAININGS & set(attempts[0].rules)
    }
    cards = cards_of_site(site, needs.gpu_model)
    there = [card for card in cards if card.where in {f"partition {name}" for name in chosen}]
    # A profile that places the rules itself may use any of its partitions.
    return smallest(there or cards) or next(iter(there or cards), None)


def fit_on_site(study: Study, trials: Sequence[Trial], site: Site) -> CardFit | None:
    """The trainings of a study and the card that they would get; None: they ask for no GPU.

    Raises:
        InputError: as ``card_of_trainings`` and ``fit``.
    """
    if study.resources.training.gpu == 0 or study.training.device == "cpu":
        return None
    return fit(study, trials, card_of_trainings(study, site))


def check_gpu_memory(study: Study, trials: Sequence[Trial], site: Site) -> Iterator[Check]:
    """What the trainings need of a GPU, and whether they get it."""
    try:
        found = fit_on_site(study, trials, site)
    except InputError as error:
        yield Check("the GPU memory of a training can be estimated", error)
        return
    if found is not None:
        warning = found.warning()
        text = f"{found}; warning: {warning}" if warning else str(found)
        yield Check(text, found.refusal())
