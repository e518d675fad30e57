"""What all sections of a study have in common: their base class and the types of several."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Triple = Annotated[list[int], Field(min_length=3, max_length=3)]
Spacing = Annotated[list[float], Field(min_length=3, max_length=3)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """Base of all sections: unknown keys are mistakes, values are fixed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
