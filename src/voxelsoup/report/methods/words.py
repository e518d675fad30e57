"""What a paper calls settings and their values, and the papers it cites: ``words.toml``."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from voxelsoup.common.text import plain

WORDS: dict[str, Any] = tomllib.loads(
    files("voxelsoup.report.methods").joinpath("templates/words.toml").read_text(encoding="utf-8")
)
WORKS: dict[str, str] = WORDS["references"]
# Values of settings that have a paper of their own.
CITED_VALUES = ("schedule-free", "adamw", "radam")


def setting_name(key: str) -> str:
    """What a paper calls a dotted key."""
    return str(WORDS["settings"].get(key, key))


def value_name(key: str, value: Any) -> str:
    """What a paper calls a value of a dotted key."""
    return str(WORDS["values"].get(key, {}).get(str(value), plain(value)))


class Citations:
    """Marks for a text, as ``[1]``; a work keeps the number of its first citation."""

    def __init__(self) -> None:
        self.cited: list[str] = []

    def __call__(self, *works: str) -> str:
        """The mark of one or several of `WORKS`."""
        self.cited += [work for work in dict.fromkeys(works) if work not in self.cited]
        numbers = sorted(self.cited.index(work) + 1 for work in works)
        return f"[{', '.join(map(str, numbers))}]"

    @property
    def references(self) -> list[str]:
        """What has been cited, in the order of the numbers."""
        return [WORKS[work] for work in self.cited]
