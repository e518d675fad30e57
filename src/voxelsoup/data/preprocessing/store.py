"""Preprocessed cases as training and evaluation read them: memory maps, read patch by patch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """Open a preprocessed case; image and label are memory maps.

    Raises:
        InputError: if one of its files is missing, damaged or cannot be read.
    """

    def memory_map(path: Path) -> Array:
        return np.asanyarray(np.load(path, mmap_mode="r"))

    return PreprocessedCase(
        name=name,
        image=_opened(folder, name, "image.npy", memory_map),
        label=_opened(folder, name, "label.npy", memory_map),
        foreground=_opened(folder, name, "foreground.npy", np.load),
        geometry=_opened(folder, name, "json", files.read_json),
    )


def _opened(folder: Path, name: str, part: str, read: Callable[[Path], Any]) -> Any:
    """What a file of a preprocessed case holds."""
    path = folder / f"{name}.{part}"
    try:
        return read(path)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise InputError(
            path,
            f"cannot be read: {reason or error or type(error).__name__}",
            "the file as preprocessing wrote it",
            f"check the disk or the file server; if the file is lost, remove {folder}/{name}.* "
            "and start again with `--forcerun preprocess`, which makes this case alone again",
        ) from error


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


def share_arrays(folder: Path, of: Path) -> None:
    """Let a folder of preprocessed cases be that of a configuration that preprocesses alike.

    What it held before were arrays of other settings. The link is relative: results may be moved.
    """
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    folder.unlink(missing_ok=True)
    folder.symlink_to(os.path.relpath(of, folder.parent), target_is_directory=True)


def end_sharing(folder: Path) -> None:
    """Let a folder that is a link to another one's arrays be its own: those are not to change."""
    if folder.is_symlink():
        folder.unlink()
