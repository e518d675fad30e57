"""Constants of `ct` normalisation, which depend on the fold: measured on its training cases.

nnU-Net's scheme for CT (``nnunetv2/preprocessing/normalization/default_normalization_schemes.py``,
``CTNormalization``): a channel is clipped at the 0.5 and 99.5 percentiles of the foreground voxels
of the training cases; then their mean is subtracted, and it is divided by their standard deviation.
Mean and deviation are those of the voxels as they are, before clipping. nnU-Net takes a sample of
the foreground; here it is all of it.

Preprocessing measures every case once for all folds (``measure``); a fold's constants are those of
its cases together (``study_of_fold``), and are applied when voxels are read (``rescale``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.data.preprocessing.geometry import Array
from voxelsoup.study.loading import load
from voxelsoup.study.sections.data import Intensities
from voxelsoup.study.study import Study

LOWER, UPPER = 0.5, 99.5
# More different values than this, which scans of whole numbers never have, are thinned out.
MOST_VALUES = 2**16
# Of a row that is measured: place of the channel, label value, intensity, number of voxels.
COLUMNS = 4


def measured_file(folder: Path, case: str) -> Path:
    """Where preprocessing keeps what it has measured of a case."""
    return folder / f"{case}.intensities.npy"


def measure(channels: Iterable[tuple[int, Array]], label: Array) -> Array:
    """How often each intensity occurs in each label value of a case.

    Args:
        channels: places of channels, and their voxels (x, y, z), as the scanner gave them.
        label: label values above 0 are measured, (x, y, z).

    Returns:
        Rows (n, 4) of float64: place of the channel, label value, intensity, number of voxels.
    """
    rows = [np.zeros((0, COLUMNS))]
    labelled = label > 0
    values = label[labelled]
    for place, voxels in channels:
        inside = voxels[labelled]
        for value in np.unique(values):
            found, counts = np.unique(inside[values == value], return_counts=True)
            found, counts = _thinned(found.astype(np.float64), counts)
            rows.append(
                np.column_stack(
                    [np.full(len(found), place), np.full(len(found), value), found, counts]
                )
            )
    return np.concatenate(rows)


def _thinned(values: Array, counts: Array) -> tuple[Array, Array]:
    """Sorted values and their counts, of which neighbours are taken for their mean if many."""
    if len(values) <= MOST_VALUES:
        return values, counts
    starts = np.linspace(0, len(values), MOST_VALUES + 1).astype(int)[:-1]
    together = np.add.reduceat(counts, starts)
    return np.add.reduceat(values * counts, starts) / together, together


def with_intensities(study: Study, cases: Iterable[str], folder: Path) -> Study:
    """A study with the constants of a fold in place of none (``preprocess.intensities``).

    Args:
        cases: the fold's training cases, preprocessed in ``folder``.

    Raises:
        InputError: if nothing in these cases is labelled, or all that is has the same intensity.
    """
    preprocess, channels = study.preprocess, study.dataset.channels
    stated = preprocess.intensities or {}
    missing = [name for name in preprocess.by_fold(channels) if name not in stated]
    if not missing:
        return study
    rows = np.concatenate([np.load(measured_file(folder, case)) for case in sorted(cases)])
    rows = rows[np.isin(rows[:, 1], sorted(study.labels))]
    found = {
        name: _constants(name, rows[rows[:, 0] == channels.index(name)][:, 2:]) for name in missing
    }
    changed = preprocess.model_copy(update={"intensities": {**stated, **found}})
    return study.model_copy(update={"preprocess": changed})


def study_of_fold(
    config: dict[str, Any], folds: Path, fold: int | str, folder: Path
) -> tuple[Study, dict[str, list[str]]]:
    """A study with the constants of a fold, and the fold: its parts and their cases.

    Args:
        config: the study as it is written.
        folds: folds.json; ``folder`` holds the preprocessed cases.

    Raises:
        InputError: as ``load`` and ``with_intensities``.
    """
    parts = read_json(folds)["folds"][str(fold)]
    return with_intensities(load(config), parts["training"], folder), parts


def _constants(channel: str, rows: Array) -> Intensities:
    """The constants of a channel by rows (n, 2) of an intensity and its number of voxels."""
    values, places = np.unique(rows[:, 0], return_inverse=True)
    counts = np.bincount(places, rows[:, 1], len(values))
    if not len(values):
        raise _unusable(channel, "no voxel of the training cases is labelled")
    total = counts.sum()
    mean = float((values * counts).sum() / total)
    deviation = float(np.sqrt((np.square(values - mean) * counts).sum() / total))
    lower, upper = (_percentile(values, counts, share) for share in (LOWER, UPPER))
    if not (lower < upper and deviation > 0):
        raise _unusable(channel, f"all labelled voxels of the training cases are {lower:g}")
    return Intensities(lower=lower, upper=upper, mean=mean, deviation=deviation)


def _unusable(channel: str, found: str) -> InputError:
    return InputError(
        "preprocess.normalisation",
        f"`ct` cannot be applied to channel {channel}: {found}",
        "labelled voxels of different intensities, at whose percentiles scans are clipped",
        "take `zscore` for this channel, or state its `preprocess.intensities`",
    )


def _percentile(values: Array, counts: Array, share: float) -> float:
    """numpy's percentile (linear interpolation) of sorted values that occur ``counts`` times."""
    last = np.cumsum(counts) - 1
    place = share / 100 * last[-1]
    low, high = (
        float(values[np.searchsorted(last, rank, side="left")])
        for rank in (np.floor(place), np.ceil(place))
    )
    return low + (high - low) * float(place - np.floor(place))


def rescale(image: Array, constants: Sequence[Intensities | None]) -> None:
    """Normalise the channels that have constants, in place.

    ``image`` is float32 (channel, x, y, z); ``constants`` those of its channels, or nothing at all.
    """
    for channel, own in zip(image, constants, strict=False):
        if own is not None:
            np.clip(channel, own.lower, own.upper, out=channel)
            channel -= np.float32(own.mean)
            channel /= np.float32(own.deviation)
