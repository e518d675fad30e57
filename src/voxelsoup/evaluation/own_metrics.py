"""Metrics of other packages: what one is, how it is checked, and its column among the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from voxelsoup.common.plug_ins import PlugIn, UnknownPlugIn, find, is_plug_in
from voxelsoup.evaluation.metrics import METRICS, Metric
from voxelsoup.evaluation.surfaces import Mask


@dataclass(frozen=True)
class Masks:
    """A region as it was predicted, and as it is, in the voxels of the scan.

    Attributes:
        prediction: booleans (x, y, z); ``truth`` likewise.
        spacing: mm between voxels along x, y and z.
        penalty: mm that a distance counts where only one of the masks has any voxel
            (``metrics.penalty_distance``).
    """

    prediction: Mask
    truth: Mask
    spacing: tuple[float, float, float]
    penalty: float


@dataclass(frozen=True)
class OwnMetric(Metric):
    """A metric of another package: how its column is to be read, and how it is computed.

    ``score`` gives one finite number for any masks, also where one or both are empty.
    """

    score: Callable[[Masks], float]


def register(names: Iterable[str]) -> bool:
    """Add metrics of other packages to ``METRICS``; returns whether there was any to add.

    Names of no metric are passed over.

    Raises:
        InputError: if one cannot be imported, or is not what it has to be.
    """
    added = False
    for name in names:
        if name in METRICS or not is_plug_in("metrics", name):
            continue
        try:
            METRICS[name] = _own(find("metrics", name))
        except UnknownPlugIn:
            continue
        added = True
    return added


def columns_of(
    names: Iterable[str],
    prediction: Mask,
    truth: Mask,
    spacing: Sequence[float],
    penalty: float | None,
) -> dict[str, Callable[[], float]]:
    """Column -> what computes it, of those of the names that other packages have."""
    own = [name for name in names if is_plug_in("metrics", name)]
    # In a process of its own nothing may be registered yet.
    register(own)
    x, y, z = spacing
    masks = Masks(prediction, truth, (x, y, z), math.nan if penalty is None else penalty)

    def computed(name: str) -> Callable[[], float]:
        return lambda: _score(name, masks)

    return {name: computed(name) for name in own}


def check_metric(name: str) -> None:
    """Try a metric of another package on masks of which one, both or none are empty.

    Raises:
        InputError: if it fails, or gives no finite number.
    """
    register([name])
    full, empty = np.zeros((4, 5, 6), dtype=bool), np.zeros((4, 5, 6), dtype=bool)
    full[1:3, 1:4, 2:4] = True
    for prediction in (full, empty):
        for truth in (full, empty):
            _score(name, Masks(prediction, truth, (1.0, 1.0, 2.0), 374.0))


def _own(plug_in: PlugIn) -> OwnMetric:
    found = plug_in.load()
    if not isinstance(found, OwnMetric) or not callable(found.score):
        raise plug_in.refused(
            f"is {found!r}",
            "an `OwnMetric` (voxelsoup.evaluation.own_metrics): title, unit, higher_is_better, "
            "decimals, and `score`, a function of `Masks`",
        )
    return found


def _score(name: str, masks: Masks) -> float:
    plug_in, metric = find("metrics", name), METRICS[name]
    assert isinstance(metric, OwnMetric)
    counts = [int(np.count_nonzero(mask)) for mask in (masks.prediction, masks.truth)]
    where = f"on masks of {masks.truth.shape} voxels, {counts[0]} predicted and {counts[1]} true"
    try:
        value = float(metric.score(masks))
    except Exception as error:
        raise plug_in.refused(
            f"fails {where}: {type(error).__name__}: {error}", "one finite number for any masks"
        ) from error
    if not math.isfinite(value):
        raise plug_in.refused(f"gives {value} {where}", "one finite number for any masks")
    return value
