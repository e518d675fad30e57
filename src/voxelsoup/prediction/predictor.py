"""One case from the scanner's files to a label map in the scanner's own grid.

In memory are one channel of the scan while it is prepared, and afterwards what the windows of one
patch's depth reach, and the label map (one byte per voxel); all else lies on the disk.
"""

from __future__ import annotations

import gzip
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import atomic_write, writable
from voxelsoup.data.case import Source
from voxelsoup.data.preprocessing.geometry import Geometry, restore_rows, to_scanner
from voxelsoup.data.preprocessing.intensities import rescale
from voxelsoup.data.preprocessing.preprocess import NONE_MISSING, preprocess_image
from voxelsoup.data.regions import LabelOrder, check_label_order, label_order, to_labels
from voxelsoup.data.volumes.nifti import label_header
from voxelsoup.data.volumes.volume import read_header, write_volume
from voxelsoup.data.volumes.voxel_layout import VoxelLayout
from voxelsoup.evaluation.postprocessing import Postprocessing
from voxelsoup.evaluation.sliding_window import Covered, Network, Windows, predict_rows
from voxelsoup.models import devices, weight_files
from voxelsoup.prediction.model_files import Description, ModelFile
from voxelsoup.study.sections.data import Accept
from voxelsoup.study.sections.training import ALL_AXES, Axis, PrecisionName

THRESHOLD = 0.5
# Probabilities are noise to a packer: more effort would save little.
PACKING = 1
# 512 x 512 x 800 voxels in 64 pieces.
SLICES = 13

Rows = Iterator[NDArray[np.float32]]


@dataclass(frozen=True)
class PredictionSettings:
    """How models are applied to a case.

    Attributes:
        models: their probabilities are averaged; alike but for their networks.
        order: how regions become label values.
        overlap: of neighbouring windows, as a share of the patch.
        window_batch: windows that go through a network at once.
        flips: average over the image and its mirror images along the axes along which all models
            were trained on mirror images (of x, y and z 8 in all).
        every_window: also those outside of the foreground, where the image is 0.
        postprocessing: what is done to the probabilities; None: voxels above 0.5.
        accept: findings that are accepted in a scan (NaN, a missing channel).
    """

    models: Sequence[ModelFile]
    order: LabelOrder
    overlap: float = 0.5
    window_batch: int = 1
    flips: bool = False
    every_window: bool = False
    precision: PrecisionName = "float32"
    postprocessing: Postprocessing | None = None
    accept: Accept = field(default_factory=Accept)

    @property
    def description(self) -> Description:
        """What the models have in common."""
        return self.models[0].description

    @property
    def flip_axes(self) -> list[Axis]:
        """The axes of ``flips``: those that no model leaves out."""
        trained = [model.description.mirror_axes for model in self.models]
        return [axis for axis in ALL_AXES if self.flips and all(axis in axes for axes in trained)]

    @property
    def mirrored(self) -> list[tuple[int, ...]]:
        """The axes along which the image is mirrored, for each time that it is predicted."""
        axes = [ALL_AXES.index(axis) for axis in self.flip_axes]
        counts = range(len(axes) + 1)
        return [some for count in counts for some in itertools.combinations(axes, count)]

    def as_record(self) -> dict[str, Any]:
        """All that a prediction depends on besides the scan."""
        chosen = self.postprocessing
        return {
            "models": [model.sha256 for model in self.models],
            "label_order": self.order,
            "overlap": self.overlap,
            "flips": self.flips,
            "every_window": self.every_window,
            "precision": self.precision,
            "postprocessing": None if chosen is None else chosen.as_record(),
            # Only where something is: other records stay what they were.
            **({} if self.accept == Accept() else {"accept": self.accept.model_dump(mode="json")}),
        }


def order_of(
    models: Sequence[ModelFile], stated: Mapping[str, int] | None, where: str
) -> LabelOrder:
    """How the models' regions become label values: as stated by the user, or else by a bundle.

    Raises InputError if the order is not certain, or what is stated at ``where`` is not one.
    """
    regions = models[0].description.regions
    if stated is not None:
        return check_label_order(stated, regions, where)
    return models[0].label_order or label_order(regions, str(models[0].path))


def shared_postprocessing(files: Sequence[ModelFile]) -> Postprocessing:
    """The post-processing that all models share; raises InputError if there is none."""
    first, *others = [file.read_postprocessing() for file in files]
    for file, other in zip(files[1:], others, strict=True):
        if other != first:
            raise InputError(
                file.postprocessing or file.path,
                f"is another post-processing than {files[0].postprocessing}",
                "one post-processing for all models that are averaged",
                "leave --postprocess out, or predict with the models of one fold",
            )
    return first


