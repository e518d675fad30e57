"""The papers that a study's methods rest on, numbered in the order in which they are cited."""

from __future__ import annotations

from voxelsoup.report.methods.words import WORDS

WORKS: dict[str, str] = WORDS["references"]
# Values of settings that have a paper of their own.
CITED_VALUES = ("schedule-free", "adamw", "radam")


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
