"""Label values and regions (unions of label values, which may overlap), in both directions.

From regions to one label map: regions are written one after the other, the larger ones first, and
later ones overwrite earlier ones (nnU-Net's ``regions_class_order``). A region's value is what is
left of its label values when those of the regions within it are taken away: of WT = {1, 2, 3},
TC = {1, 3} and ET = {3}, WT writes 2, then TC 1, then ET 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from voxelsoup.common.errors import InputError

# Region -> the label value that it writes, in the order of writing.
LabelOrder = dict[str, int]

# Beside 0 and 1 in what a loss is taken against: it is not known whether a voxel is in the region.
UNKNOWN = -1

STATE_IT = (
    "state the order in which regions are written, and the value of each: "
    "--label-order WT=2,TC=1,ET=3"
)


def label_table(regions: dict[str, list[int]]) -> np.ndarray:
    """Which regions each label value belongs to, as booleans (region, 256)."""
    table = np.zeros((len(regions), 256), dtype=bool)
    for row, labels in enumerate(regions.values()):
        table[row, labels] = True
    return table


def to_regions(label: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Regions (booleans: region, x, y, z) of label values 0 to 255, with a ``label_table``."""
    return np.stack([row.take(label) for row in table])


def label_order(regions: Mapping[str, Sequence[int]], where: str = "regions") -> LabelOrder:
    """Which value each region writes into a label map, in the order of writing.

    Larger regions come first, equally large ones in their own order. Regions without common
    label values may still be predicted for the same voxel, which the later one gets. Messages
    name ``where`` as the place of the regions.

    Raises:
        InputError: if regions overlap without one lying within the other, or a region's value is
            not certain.
    """
    values = {region: frozenset(labels) for region, labels in regions.items()}
    for (one, mine), (other, theirs) in combinations(values.items(), 2):
        if mine & theirs and not (mine < theirs or theirs < mine):
            found = "holds the same" if mine == theirs else "shares only some of its"
            raise InputError(
                where,
                f"region `{one}` {found} label values as `{other}` ({_shown(mine)} and "
                f"{_shown(theirs)}): which of them a voxel of both gets is ambiguous",
                "regions that are nested or disjoint",
                STATE_IT,
            )
    return {
        region: _own_value(region, values, where)
        for region in sorted(values, key=lambda region: -len(values[region]))
    }


def _own_value(region: str, values: Mapping[str, frozenset[int]], where: str) -> int:
    within = [labels for labels in values.values() if labels < values[region]]
    own = values[region].difference(*within)
    if len(own) != 1:
        held = f"holds {_shown(own)}" if own else "holds no label value"
        raise InputError(
            where,
            f"region `{region}` {held} besides those of the regions inside it: the value of a "
            "voxel that is in it alone is ambiguous",
            "one label value of its own for every region",
            STATE_IT,
        )
    return next(iter(own))


def _shown(labels: frozenset[int]) -> str:
    return "{" + ", ".join(map(str, sorted(labels))) + "}"


def check_label_order(
    order: Mapping[str, int], regions: Mapping[str, Sequence[int]], where: str
) -> LabelOrder:
    """A stated order; raises InputError unless every region has one of its values."""
    if sorted(order) != sorted(regions):
        raise InputError(
            where,
            f"names {', '.join(order)}",
            f"the value that each of {', '.join(regions)} writes",
            "name every region once",
        )
    for region, value in order.items():
        if value not in regions[region]:
            raise InputError(
                where,
                f"gives `{region}` the value {value}",
                f"one of its label values {_shown(frozenset(regions[region]))}",
                "take one of these",
            )
    return dict(order)


def parse_label_order(text: str, regions: Mapping[str, Sequence[int]]) -> LabelOrder:
    """Read an order to write in, ``WT=2,TC=1,ET=3``; raises InputError."""
    pairs = [part.partition("=") for part in text.split(",")]
    if len({name.strip() for name, _, _ in pairs}) < len(pairs) or not all(
        value.strip().isdecimal() for _, _, value in pairs
    ):
        raise InputError(
            "--label-order",
            f"is {text!r}",
            f"REGION=VALUE of each of {', '.join(regions)}, separated by commas",
            "write it like WT=2,TC=1,ET=3",
        )
    order = {name.strip(): int(value) for name, _, value in pairs}
    return check_label_order(order, regions, "--label-order")


def to_labels(
    masks: NDArray[np.bool_], regions: Sequence[str], order: Mapping[str, int]
) -> NDArray[np.uint8]:
    """One label map, uint8 (x, y, z; 0 where no region is), of masks (region, x, y, z)."""
    labels = np.zeros(masks.shape[1:], np.uint8)
    numbers = {region: number for number, region in enumerate(regions)}
    for region, value in order.items():
        labels[masks[numbers[region]]] = value
    return labels
