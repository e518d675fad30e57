"""One label map of those that several raters drew on one scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelsoup.common.errors import InputError

Array = NDArray[Any]


def consensus(labels: Sequence[Array], method: str) -> Array:
    """The label map (uint8, x, y, z) that raters agree on, of their label maps on one grid.

    ``majority``: the value that more than half of them give a voxel, else 0. ``staple``: by
    SimpleITK's MultiLabelSTAPLE, which weights raters by how well they agree (Warfield et al. 2004;
    Rohlfing et al. 2003); what it leaves undecided is 0.

    Raises InputError for `staple` where SimpleITK is not installed.
    """
    if method == "staple":
        return _staple(labels)
    values = np.unique(np.concatenate([np.unique(label) for label in labels]))
    result = np.zeros(labels[0].shape, np.uint8)
    for value in values:
        votes = sum((label == value).astype(np.int32) for label in labels)
        result[2 * votes > len(labels)] = value
    return result


def check_simpleitk() -> None:
    """Raise InputError where SimpleITK is not installed: before anything is computed."""
    try:
        import SimpleITK  # noqa: F401
    except ImportError as error:
        raise InputError(
            "dataset.accept.raters",
            "is `staple`, and SimpleITK is not installed",
            "SimpleITK, which estimates it",
            "pip install 'voxelsoup[staple]', or take `majority`",
        ) from error


def _staple(labels: Sequence[Array]) -> Array:
    check_simpleitk()
    import SimpleITK

    staple = SimpleITK.MultiLabelSTAPLEImageFilter()
    staple.SetLabelForUndecidedPixels(0)
    images = [SimpleITK.GetImageFromArray(np.ascontiguousarray(label)) for label in labels]
    return np.asarray(SimpleITK.GetArrayFromImage(staple.Execute(images))).astype(np.uint8)