@dataclass(frozen=True)
class Predicted:
    """A predicted case: windows of one model and one mirror image, those of them that were skipped
    outside of the foreground, and label value -> number of its voxels, without 0.
    """

    windows: int
    skipped: int
    voxels: dict[int, int]


class Predictor:
    """Predicts one case after the other; keeps one network in memory."""

    def __init__(self, settings: PredictionSettings, device: torch.device, scratch: Path) -> None:
        """``scratch`` is a folder for what does not stay in memory."""
        self.settings, self.device, self.scratch = settings, device, scratch
        self._fitted: tuple[ModelFile, nn.Module] | None = None

    def predict(
        self,
        channels: Mapping[str, Source],
        labels: Path,
        probabilities: Path | None = None,
        report: Callable[[float], None] = lambda share: None,
        missing: Mapping[str, int] = NONE_MISSING,
    ) -> Predicted:
        """Predict a case, and write it.

        Args:
            channels: channel name -> its volume, in the order of the network's inputs.
            labels: the label map to write (.nii.gz): uint8, in the shape and orientation of the
                first channel's file, with what places it in that file's header.
            probabilities: a file for the probabilities as well (.nii.gz): float32
                (x, y, z, region), in the same grid, 0 outside of the box around the foreground.
            report: is called with the share of the case that is done.
            missing: channel to be filled with zeros -> its place among the network's inputs.

        Raises InputError if a file of the case is unusable, a missing channel cannot be filled, or
        nothing can be written.
        """
        model = self.settings.description
        if by_fold := [
            name for name in model.preprocess.by_fold(model.channels) if name in missing
        ]:
            raise InputError(
                f"channel {by_fold[0]}",
                "is missing, and the model normalises it by constants of its training cases (`ct`)",
                "a scan of every channel: nothing that is filled in would be 0 to this model",
                "give the channel's scan",
            )
        scan = read_header(next(iter(channels.values())))
        with writable(self.scratch), tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            image = Path(folder, "image.npy")
            # Volumes of many sizes first, then windows of one.
            devices.keep_freed_memory(False)
            accept = self.settings.accept
            geometry = preprocess_image(
                channels,
                model.preprocess,
                model.patch,
                image,
                missing,
                nan_as_background=accept.nan is not None,
                by_voxels=accept.placement is not None,
            )
            devices.keep_freed_memory(self.device.type == "cpu")
            covered: list[Covered] = []
            rows = restore_rows(self._mean_rows(image, geometry, covered, report), geometry)
            kept = (
                None if probabilities is None else _Kept(Path(folder), geometry, len(model.regions))
            )
            volume = self._label_map(rows, geometry, kept)
            if kept is not None and probabilities is not None:
                kept.write(probabilities, scan)
        # The label map last: where it is, all of the case is there.
        with atomic_write(labels) as temporary:
            write_volume(temporary, to_scanner(volume, geometry), scan)
        counts = np.bincount(volume.ravel(), minlength=256)
        voxels = {int(value): int(counts[value]) for value in np.flatnonzero(counts) if value}
        return Predicted(covered[-1].total, covered[-1].skipped, voxels)

    def _label_map(self, rows: Rows, geometry: Geometry, kept: _Kept | None) -> NDArray[np.uint8]:
        """The label map (x, y, z) at native spacing in the RAS crop."""
        regions, chosen = list(self.settings.description.regions), self.settings.postprocessing
        shape = geometry["native_shape"]
        # Components reach through the volume: only they ask for all regions at once.
        masks = np.zeros((len(regions) if chosen else 0, *shape), bool)
        volume = np.zeros((0 if chosen else shape[0], *shape[1:]), np.uint8)
        row = 0
        for piece in rows:
            stop = row + piece.shape[1]
            if chosen:
                masks[:, row:stop] = chosen.above(piece)
            else:
                volume[row:stop] = to_labels(piece > THRESHOLD, regions, self.settings.order)
            if kept is not None:
                kept.add(row, piece)
            row = stop
        if chosen:
            return to_labels(
                chosen.clean(masks, geometry["spacing_before"]), regions, self.settings.order
            )
        return volume

    def _mean_rows(
        self,
        image: Path,
        geometry: Geometry,
        covered: list[Covered],
        report: Callable[[float], None],
    ) -> Rows:
        """Mean probabilities (region, rows, y, z) on the preprocessed grid, row by row.

        One model and one mirror image after the other; sums lie on the disk meanwhile.
        """
        how, shared = self.settings, self.settings.description
        windows = Windows(shared.patch, how.overlap, how.window_batch, how.every_window)
        turns = [(model, axes) for model in how.models for axes in how.mirrored]

        def note(now: Covered) -> None:
            covered[:] = [now]
            report((number + now.windows / now.total) / len(turns))

        with tempfile.TemporaryFile(dir=image.parent) as sums:
            for number, (model, axes) in enumerate(turns):
                network = self._applied(model, axes)
                found = predict_rows(
                    network,
                    len(shared.regions),
                    partial(self._read, image, model.description),
                    geometry["shape"],
                    windows,
                    note,
                )
                # Rows come in the same pieces each time.
                sums.seek(0)
                for _, logits in found:
                    probabilities = logits.sigmoid_().cpu().numpy()
                    self._check_numbers(probabilities, model)
                    place = sums.tell()
                    if number:
                        stored = np.frombuffer(sums.read(probabilities.nbytes), np.float32)
                        probabilities += stored.reshape(probabilities.shape)
                    if number == len(turns) - 1:
                        probabilities /= len(turns)
                        yield probabilities
                    else:
                        sums.seek(place)
                        sums.write(np.ascontiguousarray(probabilities).data)

    def _check_numbers(self, probabilities: NDArray[np.float32], model: ModelFile) -> None:
        """Refuse NaN, which is above no threshold and would count as background."""
        # The minimum of anything with a NaN is NaN; a mask as large as the rows is not needed.
        if np.isnan(probabilities.min(initial=0)):
            raise InputError(
                model.path,
                f"gives NaN as probabilities, in {self.settings.precision}",
                "finite numbers at every voxel",
                "predict with --precision float32 (`training.precision` of a study), or leave "
                "the model out",
            )

    def _read(self, image: Path, model: Description, start: int, stop: int) -> torch.Tensor:
        # Opened each time: pages that were read count as this process's memory until it is closed.
        rows = np.load(image, mmap_mode="c")[:, start:stop]
        # Averaged models of several folds have constants of their own.
        constants = model.preprocess.constants(model.channels)
        if any(constants):
            rows = rows.astype(np.float32)
            rescale(rows, constants)
        return torch.from_numpy(rows).to(self.device).float()

    def _applied(self, model: ModelFile, axes: tuple[int, ...]) -> Network:
        """A model applied to mirrored windows, its logits mirrored back."""
        network = self._network(model)
        # Behind window and channel.
        dimensions = [axis + 2 for axis in axes]

        def apply(windows: torch.Tensor) -> torch.Tensor:
            with devices.autocast(self.device, self.settings.precision):
                logits: torch.Tensor = network(windows.flip(dimensions))
            return logits.flip(dimensions)

        return apply

    def _network(self, model: ModelFile) -> nn.Module:
        if self._fitted is not None and self._fitted[0] != model:
            before, network = self._fitted
            self._fitted = None
            if before.description.network == model.description.network:
                weight_files.fit(network, weight_files.load(model.path)[0], model.path)
                self._fitted = model, network
        self._fitted = self._fitted or (model, model.build(self.device))
        return self._fitted[1]


