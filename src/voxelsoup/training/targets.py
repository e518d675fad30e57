"""The probabilities of an ensemble, as a part of what a run trains towards.

Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import json_sha256

# Probabilities of an ensemble are kept as whole numbers up to this.
CERTAIN = 255


@dataclass(frozen=True)
class EnsembleTargets:
    """An ensemble's probabilities of training cases, as a part of what a run trains towards.

    Attributes:
        folder: holds ``{case}.npy`` per case: uint8 (region, x, y, z), 0 to ``CERTAIN``, on the
            grid of the preprocessed case.
        share: of the target that is the ensemble's; the rest is the label.
        unlabelled: cases without labels, whose target is the ensemble's alone.
        sha256: of what the probabilities depend on.
    """

    folder: Path
    share: float
    unlabelled: tuple[str, ...]
    sha256: str

    def of(self, case: str) -> np.ndarray:
        """The probabilities of a case, which stay on the disk until sliced.

        Raises:
            InputError: if they cannot be read.
        """
        path = self.folder / f"{case}.npy"
        try:
            return np.asanyarray(np.load(path, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise InputError(
                path,
                f"cannot be read: {error}",
                "the ensemble's probabilities of a training case",
                "start again with `--forcerun finish_targets`, which predicts what is missing",
            ) from error


def targets_of(record: Mapping[str, Any], folder: Path, share: float) -> EnsembleTargets:
    """The probabilities in a folder as a run takes them, by the record of what they depend on."""
    return EnsembleTargets(folder, share, tuple(record["unlabelled"]), json_sha256(record))
