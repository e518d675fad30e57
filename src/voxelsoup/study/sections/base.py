"""What all sections of a study have in common: their base class and the types of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Triple = Annotated[list[int], Field(min_length=3, max_length=3)]
Spacing = Annotated[list[float], Field(min_length=3, max_length=3)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def only_if_not(default: Any) -> Callable[[Any], bool]:
    """For ``exclude_if`` of a setting that came later: a study that leaves it at its default is
    written down as before, so that neither its identities nor its files change.
    """
    return lambda value: bool(value == default)


class Section(BaseModel):
    """Base of all sections: unknown keys are mistakes, values are fixed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
