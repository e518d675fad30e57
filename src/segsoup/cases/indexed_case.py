"""What the index says of a usable case."""

from __future__ import annotations

from dataclasses import dataclass

from segsoup.cases.case import Source


@dataclass(frozen=True)
class IndexedCase:
    """A case whose files have all been read and agree with each other.

    Attributes:
        name: its name.
        patient: whom it shows; cases of one patient stay together in folds.
        channels: channel name -> volume, relative to the data set's folder.
        label: label map, relative to the data set's folder; None where the case is unlabelled.
        shape: voxels (x, y, z) as stored.
        spacing: voxel size in mm (x, y, z) as stored.
        labels: label values that occur.
        sha256: ``joint_hash`` of all of its files, each once: channels in their order, then the
            label map. Preprocessing refuses files with another one; empty where it is not known.
        notes: what is allowed, and yet good to know, in words (an empty label map, ...).
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
