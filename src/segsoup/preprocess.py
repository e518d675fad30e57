"""From scanner files to arrays to train on, and back into the scanner's geometry."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from segsoup import files
from segsoup.cases.case import Source
from segsoup.cases.indexed_case import IndexedCase
from segsoup.errors import InputError
from segsoup.study import Preprocess
from segsoup.volumes import Volume, read_label, read_volume

# Part of the fingerprint: to be raised whenever the arrays come out differently.
VERSION = 1
FOREGROUND_VOXELS = 1000
SPACING_TOLERANCE = 1e-4
RAS = np.array([[0, 1], [1, 1], [2, 1]])

Geometry = dict[str, Any]
Array = NDArray[Any]


@dataclass
class PreprocessedCase:
    """A case as training reads it; image and label stay on the disk until sliced.

    Attributes:
        name: the case's name.
        image: float32 (channel, x, y, z).
        label: uint8 (x, y, z), original label values on the image's grid; all 0 where the case
            is unlabelled (``geometry["labelled"]`` tells).
        foreground: int32 (n, 4), rows of label value and x, y, z of a labelled voxel.
        geometry: what ``restore`` and ``to_scanner`` need.
    """

    name: str
    image: Array
    label: Array
    foreground: Array
    geometry: Geometry


def preprocess_all(
    cases: Sequence[IndexedCase],
    root: Path,
    settings: Preprocess,
    patch: list[int],
    folder: Path,
    manifest: Path,
    workers: int,
) -> None:
    """Preprocess the cases that have changed and list all of them.

    Args:
        cases: the cases of the study.
        root: folder that the cases' files are relative to.
        settings: what to do to them.
        patch: smallest size of the result in voxels (x, y, z).
        folder: where the arrays go.
        manifest: the table ``case fingerprint`` to write.
        workers: processes to use; 1 works in this process.

    Raises:
        InputError: if a case's file is unusable; cases that are done stay done.
    """
    todo = [
        case
        for case in cases
        if not _is_current(folder, case.name, fingerprint(case, settings, patch, [*case.channels]))
    ]
    work = partial(preprocess_case, root=root, settings=settings, patch=patch, folder=folder)
    if workers == 1 or len(todo) < 2:
        for case in todo:
            work(case)
    else:
        # Other start methods import the main module again, which in a Snakemake script would
        # run the script once more.
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(min(workers, len(todo)), mp_context=context) as pool:
            list(pool.map(work, todo))
    lines = sorted(
        f"{case.name}\t{fingerprint(case, settings, patch, [*case.channels])}\n" for case in cases
    )
    files.write_text(manifest, "case\tfingerprint\n" + "".join(lines))


def _is_current(folder: Path, name: str, current: str) -> bool:
    try:
        geometry = files.read_json(folder / f"{name}.json")
    except (OSError, ValueError):
        return False
    if not isinstance(geometry, dict) or geometry.get("fingerprint") != current:
        return False
    parts = ["image", "label", "foreground"] + (["truth"] if geometry["has_truth"] else [])
    return all((folder / f"{name}.{part}.npy").is_file() for part in parts)


def fingerprint(
    case: IndexedCase, settings: Preprocess, patch: list[int], channels: list[str]
) -> str:
    """SHA-256 over everything that a case's arrays depend on.

    Args:
        case: the case, with the hash of its files.
        settings: the study's preprocessing.
        patch: patch size in voxels (x, y, z).
        channels: names of the channels in their order.
    """
    content = {
        "version": VERSION,
        "case": case.name,
        "sha256": case.sha256,
        "settings": settings.model_dump(mode="json"),
        "patch": list(patch),
        "channels": list(channels),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, str]:
    """Read what ``preprocess_all`` listed: case -> fingerprint."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t") for line in lines)


def preprocess_case(
    case: IndexedCase, root: Path, settings: Preprocess, patch: list[int], folder: Path
) -> str:
    """Turn one case into arrays: RAS, cropped, resampled, normalised, padded to the patch.

    Args:
        case: the case.
        root: folder that its files are relative to.
        settings: what to do to it.
        patch: smallest size of the result in voxels (x, y, z).
        folder: where ``{case}.image.npy``, ``.label.npy``, ``.truth.npy`` (only where
            resampled), ``.foreground.npy`` and ``.json`` go; the JSON comes last.

    Returns:
        The case's fingerprint.

    Raises:
        InputError: if a file is unusable or the files do not lie on one grid.
    """
    image, label, geometry = _read_ras(case, root)
    image, label = _crop(image, label, settings.crop, geometry)
    native_label = label
    image, label = _resample(image, label, settings, geometry)
    image = np.stack([_normalise(channel, settings.normalisation) for channel in image])
    image, label = _pad(image, label, patch, geometry)
    resampled = geometry["resampled_shape"] != geometry["native_shape"]
    geometry["labelled"] = case.label is not None
    geometry["has_truth"] = resampled and case.label is not None
    geometry["sha256"] = case.sha256
    geometry["fingerprint"] = fingerprint(case, settings, patch, [*case.channels])

    # While the arrays are replaced, no JSON may vouch for them.
    (folder / f"{case.name}.json").unlink(missing_ok=True)
    (folder / f"{case.name}.truth.npy").unlink(missing_ok=True)
    _save(folder / f"{case.name}.image.npy", image)
    _save(folder / f"{case.name}.label.npy", label)
    if geometry["has_truth"]:
        _save(folder / f"{case.name}.truth.npy", native_label)
    _save(folder / f"{case.name}.foreground.npy", _foreground(label, case.name))
    files.write_json(folder / f"{case.name}.json", geometry)
    return str(geometry["fingerprint"])


