"""Post-processing: a threshold and a smallest component per region, and a replacement.

One choice per fold, the same for every model, soup and ensemble, made on the selection cases of
the compared one-network models: what is chosen for one recipe alone would compare
post-processings, not recipes. In the order in which they are applied:

1. A voxel belongs to a region where its probability is above the region's threshold.
2. Connected components (26 neighbours) of less than the region's smallest volume are dropped.
3. A region of which less than a volume is left becomes empty, and another region gets its voxels:
   BraTS practice, where a case without enhancing tumour scores 0 for a single voxel of it
   (Isensee et al., nnU-Net for brain tumor segmentation, BrainLes 2020, arXiv:2011.00848).

`voxelsoup.evaluation.postprocessing_search` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxelsoup.evaluation.surfaces import Mask, bounding_box

# Voxels that share a side, an edge or a corner are connected.
NEIGHBOURS = np.ones((3, 3, 3))
# Voxel sizes come out of float32 headers: 10 voxels of 1 mm³ must not be found to be below 10 mm³.
TOLERANCE = 1e-6

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class RegionRule:
    """What makes a region of its probabilities.

    Attributes:
        threshold: a voxel belongs to the region above this probability.
        smallest_component: connected components below this volume in mm³ are dropped.
    """

    threshold: float = 0.5
    smallest_component: float = 0.0

    @property
    def distance(self) -> tuple[float, float, float]:
        """How far it is from doing nothing, to sort by: the mildest rule comes first."""
        # 0.4 and 0.6 are equally far, but not in floating point.
        return round(abs(self.threshold - 0.5), 9), self.smallest_component, self.threshold

    def apply(self, probabilities: Probabilities, spacing: Sequence[float]) -> Mask:
        """Booleans (x, y, z) of one region's probabilities (x, y, z); ``spacing`` in mm."""
        return self.drop_small(np.asarray(probabilities > self.threshold), spacing)

    def drop_small(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """Take the small components out of a region (x, y, z), in place; returns it."""
        fewest = fewest_voxels(self.smallest_component, spacing)
        if fewest > 1:
            part = mask[bounding_box(mask)]
            labels, sizes = components(part)
            kept = sizes >= fewest
            kept[0] = False
            part[...] = kept[labels]
        return mask


@dataclass(frozen=True)
class ReplacementRule:
    """A region that another gets where less than ``below`` mm³ of it is left."""

    region: str
    by: str
    below: float


@dataclass(frozen=True)
class Postprocessing:
    """What is done to the probabilities of a fold's models.

    Attributes:
        regions: region -> its rule, in the order of the probabilities.
    """

    regions: Mapping[str, RegionRule]
    replacement: ReplacementRule | None = None

    def apply(self, probabilities: Probabilities, spacing: Sequence[float]) -> Mask:
        """Booleans (region, x, y, z) of probabilities of that shape, in the scan's voxels (mm).

        Raises:
            ValueError: if there are not as many regions as rules.
        """
        return self.clean(self.above(probabilities), spacing)

    def above(self, probabilities: Probabilities) -> Mask:
        """The first step: where probabilities (region, x, y, z) are above their thresholds."""
        pairs = zip(probabilities, self.regions.values(), strict=True)
        return np.stack([region > rule.threshold for region, rule in pairs])

    def clean(self, masks: Mask, spacing: Sequence[float]) -> Mask:
        """The steps behind ``above``, in place, on masks (region, x, y, z) of the whole scan."""
        for mask, rule in zip(masks, self.regions.values(), strict=True):
            rule.drop_small(mask, spacing)
        if self.replacement is not None:
            names = list(self.regions)
            region = masks[names.index(self.replacement.region)]
            if np.count_nonzero(region) < fewest_voxels(self.replacement.below, spacing):
                masks[names.index(self.replacement.by)] |= region
                region[...] = False
        return masks

    def as_record(self) -> dict[str, Any]:
        """What a JSON file says of it."""
        return {
            "regions": {region: asdict(rule) for region, rule in self.regions.items()},
            "replacement": None if self.replacement is None else asdict(self.replacement),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The post-processing that ``as_record`` has written down."""
        replacement = record["replacement"]
        return cls(
            {region: RegionRule(**rule) for region, rule in record["regions"].items()},
            None if replacement is None else ReplacementRule(**replacement),
        )


def unchanged(regions: Sequence[str]) -> Postprocessing:
    """The post-processing that does nothing: evaluation's threshold, and that alone."""
    return Postprocessing(dict.fromkeys(regions, RegionRule()))


def fewest_voxels(volume: float, spacing: Sequence[float]) -> int:
    """The fewest voxels of a ``spacing`` (mm) that have at least a ``volume`` in mm³."""
    return math.ceil(volume / math.prod(spacing) * (1 - TOLERANCE))


def components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbers of the connected components (x, y, z), and their voxels by number from 0, outside."""
    # Not cc3d, which is faster: 4.1.1 raises on small masks of voxels that stand alone.
    labels, _ = ndimage.label(mask, NEIGHBOURS)
    return labels, np.bincount(labels.ravel(), minlength=1)
