"""From scanner files to arrays to train on, and back into the scanner's geometry."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np

from voxelsoup.common import files
from voxelsoup.common.errors import InputError
from voxelsoup.common.machine import in_processes
from voxelsoup.data.case import IndexedCase, Source, with_missing
from voxelsoup.data.preprocessing.crop import (
    Box,
    Crop,
    box_of,
    common_box,
    cropped,
    everything,
    uncropped,
)
from voxelsoup.data.preprocessing.geometry import Array, Geometry
from voxelsoup.data.preprocessing.intensities import measure, measured_file
from voxelsoup.data.preprocessing.normalise import KEEPS_ZEROS, normalise
from voxelsoup.data.preprocessing.raters import consensus
from voxelsoup.data.preprocessing.resample import (
    across_slices,
    resample_image,
    resample_label,
    resampled_shape,
)
from voxelsoup.data.volumes.alignment import align
from voxelsoup.data.volumes.volume import Volume, joint_hash, read_header, read_label, read_volumes
from voxelsoup.study.sections.data import Normalisation, Preprocess

# Part of the fingerprint: to be raised whenever the arrays come out differently.
VERSION = 2
FOREGROUND_VOXELS = 1000
NONE_MISSING: Mapping[str, int] = MappingProxyType({})
NONE_HIDDEN: Mapping[str, Sequence[str]] = MappingProxyType({})


def preprocess_all(
    cases: Sequence[IndexedCase],
    root: Path,
    settings: Preprocess,
    patch: list[int],
    folder: Path,
    manifest: Path,
    workers: int,
    ignored: int | None = None,
    not_annotated: Mapping[str, Sequence[str]] = NONE_HIDDEN,
) -> None:
    """Preprocess the cases that have changed, and list all of them.

    Args:
        root: folder that the cases' files are relative to.
        patch: smallest size of the result in voxels (x, y, z).
        folder: where the arrays go.
        manifest: the table ``case fingerprint`` to write.
        workers: processes; 1 works in this process.
        ignored: label value of voxels that nobody annotated.
        not_annotated: case -> regions that nobody annotated in it. No array depends on them, but
            what is trained and scored on the case does: they are part of what the manifest lists.

    Raises InputError if a case's file is unusable; cases that are done stay done.
    """
    todo = [
        case
        for case in cases
        if not _is_current(folder, case.name, fingerprint(case, settings, patch, ignored))
    ]
    work = partial(
        preprocess_case,
        root=root,
        settings=settings,
        patch=patch,
        folder=folder,
        threads=workers // max(1, min(workers, len(todo))),
        ignored=ignored,
    )
    list(in_processes(work, workers, todo))
    lines = sorted(
        f"{case.name}\t{_listed(fingerprint(case, settings, patch, ignored), hidden)}\n"
        for case in cases
        for hidden in [not_annotated.get(case.name, ())]
    )
    files.write_text(manifest, "case\tfingerprint\n" + "".join(lines))


def _listed(fingerprint: str, not_annotated: Sequence[str]) -> str:
    """A case in the manifest: the fingerprint of its arrays alone where all is annotated."""
    if not not_annotated:
        return fingerprint
    content = {"fingerprint": fingerprint, "not_annotated": sorted(not_annotated)}
    return files.json_sha256(content)


def _is_current(folder: Path, name: str, current: str) -> bool:
    try:
        geometry = files.read_json(folder / f"{name}.json")
    except (OSError, ValueError):
        return False
    if not isinstance(geometry, dict) or geometry.get("fingerprint") != current:
        return False
    parts = ["image", "label", "foreground"] + (["truth"] if geometry["has_truth"] else [])
    # Where no scheme depends on the fold, nothing is said of what was measured.
    parts += ["intensities"] if geometry.get("measured") else []
    return all((folder / f"{name}.{part}.npy").is_file() for part in parts)


def fingerprint(
    case: IndexedCase, settings: Preprocess, patch: list[int], ignored: int | None = None
) -> str:
    """SHA-256 (hex) over everything that a case's arrays depend on."""
    content = {
        "version": VERSION,
        "case": case.name,
        "sha256": case.sha256,
        "settings": settings.model_dump(mode="json"),
        "patch": list(patch),
        "channels": with_missing(case.channels, case.missing),
        **({} if ignored is None else {"ignored": ignored}),
        **({"missing": list(case.missing)} if case.missing else {}),
        **({"raters": case.accepted["raters"]} if case.consensus else {}),
    }
    places = [source.component for source in case.channels.values()]
    if places != list(range(len(places))) and any(place is not None for place in places):
        # The hash of a 4D file does not depend on which of its volumes are taken.
        content["components"] = places
    return files.json_sha256(content)