def _save(path: Path, array: Array) -> None:
    with files.whole(path) as temporary:
        np.save(temporary, np.ascontiguousarray(array))


def _read_ras(case: IndexedCase, root: Path) -> tuple[Array, Array, Geometry]:
    channels = {
        name: read_volume(Source(root / source.file, source.component))
        for name, source in case.channels.items()
    }
    first = next(iter(channels.values()))
    orientation = nib.orientations.io_orientation(first.affine)
    shape = [int(side) for side in first.data.shape]
    affine = first.affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    volumes = [_to_ras(volume, orientation, np.float32) for volume in channels.values()]
    if case.label is None:
        label = np.zeros(volumes[0].shape, np.uint8)
    else:
        source = Source(root / case.label.file, case.label.component)
        label = _to_ras(read_label(source), orientation, np.uint8)
    _check_one_grid(case, [*volumes, label])
    spacing = [float(side) for side in nib.affines.voxel_sizes(affine)]
    geometry: Geometry = {
        "case": case.name,
        "channels": list(case.channels),
        "original_shape": shape,
        "original_affine": np.asarray(first.affine, np.float64).tolist(),
        "orientation": [[int(axis), int(flip)] for axis, flip in orientation],
        "ras_shape": list(volumes[0].shape),
        "ras_affine": np.asarray(affine, np.float64).tolist(),
        "spacing_before": spacing,
    }
    return np.stack(volumes), label, geometry


def _to_ras(volume: Volume, orientation: Array, kind: DTypeLike) -> Array:
    # The first channel's orientation, not the volume's own: where a scan lies at 45 degrees,
    # rounding in the headers could turn volumes of one grid differently.
    return np.asarray(nib.orientations.apply_orientation(volume.data, orientation), kind)


def _check_one_grid(case: IndexedCase, volumes: list[Array]) -> None:
    shapes = {volume.shape for volume in volumes}
    if len(shapes) > 1:
        raise InputError(
            case.name,
            f"its volumes have different sizes in RAS: {', '.join(map(str, sorted(shapes)))}",
            "channels and label on one grid",
            "register the case's volumes to one another",
        )


def _crop(image: Array, label: Array, crop: bool, geometry: Geometry) -> tuple[Array, Array]:
    """Crop to the box around voxels that are not 0 in some channel or are labelled."""
    box = [(0, side) for side in label.shape]
    if crop:
        mask = (image != 0).any(axis=0) | (label != 0)
        if mask.any():
            (found,) = ndimage.find_objects(mask.astype(np.uint8))
            box = [(int(side.start), int(side.stop)) for side in found]
    window = tuple(slice(start, stop) for start, stop in box)
    geometry["crop"] = [list(side) for side in box]
    geometry["native_shape"] = [stop - start for start, stop in box]
    return image[(slice(None), *window)], label[window]


def _resample(
    image: Array, label: Array, settings: Preprocess, geometry: Geometry
) -> tuple[Array, Array]:
    """Bring the case to the study's spacing: cubic for images, linear per label value."""
    before = np.array(geometry["spacing_before"])
    after = before if settings.spacing is None else np.array(settings.spacing)
    old = geometry["native_shape"]
    new = list(old)
    if (np.abs(after / before - 1) > SPACING_TOLERANCE).any():
        new = [max(1, round(n * b / a)) for n, b, a in zip(old, before, after, strict=True)]
    geometry["resampled_shape"] = new
    geometry["spacing_after"] = [float(b * o / n) for b, o, n in zip(before, old, new, strict=True)]
    if new == old:
        return image, label
    keep_zeros = settings.normalisation == "zscore-nonzero"
    return (
        np.stack([_zoom_channel(channel, new, keep_zeros) for channel in image]),
        _zoom_label(label, new),
    )


def _zoom(array: Array, shape: list[int], order: int) -> Array:
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return np.asarray(ndimage.zoom(array, factors, order=order, mode="nearest", grid_mode=True))


