"""A larger card for a run that did not fit into the memory of the one that it had."""

from __future__ import annotations

from pathlib import Path

from voxelsoup.cluster.gpu_memory import cards_of_site
from voxelsoup.cluster.profile import Site
from voxelsoup.common.graphics_cards import Card, smallest
from voxelsoup.runs.record import Attempt, read_record


def larger_card(states: Path, site: Site) -> str | None:
    """The smallest model of a site that has more memory than any card on which a run failed for it.

    None: no attempt ended so, or the site has no such card. ``states`` is where the record of the
    run lies.

    Raises:
        InputError: if the partition file cannot be used.
    """
    record = read_record(states)
    failed = [one for one in record.attempts if one.ran_out_of_gpu_memory] if record else []
    if not failed:
        return None
    cards = cards_of_site(site)
    had = max(_memory(attempt, cards) for attempt in failed)
    found = smallest(card for card in cards if (card.memory or 0) > had)
    return found.model if found else None


def _memory(attempt: Attempt, cards: list[Card]) -> int:
    """Bytes of the card of an attempt; by its partition where the record of old does not say it."""
    if attempt.gpu_memory is not None:
        return attempt.gpu_memory
    there = smallest(card for card in cards if card.where == f"partition {attempt.partition}")
    return there.memory or 0 if there else 0