def preprocess_case(
    case: IndexedCase,
    root: Path,
    settings: Preprocess,
    patch: list[int],
    folder: Path,
    threads: int = 1,
    ignored: int | None = None,
) -> str:
    """Turn one case into arrays: RAS, cropped, resampled, normalised, padded to the patch.

    Writes ``{case}.image.npy``, ``.label.npy``, ``.truth.npy`` (only where resampled),
    ``.foreground.npy`` and, last, ``.json`` into ``folder``. ``threads`` channels are worked on at
    once; with several, one more is held in memory. Voxels of the value ``ignored`` do not
    widen the crop. Returns the case's fingerprint.

    Raises:
        InputError: if a file is unusable or has changed since the index saw it, or if the files
            do not lie on one grid.
    """
    channels = {name: source.below(root) for name, source in case.channels.items()}
    label_source = case.label.below(root) if case.label else None
    with ThreadPoolExecutor(threads) as pool:
        scan = _read(
            channels,
            label_source,
            settings.crop,
            folder,
            pool,
            ignored,
            case.missing,
            nan_as_background="nan" in case.accepted,
            by_voxels="placement" in case.accepted,
            raters=case.consensus
            and (case.consensus[0], [s.below(root) for s in case.consensus[1]]),
        )
        _check_unchanged(case, root, scan.hashes)
        geometry = {"case": case.name, **scan.geometry}
        volumes, native_label = _turned_to_ras(scan, geometry)
        shape = _resampled_shape(settings, geometry)
        _set_padding(patch, geometry)
        geometry["labelled"] = case.label is not None
        geometry["has_truth"] = shape is not None and case.label is not None
        geometry["sha256"] = case.sha256
        geometry["fingerprint"] = fingerprint(case, settings, patch, ignored)

        # While the arrays are replaced, there must be no JSON for them.
        (folder / f"{case.name}.json").unlink(missing_ok=True)
        (folder / f"{case.name}.truth.npy").unlink(missing_ok=True)
        _measure(volumes, native_label, settings, geometry, folder)
        parts = ["label", "foreground", *(["truth"] if geometry["has_truth"] else [])]
        names = ["image.npy", *(f"{part}.npy" for part in parts), "json"]
        paths = [folder / f"{case.name}.{name}" for name in names]
        with files.atomic_write_files(paths) as (image, *others, record):
            labels = pool.submit(_save_labels, others, native_label, shape, settings, geometry)
            _save_image(image, volumes, shape, settings, geometry, pool, threads, durable=True)
            labels.result()
            record.write_text(files.json_text(geometry), encoding="utf-8")
    return str(geometry["fingerprint"])


def _measure(
    volumes: list[Array], label: Array, settings: Preprocess, geometry: Geometry, folder: Path
) -> None:
    """Write the labelled intensities of channels whose normalisation depends on the fold."""
    names = geometry["channels"]
    by_fold = settings.by_fold(names)
    if not by_fold:
        return
    rows = measure(((names.index(name), volumes[names.index(name)]) for name in by_fold), label)
    path = measured_file(folder, geometry["case"])
    with files.atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, rows)
    geometry["measured"] = True


def preprocess_image(
    channels: Mapping[str, Source],
    settings: Preprocess,
    patch: list[int],
    path: Path,
    missing: Mapping[str, int] = NONE_MISSING,
    nan_as_background: bool = False,
    by_voxels: bool = False,
) -> Geometry:
    """Turn a case into an array as ``preprocess_case`` does, without a label map.

    Args:
        channels: channel name -> where its volume lies, in the order of the network's inputs.
        path: the .npy file to write, (channel, x, y, z).
        missing: channel without a volume, which is filled with zeros -> its place among all.
        nan_as_background: read voxels that are NaN as 0.
        by_voxels: where headers place channels of one shape elsewhere, take them as they are.

    Returns:
        The geometry that ``restore`` and ``to_scanner`` need.
    """
    with ThreadPoolExecutor(1) as pool:
        scan = _read(
            channels,
            None,
            settings.crop,
            path.parent,
            pool,
            missing=missing,
            nan_as_background=nan_as_background,
            by_voxels=by_voxels,
        )
        geometry = dict(scan.geometry)
        volumes, _ = _turned_to_ras(scan, geometry)
        shape = _resampled_shape(settings, geometry)
        _set_padding(patch, geometry)
        _save_image(path, volumes, shape, settings, geometry, pool, 1, durable=False)
    return geometry


