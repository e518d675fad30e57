"""Distances of surfaces: Nikolov et al., Clinically applicable segmentation of head and neck
anatomy, J Med Internet Res 2021, appendix; their package is `surface-distance`.

A surface runs between voxel centres. Its points are the corners around which not all eight voxels
are equal, and each stands for the area of the surface within its cube, from the authors' table.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from surface_distance import lookup_tables

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


class Surface(NamedTuple):
    """Corners of a surface in mm, (corner, 3), and the area in mm² that each stands for."""

    corners: NDArray[np.float64]
    areas: NDArray[np.float64]


def surface(mask: Mask, spacing: Spacing) -> Surface:
    """The surface of a mask, corner by corner."""
    table = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    padded = np.pad(mask, 1)
    corners, areas = [], []
    for place in np.ndindex(*(side + 1 for side in mask.shape)):
        around = [
            bool(padded[tuple(np.add(place, step))]) for step in itertools.product((0, 1), repeat=3)
        ]
        if len(set(around)) == 2:
            code = sum(2 ** (7 - bit) for bit, inside in enumerate(around) if inside)
            corners.append(np.multiply(place, spacing))
            areas.append(float(table[code]))
    return Surface(np.array(corners).reshape(-1, 3), np.array(areas))


def distances(one: Surface, other: Surface) -> NDArray[np.float64]:
    """From each corner of one surface to the nearest corner of the other, in mm."""
    return np.array(
        [np.sqrt(((other.corners - corner) ** 2).sum(axis=1)).min() for corner in one.corners]
    )


def hd95(prediction: Mask, truth: Mask, spacing: Spacing) -> float:
    """The larger of both directed distances within which 95 % of the area lies, in mm."""
    pair = surface(prediction, spacing), surface(truth, spacing)
    ends = []
    for one, other in (pair, pair[::-1]):
        found = distances(one, other)
        order = np.argsort(found)
        reached = np.cumsum(one.areas[order]) / one.areas.sum()
        ends.append(found[order][np.argmax(reached >= 0.95)])
    return float(max(ends))


def surface_dice(prediction: Mask, truth: Mask, spacing: Spacing, tolerance: float) -> float:
    """Share of the area of both surfaces that lies within the tolerance (mm) of the other."""
    pair = surface(prediction, spacing), surface(truth, spacing)
    near = [
        one.areas[distances(one, other) <= tolerance].sum() for one, other in (pair, pair[::-1])
    ]
    return float(sum(near) / sum(one.areas.sum() for one in pair))
