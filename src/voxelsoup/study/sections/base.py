"""What all sections of a study have in common: their base class and the types of several."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Triple = Annotated[list[int], Field(min_length=3, max_length=3)]
Spacing = Annotated[list[float], Field(min_length=3, max_length=3)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def usable_path(text: str) -> str:
    """A path as it is used: ``~``, ``$VAR`` and ``${VAR}`` replaced, with no ``..`` or last slash.

    Relative paths stay relative. A ``..`` behind a symbolic link leads out of the folder that the
    link names, as it does for every program; such a path becomes absolute.

    Raises:
        ValueError: if a variable is not set, or ``~`` is left: no folder of that name is ever made.
    """
    if not text:
        return text
    replaced = os.path.expandvars(text)
    unset = re.search(r"\$(\w+|\{\w*\})", replaced)
    if unset is not None:
        raise ValueError(
            f"the variable {unset[0]} is not set here: set it before voxelsoup or Snakemake is "
            "started, or write the path out"
        )
    try:
        expanded = Path(replaced).expanduser()
    except RuntimeError:
        user = replaced.split("/")[0]
        raise ValueError(f"`{user}` is nobody's home folder here: write the path out") from None
    if "~" in expanded.parts:
        raise ValueError("`~` is the home folder at the beginning alone: write the path out")
    path = os.path.normpath(expanded)
    followed = os.path.realpath(expanded)
    return path if os.path.realpath(path) == followed else followed


# Paths of a study, as written, become what every program takes them for.
PathText = Annotated[str, AfterValidator(usable_path)]


def only_if_not(default: Any) -> Callable[[Any], bool]:
    """For ``exclude_if`` of a setting that came later: a study that leaves it at its default is
    written down as before, so that neither its identities nor its files change.
    """
    return lambda value: bool(value == default)


class Section(BaseModel):
    """Base of all sections: unknown keys are mistakes, values are fixed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
