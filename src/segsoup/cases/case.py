"""What a case is, before any voxel is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segsoup.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where one volume lies: a file, or one component of a 4D file."""

    file: Path
    component: int | None = None

    def __str__(self) -> str:
        return str(self.file) if self.component is None else f"{self.file}#{self.component}"

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read back what ``str`` wrote."""
        file, mark, component = text.rpartition("#")
        is_component = mark and component.isdecimal()
        return cls(Path(file), int(component)) if is_component else cls(Path(text))


@dataclass(frozen=True)
class Case:
    """One patient visit.

    Attributes:
        name: the case's name, unique in the data set.
        channels: channel name -> where its volume lies, in the study's order.
        label: the label map, or None where the case is unlabelled.
        patient: whom it shows, where the data set itself says so.
        problem: why it cannot be used, where that is known before any voxel is read.
        extra: endings of further volumes beside the case's channels.
    """

    name: str
    channels: dict[str, Source]
    label: Source | None
    patient: str | None = None
    problem: InputError | None = None
    extra: tuple[str, ...] = ()
