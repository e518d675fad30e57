"""Lesions of a ground truth, and which predicted components belong to each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray

from voxelsoup.evaluation.surfaces import Labels, Mask

TOUCHING: Final = 26


@dataclass(frozen=True)
class Lesions:
    """The lesions of a ground truth, and which of the prediction's components belong to each.

    Attributes:
        truth: (x, y, z), from 1, the number of the lesion that each voxel of the dilated truth
            belongs to; 0 outside.
        prediction: the same of the prediction's connected components, which are not dilated.
        voxels: of each true lesion.
        component_voxels: of each predicted component.
        matches: for each true lesion, the numbers of the components that belong to it, with the
            number of voxels they share.
        false_positives: number of components that belong to no true lesion.
    """

    truth: Labels
    prediction: Labels
    voxels: NDArray[np.int64]
    component_voxels: NDArray[np.int64]
    matches: list[dict[int, int]]
    false_positives: int

    def dice(self, lesion: int) -> float:
        """Dice of a true lesion (from 0) with all that was predicted for it."""
        predicted = sum(int(self.component_voxels[number - 1]) for number in self.matches[lesion])
        return 2 * sum(self.matches[lesion].values()) / (int(self.voxels[lesion]) + predicted)


def match_lesions(prediction: Mask, truth: Mask, dilation: int) -> Lesions:
    """Lesions as the BraTS challenges of 2023 and later separate and match them.

    The ground truth is dilated ``dilation`` times by the 18 voxels that share a face or an edge.
    What touches then (26 voxels) is one lesion: the ground truth within it. The predicted
    components (26 voxels, not dilated, of whatever size) that meet the dilated lesion belong to
    it, all of them together, and one may belong to several. Those that belong to none are false
    positives.

    The scores of a region are sums over its true lesions, each with all that belongs to it
    (nothing: Dice 0 and the penalty distance), and over the false positives (0 and the penalty
    each, however small), divided by the number of both. True lesions of at most the smallest
    volume count nowhere, and neither does what belongs to them alone, unless all are that small.
    With nothing to count, Dice is 1 and the distance 0.

    Source: https://github.com/rachitsaluja/BraTS-2023-Metrics.

    Args:
        prediction: booleans (x, y, z).
        truth: booleans of the same shape.
    """
    dilated, number = _components(dilate(truth, dilation))
    components, predicted = _components(prediction)
    near = prediction & (dilated > 0)
    pairs = dilated[near].astype(np.int64) * (predicted + 1) + components[near]
    size = (number + 1) * (predicted + 1)
    shared = _tally(pairs[truth[near]], size)
    matches: list[dict[int, int]] = [{} for _ in range(number)]
    for pair in _tally(pairs, size):
        lesion, component = divmod(pair, predicted + 1)
        matches[lesion - 1][component] = shared.get(pair, 0)
    return Lesions(
        truth=dilated,
        prediction=components,
        voxels=np.bincount(dilated[truth], minlength=number + 1)[1:],
        component_voxels=np.bincount(components[prediction], minlength=predicted + 1)[1:],
        matches=matches,
        false_positives=predicted - len(set[int]().union(*matches)),
    )


def _components(mask: Mask) -> tuple[Labels, int]:
    """Connected components of a mask, numbered from 1, and how many there are."""
    if not mask.size:
        return np.zeros(mask.shape, dtype=np.uint16), 0
    # cc3d 4.1.1 fails on some masks of a few voxels that reach the border.
    labels, number = cc3d.connected_components(
        np.pad(mask, 1), connectivity=TOUCHING, return_N=True
    )
    return labels[1:-1, 1:-1, 1:-1], number


def _tally(numbers: NDArray[np.int64], size: int) -> dict[int, int]:
    """How often each number below ``size`` occurs, of those that do."""
    if size <= numbers.size:
        counts = np.bincount(numbers)
        occurring = np.flatnonzero(counts)
        counts = counts[occurring]
    else:
        occurring, counts = np.unique(numbers, return_counts=True)
    return dict(zip(occurring.tolist(), counts.tolist(), strict=True))


def dilate(mask: Mask, times: int) -> Mask:
    """A mask (x, y, z) with the voxels that share a face or an edge with it, ``times`` over.

    scipy's ``binary_dilation`` with ``generate_binary_structure(3, 2)``, in a fifth of its time.
    """
    for _ in range(times):
        along_x, along_y = _spread(mask, 0), _spread(mask, 1)
        mask = _spread(along_x, 1)
        mask |= _spread(along_x, 2)
        mask |= _spread(along_y, 2)
    return mask


def _spread(mask: Mask, axis: int) -> Mask:
    """A mask with the neighbours of its voxels along one axis."""
    spread = mask.copy()
    source, target = np.moveaxis(mask, axis, 0), np.moveaxis(spread, axis, 0)
    target[1:] |= source[:-1]
    target[:-1] |= source[1:]
    return spread
