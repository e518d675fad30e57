"""Whether the trainings of a study fit into the memory of a graphics card, and what would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxelsoup.common.errors import InputError
from voxelsoup.common.graphics_cards import Card, local_cards, smallest
from voxelsoup.common.text import listed
from voxelsoup.planning.training_memory import (
    MemoryNeed,
    TrainingShape,
    fitting,
    gib,
    largest_need,
)
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial

# The estimate is within a fifth of torch's allocator; so far above the card nothing fits.
REFUSED_ABOVE = 1.3
ACCEPT = "resources.accept_gpu_memory"


@dataclass(frozen=True)
class CardFit:
    """What the largest training of a study needs, and the card that it is compared with.

    Attributes:
        copies: so many trainings share the card.
    """

    shape: TrainingShape
    need: MemoryNeed
    card: Card | None
    copies: int = 1
    accepted: bool = False

    @property
    def share(self) -> float:
        """What is needed, in multiples of the card's memory; 0 if that is not known."""
        memory = self.card.memory if self.card else None
        return self.copies * self.need.total / memory if memory else 0.0

    def __str__(self) -> str:
        """What is needed by parts, and what the card has."""
        text = f"GPU memory: a training of {self.shape} needs {self.need}"
        if self.copies > 1:
            text += f", {self.copies} that share a GPU {gib(self.copies * self.need.total)} GiB"
        if self.card is None:
            return text
        if self.card.memory is None:
            return f"{text}; how much {self.card} has is not known (`gpu_memory_mb`)"
        return f"{text}; {self.card} has {gib(self.card.memory)} GiB"

    def warning(self) -> str | None:
        """What does not fit and what would, in words; None if it fits or the card is not known."""
        if self.share <= 1:
            return None
        return (
            f"a training needs {gib(self.copies * self.need.total)} GiB, {self.share:.2f} times "
            f"what {self.card} has; {self.advice()}"
        )

    def advice(self) -> str:
        """Which settings would make it fit."""
        assert self.card is not None and self.card.memory is not None
        found = fitting(self.shape, self.card.memory / self.copies)
        ways = [f"`{words}` ({gib(need.total)} GiB)" for words, need in found]
        others = ["runs_per_gpu: 1"] if self.copies > 1 else []
        if not ways and not others:
            return "no patch that the network takes would fit: take a smaller network"
        return f"it would fit with {listed([*ways, *others], 'or')}"

    def refusal(self) -> InputError | None:
        """Why such a training is not started; None if it is, because it may fit or is accepted."""
        if self.share <= REFUSED_ABOVE or self.accepted:
            return None
        assert self.card is not None and self.card.memory is not None
        return InputError(
            "training.patch",
            f"a training of {self.shape} needs {gib(self.copies * self.need.total)} GiB, "
            f"{self.share:.1f} times the {gib(self.card.memory)} GiB of {self.card}",
            f"at most {REFUSED_ABOVE} times the card's memory, for the estimate is not exact",
            f"{self.advice()}; `{ACCEPT}: true` starts it nevertheless",
        )


def fit(study: Study, trials: Sequence[Trial], card: Card | None, copies: int = 1) -> CardFit:
    """Compare the largest training of a study with a card.

    Raises:
        InputError, CannotCount: as ``largest_need``.
    """
    shape, need = largest_need(study, trials)
    return CardFit(shape, need, card, copies, study.resources.accept_gpu_memory)


def fit_here(study: Study, trials: Sequence[Trial]) -> CardFit | None:
    """Compare the largest training with the smallest card of this machine; None: it has none."""
    card = smallest(local_cards()) if study.training.device != "cpu" else None
    return fit(study, trials, card, study.resources.runs_per_gpu) if card else None


def refuse(found: CardFit | None) -> list[str]:
    """What to say of trainings that do not fit into their card.

    Raises:
        InputError: if they need so much more that they are not started.
    """
    if found is None:
        return []
    refusal, warning = found.refusal(), found.warning()
    if refusal is not None:
        raise refusal
    return [warning] if warning else []
