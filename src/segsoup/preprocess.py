"""From scanner files to arrays to train on, and back into the scanner's geometry."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from segsoup import files
from segsoup.cases.case import Source
from segsoup.cases.indexed_case import IndexedCase
from segsoup.errors import InputError
from segsoup.geometry import Array, Geometry
from segsoup.grids import GridMismatch, align
from segsoup.normalisation import normalise
from segsoup.resampling import resample_image, resample_label
from segsoup.study import Preprocess
from segsoup.volumes import Volume, read_label, read_volumes

# Part of the fingerprint: to be raised whenever the arrays come out differently.
VERSION = 2
FOREGROUND_VOXELS = 1000
# Channels of this size as stored (a BraTS case has 18 MB) do not wait for each other in memory.
PARKED_BYTES = 2**27
SPACING_TOLERANCE = 1e-4


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
    scan = _read(
        {name: _below(root, source) for name, source in case.channels.items()},
        _below(root, case.label) if case.label else None,
        folder,
    )
    geometry = {"case": case.name, **scan.geometry}
    volumes, label = _crop_to_ras(scan, settings.crop, geometry)
    del scan
    if label is None:
        label = np.zeros(geometry["native_shape"], np.uint8)
    native_label = label
    new = _resampled_shape(settings, geometry)
    _set_padding(patch, geometry)
    label = label if new is None else resample_label(label, new)
    label = np.pad(label, geometry["padding"])
    geometry["labelled"] = case.label is not None
    geometry["has_truth"] = new is not None and case.label is not None
    geometry["sha256"] = case.sha256
    geometry["fingerprint"] = fingerprint(case, settings, patch, [*case.channels])

    # While the arrays are replaced, no JSON may vouch for them.
    (folder / f"{case.name}.json").unlink(missing_ok=True)
    (folder / f"{case.name}.truth.npy").unlink(missing_ok=True)
    image = folder / f"{case.name}.image.npy"
    hashes = {"image": _save_image(image, volumes, new, settings, geometry)}
    hashes["label"] = _save(folder / f"{case.name}.label.npy", label)
    if geometry["has_truth"]:
        hashes["truth"] = _save(folder / f"{case.name}.truth.npy", native_label)
    foreground = _foreground(label, case.name)
    hashes["foreground"] = _save(folder / f"{case.name}.foreground.npy", foreground)
    geometry["sha256_of_arrays"] = hashes
    files.write_json(folder / f"{case.name}.json", geometry)
    return str(geometry["fingerprint"])


def preprocess_image(
    channels: Mapping[str, Source], settings: Preprocess, patch: list[int], path: Path
) -> Geometry:
    """Turn the image of one case into an array, as ``preprocess_case`` does, without a label map.

    Args:
        channels: channel name -> where its volume lies, in the order of the network's inputs.
        settings: what to do to it.
        patch: smallest size of the result in voxels (x, y, z).
        path: the .npy file to write, (channel, x, y, z).

    Returns:
        What ``restore`` and ``to_scanner`` need.

    Raises:
        InputError: as ``preprocess_case``.
    """
    scan = _read(channels, None, path.parent)
    geometry = dict(scan.geometry)
    volumes, _ = _crop_to_ras(scan, settings.crop, geometry)
    del scan
    new = _resampled_shape(settings, geometry)
    _set_padding(patch, geometry)
    _save_image(path, volumes, new, settings, geometry)
    return geometry


def _below(root: Path, source: Source) -> Source:
    return Source(root / source.file, source.component)


def _save(path: Path, array: Array) -> str:
    """Write an array; returns the file's SHA-256, taken while the system still has it in memory."""
    with files.whole(path) as temporary:
        np.save(temporary, np.ascontiguousarray(array))
        return files.sha256(temporary)


def _save_image(
    path: Path,
    volumes: list[Array],
    shape: list[int] | None,
    settings: Preprocess,
    geometry: Geometry,
) -> str:
    """Write the image (channel, x, y, z) a channel at a time: memory holds one of them only.

    Args:
        path: the .npy file.
        volumes: the cropped channels in RAS; emptied on the way.
        shape: voxels to resample to, if any.
        settings: the study's preprocessing.
        geometry: the case's, with shape and padding.

    Returns:
        The file's SHA-256.
    """
    kind = np.dtype(settings.storage)
    header = {
        "descr": np.lib.format.dtype_to_descr(kind),
        "fortran_order": False,
        "shape": (len(volumes), *geometry["shape"]),
    }
    with files.whole(path) as temporary:
        with temporary.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            while volumes:
                channel = _prepared(volumes.pop(0), shape, settings)
                if any(map(any, geometry["padding"])):
                    channel = np.pad(channel, geometry["padding"])
                stream.write(channel.astype(kind, copy=False).data)
        return files.sha256(temporary)


@dataclass
class _Scan:
    """Volumes as stored, on the first channel's grid.

    Attributes:
        volumes: the channels (x, y, z), in the files' own types.
        label: the label map (x, y, z), if there is one.
        occupied: where a channel or the label map is not 0 (x, y, z).
        geometry: what is known of the case so far.
    """

    volumes: list[Array]
    label: Array | None
    occupied: Array
    geometry: Geometry


