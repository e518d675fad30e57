"""A study whose patch and batch fit into the memory of a graphics card."""

from __future__ import annotations

import math
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.graphics_cards import Card
from voxelsoup.data.layouts.detect import Guess
from voxelsoup.planning.card_fit import CardFit, fit
from voxelsoup.planning.fingerprint import Fingerprint
from voxelsoup.planning.label_meaning import Meaning
from voxelsoup.planning.proposal import (
    BATCH,
    PATCH_VOXELS,
    Proposal,
    propose,
    spacing_and_shape,
)
from voxelsoup.planning.training_memory import gib
from voxelsoup.study.loading import load
from voxelsoup.study.trials import trials

# What an estimate may be too low by is left free.
FILLED = 0.9
TRIES = 4
# As nnU-Net: the patches of a step hold at most so much of all voxels of the data set.
SHARE_OF_DATA = 0.05
LARGEST_BATCH = 8


def propose_for_card(
    guess: Guess,
    fingerprint: Fingerprint,
    meaning: Meaning,
    card: Card,
    stand_in: dict[str, Any],
) -> Proposal:
    """Propose a study, with a smaller patch where a card would not hold it, or a larger batch.

    As nnU-Net, which looks for the largest patch first, and for a larger batch where it covers a
    usual case. ``stand_in`` are sections that the user has still to fill in.
    """
    budget, batch = PATCH_VOXELS, BATCH
    proposal = propose(guess, fingerprint, meaning)
    try:
        found = _fit(proposal, stand_in, card)
        for _ in range(TRIES):
            if card.memory is None or found.share <= FILLED:
                break
            budget = round(_voxels(proposal) * _room(found, card.memory))
            smaller = propose(guess, fingerprint, meaning, budget)
            if _voxels(smaller) >= _voxels(proposal):
                break
            proposal, found = smaller, _fit(smaller, stand_in, card)
        batch = _batch(proposal, fingerprint, found) if budget == PATCH_VOXELS else BATCH
        if batch > BATCH:
            larger = propose(guess, fingerprint, meaning, budget, batch)
            fits = _fit(larger, stand_in, card)
            if fits.share <= FILLED:
                proposal, found = larger, fits
    except InputError as error:
        proposal.warnings.append(f"the patch is not adapted to {card}: {error}")
        return proposal
    _add_reason(proposal, found)
    return proposal


def _fit(proposal: Proposal, stand_in: dict[str, Any], card: Card) -> CardFit:
    study = load(proposal.study | stand_in)
    return fit(study, trials(study), card)


def _voxels(proposal: Proposal) -> int:
    return math.prod(proposal.study["training"]["patch"])


def _room(found: CardFit, memory: int) -> float:
    """By how much a patch has to be smaller for a training to fit, as a share of its voxels."""
    need = found.need
    by_voxels = need.batch + need.activations + need.working
    return max(0.0, (FILLED * memory - need.total + by_voxels) / by_voxels)


def _batch(proposal: Proposal, fingerprint: Fingerprint, found: CardFit) -> int:
    """The largest batch that a card holds, where the patch covers a usual case."""
    _, shape = spacing_and_shape(proposal, fingerprint)
    card = found.card
    if card is None or card.memory is None or math.prod(shape) > PATCH_VOXELS:
        return BATCH
    of_data = SHARE_OF_DATA * math.prod(shape) * len(fingerprint.labelled) / _voxels(proposal)
    return max(BATCH, min(LARGEST_BATCH, int(of_data), int(BATCH * _room(found, card.memory))))


def _add_reason(proposal: Proposal, found: CardFit) -> None:
    card = found.card
    assert card is not None
    has = "not known" if card.memory is None else f"{gib(card.memory)} GiB"
    proposal.reasons["training.patch"] += (
        f"\nA training needs {found.need}; memory of {card}: {has}."
    )
    proposal.warnings.append(str(found))
    if (warning := found.warning()) is not None:
        proposal.warnings.append(warning)
