"""A case: as a layout finds it (``Case``), and as the index has checked it (``IndexedCase``)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from voxelsoup.common.errors import InputError

# No file has more components than four digits count.
COMPONENT = re.compile(r"(?P<file>.+)#(?P<component>[0-9]{1,4})", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """The source of one volume: a file, or one component of a 4D file."""

    file: Path
    component: int | None = None

    def __str__(self) -> str:
        return str(self.file) if self.component is None else f"{self.file}#{self.component}"

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read back what ``str`` wrote, of any file whose own name does not end in # and digits."""
        match = COMPONENT.fullmatch(text)
        return cls(Path(match["file"]), int(match["component"])) if match else cls(Path(text))

    def below(self, root: Path) -> Source:
        """The same volume of a file that is named relative to ``root``."""
        return Source(root / self.file, self.component)

    def relative_to(self, root: Path) -> Source:
        """The same volume of a file that is named as seen from ``root``."""
        return Source(self.file.relative_to(root), self.component)


# How the label maps of several raters become one.
FUSIONS = ("majority", "staple")


class MissingChannels(InputError):
    """Nothing is wrong with a case but that channels of it have no file."""


def with_missing(names: Iterable[str], missing: Mapping[str, int]) -> list[str]:
    """Names of all channels of a case: those it has, and at their places those it lacks."""
    every = list(names)
    for name, place in sorted(missing.items(), key=lambda item: item[1]):
        every.insert(place, name)
    return every


@dataclass(frozen=True)
class Case:
    """One patient visit, of a name that is unique in the data set.

    Attributes:
        channels: channel name -> where its volume lies, in the study's order.
        patient: where the data set itself names one.
        problem: what makes the case unusable whatever its files hold (two files of one channel).
        extra: what follows the case's name in the names of further files of it, sorted: channels
            that the study does not name.
        components: how many volumes the file holds that all channels lie in; None where each has
            a file, or was picked by its number.
        notes: what was assumed of its channels, in words.
        missing: channel that it lacks, where that is accepted -> its place among all channels.
        assumed: nothing but its place says that the file is a scan: it may be a mask.
    """

    name: str
    channels: dict[str, Source]
    label: Source | None
    patient: str | None = None
    problem: InputError | None = None
    extra: tuple[str, ...] = ()
    components: int | None = None
    notes: tuple[str, ...] = ()
    assumed: bool = False
    missing: Mapping[str, int] = field(default_factory=dict)

    def lacking(self, absent: Collection[str]) -> Case:
        """The same case without some of the channels that it has."""
        every = with_missing(self.channels, self.missing)
        missing = {n: place for place, n in enumerate(every) if n in absent or n in self.missing}
        channels = {name: source for name, source in self.channels.items() if name not in absent}
        problem = None if isinstance(self.problem, MissingChannels) else self.problem
        return replace(self, channels=channels, missing=missing, problem=problem)


@dataclass(frozen=True)
class IndexedCase:
    """A case whose files have all been read and agree with each other.

    Attributes:
        channels, label: relative to the data set's folder; an unlabelled case has None for a label.
        shape, spacing: voxels and their size in mm (x, y, z), as stored.
        sha256: ``joint_hash`` of all of its files, each once: channels in their order, then the
            label map. Preprocessing refuses files with another one; empty where it is not known.
        notes: what is allowed but good to know, in words (an empty label map, ...).
        missing: channel that it lacks -> its place among all channels.
        accepted: finding of ``dataset.accept`` -> what it concerns.
    """

    name: str
    patient: str
    channels: dict[str, Source]
    label: Source | None
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    labels: list[int]
    sha256: str
    notes: tuple[str, ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    accepted: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def consensus(self) -> tuple[str, list[Source]] | None:
        """How raters' label maps become one, and those besides ``label``; None for one rater."""
        method, *others = self.accepted.get("raters", [""])
        return (method, [Source.parse(text) for text in others]) if method in FUSIONS else None