def _save_labels(
    paths: list[Path],
    native: Array,
    shape: list[int] | None,
    settings: Preprocess,
    geometry: Geometry,
) -> None:
    """Write label map and foreground, and the label map as it was where it is resampled."""
    across = across_slices(settings.thick_slices, geometry["spacing_before"], settings.spacing)
    label = native if shape is None else resample_label(native, shape, across)
    label = np.pad(label, geometry["padding"])
    arrays = [label, _foreground(label, geometry["case"]), native]
    for path, array in zip(paths, arrays, strict=False):
        np.save(path, np.ascontiguousarray(array))


def _save_image(
    path: Path,
    channels: list[Array],
    shape: list[int] | None,
    settings: Preprocess,
    geometry: Geometry,
    pool: ThreadPoolExecutor,
    threads: int,
    durable: bool,
) -> None:
    """Write the image (channel, x, y, z), a channel at a time, while the next ones are prepared.

    ``channels`` (cropped, in RAS) is emptied meanwhile, and resampled to ``shape`` if there is
    one. ``durable``: each channel is flushed to the disk while the next ones are prepared.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(settings.storage)),
        "fortran_order": False,
        "shape": (len(channels), *geometry["shape"]),
    }
    prepare = partial(_prepared, shape=shape, settings=settings, geometry=geometry)
    schemes = [settings.scheme_of(name) for name in geometry["channels"]]
    ahead: deque[Future[Array]] = deque()
    flushes: list[Future[None]] = []
    with path.open("wb") as stream, ThreadPoolExecutor(1) as flushing:
        np.lib.format.write_array_header_1_0(stream, header)
        while channels or ahead:
            while channels and len(ahead) < threads:
                ahead.append(pool.submit(prepare, channels.pop(0), schemes.pop(0)))
            channel = ahead.popleft().result()
            if channels and threads > 1:
                # No thread waits while this one is written.
                ahead.append(pool.submit(prepare, channels.pop(0), schemes.pop(0)))
            stream.write(channel.data)
            del channel
            stream.flush()
            if durable:
                # In the end all of it is flushed; by then, little is left to wait for.
                flushes.append(flushing.submit(os.fsync, stream.fileno()))
        for flush in flushes:
            flush.result()


@dataclass
class _Scan:
    """A case as read: in the files' own types, on the first channel's grid.

    ``labelled`` is the box around what is labelled in ``label``, which reaches beyond it where
    voxels around it are ignored; ``hashes``: file -> SHA-256 (hex) of its bytes.
    """

    channels: list[Crop]
    label: Crop
    labelled: Box | None
    geometry: Geometry
    hashes: dict[Path, str]


def _read(
    channels: Mapping[str, Source],
    label: Source | None,
    crop: bool,
    folder: Path,
    pool: ThreadPoolExecutor,
    ignored: int | None = None,
    missing: Mapping[str, int] = NONE_MISSING,
    nan_as_background: bool = False,
    by_voxels: bool = False,
    raters: tuple[str, list[Source]] | None = None,
) -> _Scan:
    """Read a case; large volumes wait on the disk, in ``folder``, until they are used."""
    by_file = [list(group) for _, group in groupby(channels.values(), lambda source: source.file)]
    first = next(iter(channels.values()))
    header = read_header(first)
    shape, affine = header.shape[:3], header.affine
    grid = Volume(np.broadcast_to(np.uint8(0), shape), affine, forms=header.forms)
    on_grid = partial(align, reference=grid, first=first.file, by_voxels=by_voxels)
    read = partial(_crops, crop=crop, on_grid=on_grid, folder=folder, nan=nan_as_background)
    reading = pool.map(read, by_file)
    shown, hashes = Crop(np.zeros((0, 0, 0), np.uint8), None), {}
    labelled: Box | None = None
    if label is not None:
        stored = read_label(label)
        hashes[label.file] = stored.sha256
        values = on_grid(stored, file=label.file)[0].data
        if raters is not None:
            others = [read_label(source) for source in raters[1]]
            hashes |= {s.file: one.sha256 for s, one in zip(raters[1], others, strict=True)}
            turned = [
                on_grid(one, file=source.file)[0].data
                for source, one in zip(raters[1], others, strict=True)
            ]
            values = consensus([values, *turned], raters[0])
        shown = cropped(values)
        # Where nothing is known, nothing is kept that a scan without labels would not have.
        labelled = shown.box if ignored is None else box_of((values != 0) & (values != ignored))
        del stored, values
    crops, of_channels = [], {}
    for (source, *_), (found, digest) in zip(by_file, reading, strict=True):
        crops += found
        of_channels[source.file] = digest
    for place in sorted(missing.values()):
        crops.insert(place, Crop(np.zeros((0, 0, 0), np.uint8), None))
    orientation = nib.orientations.io_orientation(affine)
    ras_affine = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    geometry: Geometry = {
        "channels": with_missing(channels, missing),
        "original_shape": [int(side) for side in shape],
        "original_affine": np.asarray(affine, np.float64).tolist(),
        "orientation": [[int(axis), int(flip)] for axis, flip in orientation],
        "ras_affine": np.asarray(ras_affine, np.float64).tolist(),
        "spacing_before": [float(side) for side in nib.affines.voxel_sizes(ras_affine)],
    }
    return _Scan(crops, shown, labelled, geometry, of_channels | hashes)


def _crops(
    sources: list[Source],
    crop: bool,
    on_grid: Callable[..., tuple[Volume, str | None]],
    folder: Path,
    nan: bool,
) -> tuple[list[Crop], str]:
    """The volumes of one file, cropped if wanted, and the file's hash.

    ``on_grid`` turns a volume onto the grid of the case (``align``).
    """
    volumes = read_volumes(sources, nan)
    crops, digest = [], ""
    # Not by zip, which would keep each volume until the next one is read.
    for source in sources:
        volume = next(volumes)
        digest = volume.sha256
        data = on_grid(volume, file=source.file)[0].data
        del volume
        crops.append((cropped(data) if crop else uncropped(data)).parked(folder))
        del data
    return crops, digest


def _check_unchanged(case: IndexedCase, root: Path, hashes: dict[Path, str]) -> None:
    """Refuse files that have changed since the index checked them."""
    if case.sha256 and joint_hash(hashes.values()) != case.sha256:
        raise InputError(
            root / next(iter(case.channels.values())).file.parent,
            f"holds files of case {case.name} that have changed since the index checked them",
            "the same files from the index to preprocessing",
            "start again once nothing writes into the data set's folder: the index will check "
            "the case again",
        )


def _turned_to_ras(scan: _Scan, geometry: Geometry) -> tuple[list[Array], Array]:
    """Crop all to one box, around what is not 0 in some channel or is labelled; turn to RAS.

    Returns channels and label map (x, y, z), and adds the crop to ``geometry``. Channels are taken
    out of ``scan``, so that each goes once it is written.
    """
    shape = geometry["original_shape"]
    orientation = np.array(geometry["orientation"])
    box = common_box([*(crop.box for crop in scan.channels), scan.labelled]) or everything(shape)
    turned = [((0, 0), 0)] * 3
    for (start, stop), side, (axis, flip) in zip(box, shape, orientation, strict=True):
        turned[axis] = ((start, stop) if flip == 1 else (side - stop, side - start), side)
    geometry["crop"] = [list(side) for side, _ in turned]
    geometry["native_shape"] = [stop - start for (start, stop), _ in turned]
    geometry["ras_shape"] = [side for _, side in turned]
    volumes = [
        nib.orientations.apply_orientation(crop.within(box), orientation)
        for crop in (*scan.channels, scan.label)
    ]
    scan.channels.clear()
    return volumes[:-1], volumes[-1]


def _resampled_shape(settings: Preprocess, geometry: Geometry) -> list[int] | None:
    """Voxels (x, y, z) at the study's spacing, or None where nothing is to be resampled."""
    before, old = geometry["spacing_before"], geometry["native_shape"]
    new = resampled_shape(settings.spacing or before, before, old)
    geometry["resampled_shape"] = new
    geometry["spacing_after"] = [b * o / n for b, o, n in zip(before, old, new, strict=True)]
    return None if new == old else new


def _prepared(
    channel: Array,
    scheme: Normalisation,
    shape: list[int] | None,
    settings: Preprocess,
    geometry: Geometry,
) -> Array:
    """One channel as it is stored; only what is left of it after cropping is converted."""
    voxels = channel.astype(np.float32, order="C")
    if shape is not None:
        across = across_slices(settings.thick_slices, geometry["spacing_before"], settings.spacing)
        keep_zeros = scheme in KEEPS_ZEROS
        voxels = resample_image(voxels, shape, keep_zeros, across)
    if voxels.any():
        # A channel that is 0 everywhere may be a missing one, and stays 0.
        voxels = normalise(voxels, scheme)
    if any(map(any, geometry["padding"])):
        voxels = np.pad(voxels, geometry["padding"])
    return voxels.astype(settings.storage, copy=False)


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
