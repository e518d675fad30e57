"""voxelsoup's resampling as a MONAI transform, for the configuration of a bundle.

MONAI's own resampling keeps the first and last voxels' centres or rounds shapes differently,
and lets splines ring into the background: the network would see other voxels than in training.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

from voxelsoup.data.preprocessing.geometry import Array
from voxelsoup.data.preprocessing.normalise import normalise
from voxelsoup.data.preprocessing.resample import (
    across_slices,
    resample_image,
    resample_probabilities,
    resampled_shape,
)
from voxelsoup.study.sections.data import Normalisation, ThickSlices


class ResampleToSpacing(InvertibleTransform):
    """Resample an image (channel, x, y, z) to a voxel size in mm (x, y, z).

    With ``keep_zeros`` (of all channels, or of each), voxels that lie mostly in the background
    become 0 again;
    ``thick_slices`` is the study's ``preprocess.thick_slices``. The inverse resamples
    probabilities.
    """

    def __init__(
        self,
        spacing: Sequence[float],
        keep_zeros: bool | Sequence[bool],
        thick_slices: ThickSlices = "cubic",
    ) -> None:
        self.spacing, self.keep_zeros = list(spacing), keep_zeros
        self.thick_slices = thick_slices

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """The image at the wanted voxel size; where it has it already, the image itself."""
        before = [float(side) for side in image.pixdim]
        old = [int(side) for side in image.shape[1:]]
        shape = resampled_shape(self.spacing, before, old)
        resampled = image
        if shape != old:
            across = across_slices(self.thick_slices, before, self.spacing)
            stored = image.cpu().numpy().astype(np.float32)
            keeps = self.keep_zeros
            each = [keeps] * len(stored) if isinstance(keeps, bool) else keeps
            channels = [
                resample_image(channel, shape, keep, across)
                for channel, keep in zip(stored, each, strict=True)
            ]
            resampled = _like(image, np.stack(channels))
        self.push_transform(resampled, orig_size=old)
        return resampled

    def inverse(self, probabilities: MetaTensor) -> MetaTensor:
        """Probabilities (region, x, y, z) in the voxels that the image had before."""
        shape = self.pop_transform(probabilities)["orig_size"]
        shape = [int(side) for side in shape]
        if shape == [int(side) for side in probabilities.shape[1:]]:
            return probabilities
        voxels = probabilities.cpu().numpy()
        return _like(probabilities, resample_probabilities(voxels, shape))


def _like(image: MetaTensor, voxels: Array) -> MetaTensor:
    """Other voxels with an image's history, on its device."""
    resampled = MetaTensor(torch.from_numpy(voxels).to(image.device), meta=image.meta)
    resampled.applied_operations = image.applied_operations
    return resampled


class ResampleToSpacingd(MapTransform, InvertibleTransform):
    """``ResampleToSpacing`` of entries of a dictionary."""

    def __init__(
        self,
        keys: KeysCollection,
        spacing: Sequence[float],
        keep_zeros: bool | Sequence[bool],
        thick_slices: ThickSlices = "cubic",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resample = ResampleToSpacing(spacing, keep_zeros, thick_slices)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the entries."""
        return {**data, **{key: self.resample(data[key]) for key in self.key_iterator(data)}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo it."""
        undone = {key: self.resample.inverse(data[key]) for key in self.key_iterator(data)}
        return {**data, **undone}


class Normalised(MapTransform):
    """Each channel of entries (channel, x, y, z) normalised by its own scheme."""

    def __init__(
        self,
        keys: KeysCollection,
        schemes: Sequence[Normalisation],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.schemes = list(schemes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise the entries."""
        return {**data, **{key: self._normalised(data[key]) for key in self.key_iterator(data)}}

    def _normalised(self, image: MetaTensor) -> MetaTensor:
        stored = image.cpu().numpy().astype(np.float32)
        pairs = zip(stored, self.schemes, strict=True)
        return _like(image, np.stack([normalise(channel, scheme) for channel, scheme in pairs]))
