"""A larger card for a run that did not fit into the memory of the one that it had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from voxelsoup.cluster.gpu_memory import UNNAMED, cards_of_site
from voxelsoup.cluster.partitions import Submission, choose, submissions
from voxelsoup.cluster.profile import Site
from voxelsoup.common.graphics_cards import Card, smallest
from voxelsoup.runs.record import Attempt, read_record
from voxelsoup.study.study import Study


def larger_card(states: Path, study: Study, site: Site, rule: str, attempt: int) -> str | None:
    """The smallest model of a site that has more memory than any card on which a run failed for it.

    It is one with which a partition serves the submission of the rule, with all that shares it, at
    this attempt. None: no attempt ended so, the study names a model, or the site has none.

    Args:
        states: where the record of the run lies.

    Raises:
        InputError: if the partition file cannot be used.
    """
    if study.resources.training.gpu_model is not None or not _out_of_memory(states):
        return None
    known = (card for card in _better_cards(states, study, site) if card.memory is not None)
    ordered = sorted(known, key=lambda card: card.memory or 0)
    served = _served(ordered, study, site, rule, attempt)
    return next((card.model for card in served), None)


def may_get_larger_card(states: Path, study: Study, site: Site, rule: str, attempt: int) -> bool:
    """Whether an attempt of a run may get a card with more memory than those that were too small.

    It may where there are cards of unknown memory.

    Raises:
        InputError: as ``larger_card``.
    """
    better = list(_better_cards(states, study, site))
    if any(card.memory is None for card in better):
        return True
    return any(_served(better, study, site, rule, attempt))


def largest_model(models: Sequence[str], site: Site) -> str:
    """That of some models of a site which has the most memory.

    Raises:
        InputError: as ``larger_card``.
    """
    memory = {card.model: card.memory or 0 for card in cards_of_site(site)}
    return max(models, key=lambda model: memory.get(model, 0))


def _better_cards(states: Path, study: Study, site: Site) -> Iterator[Card]:
    """Cards that may have more memory than any on which the run failed for it."""
    cards = cards_of_site(site, study.resources.training.gpu_model)
    had = max((_memory(one, cards_of_site(site)) for one in _out_of_memory(states)), default=0)
    yield from (card for card in cards if card.memory is None or card.memory > had)


def _out_of_memory(states: Path) -> list[Attempt]:
    record = read_record(states)
    return [one for one in record.attempts if one.ran_out_of_gpu_memory] if record else []


def _memory(attempt: Attempt, cards: list[Card]) -> int:
    """Bytes of the card of an attempt; by its partition where the record of old does not say it."""
    if attempt.gpu_memory is not None:
        return attempt.gpu_memory
    there = smallest(card for card in cards if card.where == f"partition {attempt.partition}")
    return there.memory or 0 if there else 0


def _served(
    cards: Sequence[Card], study: Study, site: Site, rule: str, attempt: int
) -> Iterator[Card]:
    """Cards that a job can ask for by their model, and then get."""
    if not cards:
        return
    partitions = {partition.name: partition for partition in site.partitions()}
    asked = _submission(study, site, rule, attempt)
    for card in cards:
        if card.model == UNNAMED:
            continue
        if asked is None:
            # The profile places the rule itself.
            yield card
            continue
        request = asked.resources | {"gpu_model": card.model}
        chosen = choose(replace(asked, resources=request), list(partitions.values()))
        models = partitions[chosen].limits.available_gpu_models if chosen is not None else None
        if card.model in (models or ()):
            yield card


def _submission(study: Study, site: Site, rule: str, attempt: int) -> Submission | None:
    planned = submissions(study, replace(site, retries=attempt - 1))
    return next((each[-1] for each in planned if rule in each[-1].rules), None)
