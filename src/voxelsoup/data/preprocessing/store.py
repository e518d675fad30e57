"""Preprocessed cases as training and evaluation read them: memory maps, read patch by patch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxelsoup.common import files
from voxelsoup.common.errors import InputError
from voxelsoup.data.preprocessing.geometry import Array, Geometry, inside


@dataclass
class PreprocessedCase:
    """A case as training reads it; image and label stay on the disk until sliced.

    Attributes:
        image: float32 (channel, x, y, z).
        label: uint8 (x, y, z), original label values on the image's grid; all 0 where
            ``geometry["labelled"]`` is false.
        foreground: int32 (n, 4), rows of label value and x, y, z of a labelled voxel.
        geometry: what ``restore`` and ``to_scanner`` need.
    """

    name: str
    image: Array
    label: Array
    foreground: Array
    geometry: Geometry


def load_case(folder: Path, name: str) -> PreprocessedCase:
    """Open a preprocessed case; image and label are memory maps."""
    return PreprocessedCase(
        name=name,
        image=np.load(folder / f"{name}.image.npy", mmap_mode="r"),
        label=np.load(folder / f"{name}.label.npy", mmap_mode="r"),
        foreground=np.load(folder / f"{name}.foreground.npy"),
        geometry=files.read_json(folder / f"{name}.json"),
    )


def load_ground_truth(folder: Path, name: str) -> Array:
    """The ground truth on the grid that ``restore`` returns: uint8 (x, y, z).

    Raises InputError if the case is unlabelled.
    """
    geometry = files.read_json(folder / f"{name}.json")
    if not geometry["labelled"]:
        raise InputError(
            name, "has no label map", "a labelled case to score on", "add its label map"
        )
    if geometry["has_truth"]:
        return np.asarray(np.load(folder / f"{name}.truth.npy"))
    label = np.load(folder / f"{name}.label.npy", mmap_mode="r")
    return np.array(label[inside(geometry)])


def read_manifest(path: Path) -> dict[str, str]:
    """Read what ``preprocess_all`` listed: case -> fingerprint."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t") for line in lines)