def _zoom_channel(channel: Array, shape: list[int], keep_zeros: bool) -> Array:
    resampled = _zoom(channel, shape, 3)
    if keep_zeros and not channel.all():
        # Splines ring beside the brain's edge; without this, the background would no longer be
        # 0 and would take part in the normalisation.
        resampled[_zoom((channel != 0).astype(np.float32), shape, 1) < 0.5] = 0
    return resampled


def _zoom_label(label: Array, shape: list[int]) -> Array:
    best = np.full(shape, -1, np.float32)
    result = np.zeros(shape, np.uint8)
    for value in np.unique(label):
        weight = _zoom((label == value).astype(np.float32), shape, 1)
        better = weight > best
        result[better] = value
        best[better] = weight[better]
    return result


def _normalise(channel: Array, normalisation: str) -> Array:
    """Z-score one channel; a channel without contrast becomes 0."""
    if normalisation == "none":
        return channel
    voxels = channel != 0 if normalisation == "zscore-nonzero" else np.ones(channel.shape, bool)
    result = np.zeros(channel.shape, np.float32)
    values = channel[voxels].astype(np.float64)
    if values.size and values.max() > values.min():
        result[voxels] = (values - values.mean()) / values.std()
    return result


def _pad(image: Array, label: Array, patch: list[int], geometry: Geometry) -> tuple[Array, Array]:
    missing = [max(0, side - have) for side, have in zip(patch, label.shape, strict=True)]
    padding = [[side // 2, side - side // 2] for side in missing]
    geometry["padding"] = padding
    geometry["shape"] = [have + side for have, side in zip(label.shape, missing, strict=True)]
    return np.pad(image, [[0, 0], *padding]), np.pad(label, padding)


def _foreground(label: Array, name: str) -> Array:
    """Up to a number of voxels per label value, as rows of label, x, y, z."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    rows = [np.zeros((0, 4), np.int32)]
    for value in np.unique(label[label > 0]):
        voxels = np.flatnonzero(label == value)
        if voxels.size > FOREGROUND_VOXELS:
            voxels = np.sort(random.choice(voxels, FOREGROUND_VOXELS, replace=False))
        places = np.stack(np.unravel_index(voxels, label.shape), axis=1)
        rows.append(np.insert(places, 0, value, axis=1).astype(np.int32))
    return np.concatenate(rows)


def load_case(folder: Path, name: str) -> PreprocessedCase:
    """Open a preprocessed case; image and label are memory maps."""
    return PreprocessedCase(
        name=name,
        image=np.load(folder / f"{name}.image.npy", mmap_mode="r"),
        label=np.load(folder / f"{name}.label.npy", mmap_mode="r"),
        foreground=np.load(folder / f"{name}.foreground.npy"),
        geometry=files.read_json(folder / f"{name}.json"),
    )


def load_truth(folder: Path, name: str) -> Array:
    """The true label map on the grid that ``restore`` returns: uint8 (x, y, z).

    Raises:
        InputError: if the case is unlabelled.
    """
    geometry = files.read_json(folder / f"{name}.json")
    if not geometry["labelled"]:
        raise InputError(
            name, "has no label map", "a labelled case to score on", "add its label map"
        )
    if geometry["has_truth"]:
        return np.asarray(np.load(folder / f"{name}.truth.npy"))
    label = np.load(folder / f"{name}.label.npy", mmap_mode="r")
    return np.array(label[_inside(geometry)])


def _inside(geometry: Geometry) -> tuple[slice, ...]:
    """The padded array's part that is not padding."""
    return tuple(
        slice(before, before + side)
        for (before, _), side in zip(geometry["padding"], geometry["resampled_shape"], strict=True)
    )


def restore(probabilities: Array, geometry: Geometry) -> Array:
    """Bring probabilities back to the scan's own voxels.

    Args:
        probabilities: (region, x, y, z) on the preprocessed, padded grid.
        geometry: the case's geometry.

    Returns:
        (region, x, y, z) at native spacing in the RAS crop; resampled linearly, and only where
        preprocessing had resampled.
    """
    inner = probabilities[(slice(None), *_inside(geometry))]
    shape = geometry["native_shape"]
    if geometry["resampled_shape"] == shape:
        return inner
    return np.stack([_zoom(region, shape, 1) for region in inner])


def to_scanner(volume: Array, geometry: Geometry) -> Array:
    """Put a volume into the scanner's own grid.

    Args:
        volume: (x, y, z) at native spacing in the RAS crop, such as ``restore`` returns per
            region.
        geometry: the case's geometry.

    Returns:
        (x, y, z) in the original file's shape and axis order, 0 outside of the crop; its affine
        is ``geometry["original_affine"]``.
    """
    full = np.zeros(geometry["ras_shape"], volume.dtype)
    full[tuple(slice(start, stop) for start, stop in geometry["crop"])] = volume
    back = nib.orientations.ornt_transform(RAS, np.array(geometry["orientation"]))
    return np.asarray(nib.orientations.apply_orientation(full, back))
