"""What a case is, before any voxel is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from segsoup.errors import InputError

# No file has more components than four digits count.
COMPONENT = re.compile(r"(?P<file>.+)#(?P<component>[0-9]{1,4})", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """Where one volume lies: a file, or one component of a 4D file."""

    file: Path
    component: int | None = None

    def __str__(self) -> str:
        return str(self.file) if self.component is None else f"{self.file}#{self.component}"

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read back what ``str`` wrote, of any file whose own name does not end in # and digits."""
        match = COMPONENT.fullmatch(text)
        return cls(Path(match["file"]), int(match["component"])) if match else cls(Path(text))


@dataclass(frozen=True)
class Case:
    """One patient visit.

    Attributes:
        name: the case's name, unique in the data set.
        channels: channel name -> where its volume lies, in the study's order.
        label: the label map, or None where the case is unlabelled.
        patient: whom it shows, where the data set itself says so.
        problem: what makes the case unusable whatever its files hold (two files of one channel).
        extra: what stands behind the case's name in further files of it, sorted: channels that
            the study does not name.
        components: how many volumes the file holds that all channels lie in; None where each has
            a file, or was picked by its number.
    """

    name: str
    channels: dict[str, Source]
    label: Source | None
    patient: str | None = None
    problem: InputError | None = None
    extra: tuple[str, ...] = ()
    components: int | None = None
