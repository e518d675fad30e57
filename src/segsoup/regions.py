"""From label values to regions: unions of label values that may overlap."""

from __future__ import annotations

import numpy as np


def label_table(regions: dict[str, list[int]]) -> np.ndarray:
    """Which regions each label value belongs to, as booleans (region, 256)."""
    table = np.zeros((len(regions), 256), dtype=bool)
    for row, labels in enumerate(regions.values()):
        table[row, labels] = True
    return table


def to_regions(label: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Regions of a label map.

    Args:
        label: label values 0 to 255, (x, y, z).
        table: from ``label_table``.

    Returns:
        Booleans (region, x, y, z).
    """
    return np.stack([row.take(label) for row in table])
