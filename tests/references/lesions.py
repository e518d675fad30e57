"""Lesion-wise scores of the BraTS challenges: Saluja et al., BraTS-2023-Metrics, GitHub 2023.

Ground truth is dilated and its components (26 neighbours) are the lesions; a predicted component
belongs to every lesion whose dilation it meets. Missed lesions and predicted components that
belong to none score a Dice of 0 and 374 mm. Unlike there, small lesions count where there are no
others.
"""

from __future__ import annotations

import math

import numpy as np
import surface_distance
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
AROUND = np.ones((3, 3, 3))
# Neighbours by a face or an edge.
EDGES = ndimage.generate_binary_structure(3, 2)
MISSED_MM = 374.0


def lesion_scores(
    prediction: Mask, truth: Mask, spacing: Spacing, dilation: int, smallest: float
) -> tuple[float, float]:
    """The lesion-wise Dice and HD95, step by step on whole volumes.

    Args:
        prediction: predicted voxels (x, y, z) of one region.
        truth: those of the ground truth.
        spacing: of voxels, in mm.
        dilation: of the ground truth, in voxels.
        smallest: volume in mm³ up to which a lesion is not scored.
    """

    def dilated(mask: Mask) -> Mask:
        return ndimage.binary_dilation(mask, EDGES, iterations=dilation)

    lesions, lesion_count = ndimage.label(dilated(truth), AROUND)
    components, component_count = ndimage.label(prediction, AROUND)
    dice_scores, distances, met = [], [], set()
    volumes = [(truth & (lesions == n + 1)).sum() for n in range(lesion_count)]
    if all(volume * math.prod(spacing) <= smallest for volume in volumes):
        smallest = 0
    for number in range(1, lesion_count + 1):
        lesion = truth & (lesions == number)
        belonging = set(components[dilated(lesion)].tolist()) - {0}
        met |= belonging
        if lesion.sum() * math.prod(spacing) <= smallest:
            continue
        predicted = np.isin(components, list(belonging))
        dice_scores.append(2 * (predicted & lesion).sum() / (predicted.sum() + lesion.sum()))
        distances.append(MISSED_MM)
        if belonging:
            surfaces = surface_distance.compute_surface_distances(lesion, predicted, spacing)
            distances[-1] = surface_distance.compute_robust_hausdorff(surfaces, 95)
    false = component_count - len(met)
    if not dice_scores and not false:
        return 1.0, 0.0
    number = len(dice_scores) + false
    return sum(dice_scores) / number, (sum(distances) + MISSED_MM * false) / number