class _Kept:
    """Probabilities of a case on the disk, until they are written in the scanner's grid."""

    def __init__(self, folder: Path, geometry: Geometry, regions: int) -> None:
        self.path, self.geometry, self.regions = folder / "probabilities", geometry, regions
        self.path.touch()

    def add(self, row: int, piece: NDArray[np.float32]) -> None:
        """Keep rows (region, rows, y, z) from ``row`` on."""
        rows, y, z = self.geometry["native_shape"]
        with self.path.open("r+b") as stream:
            for number, region in enumerate(piece):
                stream.seek((number * rows + row) * y * z * 4)
                stream.write(np.ascontiguousarray(region, np.float32).data)

    def write(self, path: Path, scan: VoxelLayout) -> None:
        """Write all of them as NIfTI, float32 (x, y, z, region), a region at a time, in the place
        of the scan.
        """
        shape = self.geometry["native_shape"]
        sides = (*self.geometry["original_shape"], self.regions)
        header = label_header(sides, np.dtype(np.float32), scan)
        header["vox_offset"] = header.sizeof_hdr + 4
        header["magic"] = header.single_magic
        with (
            self.path.open("rb") as kept,
            atomic_write(path) as temporary,
            temporary.open("wb") as stream,
            gzip.GzipFile("", "wb", PACKING, stream, mtime=0) as packed,
        ):
            packed.write(header.binaryblock + bytes(4))
            for _ in range(self.regions):
                region = np.fromfile(kept, np.float32, int(np.prod(shape))).reshape(shape)
                volume = to_scanner(region, self.geometry)
                for z in range(0, volume.shape[2], SLICES):
                    packed.write(volume[:, :, z : z + SLICES].tobytes(order="F"))