def _read(channels: Mapping[str, Source], label: Source | None, folder: Path) -> _Scan:
    """Read a case; large channels wait on the disk, in ``folder``, until they are used."""
    volumes: list[Array] = []
    first, occupied = None, np.zeros((1, 1, 1), bool)
    for source, stored in zip(channels.values(), read_volumes(channels.values()), strict=True):
        data = stored.data if first is None else _aligned(source, stored, first).data
        occupied = data != 0 if first is None else np.logical_or(occupied, data, occupied)
        volumes.append(_parked(data, folder))
        first = first or replace(stored, data=volumes[0])
        del stored, data
    assert first is not None, "a case has at least one channel"
    truth = None if label is None else _aligned(label, read_label(label), first).data
    if truth is not None:
        np.logical_or(occupied, truth, occupied)
    orientation = nib.orientations.io_orientation(first.affine)
    shape = [int(side) for side in occupied.shape]
    affine = first.affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    geometry: Geometry = {
        "channels": list(channels),
        "original_shape": shape,
        "original_affine": np.asarray(first.affine, np.float64).tolist(),
        "orientation": [[int(axis), int(flip)] for axis, flip in orientation],
        "ras_affine": np.asarray(affine, np.float64).tolist(),
        "spacing_before": [float(side) for side in nib.affines.voxel_sizes(affine)],
    }
    return _Scan(volumes, truth, occupied, geometry)


def _parked(volume: Array, folder: Path) -> Array:
    """A large volume out of memory: in a file without a name, which goes with the array."""
    if volume.nbytes < PARKED_BYTES:
        return volume
    folder.mkdir(parents=True, exist_ok=True)
    with files.writable(folder), tempfile.TemporaryFile(dir=folder) as stream:
        # As files mostly have it, so that nothing is copied: the first axis is the fastest.
        order: Literal["C", "F"] = "C" if volume.flags.c_contiguous else "F"
        volume.ravel(order=order).tofile(stream)
        return np.memmap(stream, volume.dtype, "r", shape=volume.shape, order=order)


def _aligned(source: Source, volume: Volume, first: Volume) -> Volume:
    try:
        return align(volume, first)[0]
    except GridMismatch as difference:
        raise InputError(
            source.file,
            f"has {difference}; the case's volumes have different sizes or places",
            "channels and label on one grid",
            "register the case's volumes to one another",
        ) from difference


def _crop_to_ras(scan: _Scan, crop: bool, geometry: Geometry) -> tuple[list[Array], Array | None]:
    """Crop to the box around voxels that are not 0 in some channel or are labelled; turn to RAS.

    In this order, and as views: looking for the box along flipped axes takes three times as long.
    """
    orientation = np.array(geometry["orientation"])
    shape = scan.occupied.shape
    box = _box(scan.occupied) if crop else [(0, side) for side in shape]
    window = tuple(slice(start, stop) for start, stop in box)
    turned = [((0, 0), 0)] * 3
    for (start, stop), side, (axis, flip) in zip(box, shape, orientation, strict=True):
        turned[axis] = ((start, stop) if flip == 1 else (side - stop, side - start), side)
    geometry["crop"] = [list(side) for side, _ in turned]
    geometry["native_shape"] = [stop - start for (start, stop), _ in turned]
    geometry["ras_shape"] = [side for _, side in turned]

    def cropped(volume: Array) -> Array:
        return nib.orientations.apply_orientation(volume[window], orientation)

    label = None if scan.label is None else cropped(scan.label)
    volumes = [cropped(volume) for volume in scan.volumes]
    # What is left of a channel goes once it is written.
    scan.volumes.clear()
    return volumes, label


def _box(occupied: Array) -> list[tuple[int, int]]:
    """First and last + 1 voxel of each axis that is True somewhere; everything if none is."""
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(occupied.any(axis=others))
        if not len(places):
            return [(0, side) for side in occupied.shape]
        sides.append((int(places[0]), int(places[-1]) + 1))
    return sides


def _resampled_shape(settings: Preprocess, geometry: Geometry) -> list[int] | None:
    """Voxels (x, y, z) at the study's spacing, or None where nothing is to be resampled."""
    before, old = geometry["spacing_before"], geometry["native_shape"]
    after = before if settings.spacing is None else settings.spacing
    new = resampled_shape(after, before, old)
    geometry["resampled_shape"] = new
    geometry["spacing_after"] = [float(b * o / n) for b, o, n in zip(before, old, new, strict=True)]
    return None if new == old else new


def resampled_shape(
    after: Sequence[float], before: Sequence[float], old: Sequence[int]
) -> list[int]:
    """Voxels (x, y, z) after resampling; as before where voxel sizes agree.

    Args:
        after: wanted voxel size in mm (x, y, z).
        before: voxel size in mm.
        old: voxels before.
    """
    if (np.abs(np.array(after) / np.array(before) - 1) <= SPACING_TOLERANCE).all():
        return list(old)
    return [max(1, round(n * b / a)) for n, b, a in zip(old, before, after, strict=True)]


def _prepared(channel: Array, shape: list[int] | None, settings: Preprocess) -> Array:
    """One channel as the network sees it: converted only once it is cropped."""
    voxels = channel.astype(np.float32, order="C")
    if shape is not None:
        voxels = resample_image(voxels, shape, settings.normalisation == "zscore-nonzero")
    return normalise(voxels, settings.normalisation)


def _set_padding(patch: list[int], geometry: Geometry) -> None:
    """Note what is to be padded with zeros to the patch's size, half of it on either side."""
    sides = geometry["resampled_shape"]
    missing = [max(0, side - have) for side, have in zip(patch, sides, strict=True)]
    geometry["padding"] = [[side // 2, side - side // 2] for side in missing]
    geometry["shape"] = [have + side for have, side in zip(sides, missing, strict=True)]


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
