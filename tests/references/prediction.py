"""Predictions of a whole case by MONAI's sliding windows (Cardoso et al., MONAI, arXiv 2022)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from voxelsoup.data.case import Source
from voxelsoup.data.preprocessing.geometry import to_scanner
from voxelsoup.data.preprocessing.preprocess import preprocess_image
from voxelsoup.prediction.model_files import ModelFile

CPU = torch.device("cpu")


@torch.inference_mode()
def probabilities_by_monai(
    model: ModelFile,
    channels: dict[str, Source],
    folder: Path,
    transform: Callable[[nn.Module], Callable[[torch.Tensor], torch.Tensor]] = lambda n: n,
) -> np.ndarray:
    """Probabilities (x, y, z, region) in the grid of the scan, whole in memory."""
    description = model.description
    geometry = preprocess_image(
        channels, description.preprocess, description.patch, folder / "oracle.npy"
    )
    image = torch.from_numpy(np.load(folder / "oracle.npy"))[None]
    logits = sliding_window_inference(
        image, description.patch, 2, transform(model.build(CPU)), overlap=0.5, mode="gaussian"
    )
    assert isinstance(logits, torch.Tensor)
    probabilities = logits.sigmoid()[0].numpy()
    padding = geometry["padding"]
    for axis, (before, after) in enumerate(padding, 1):
        probabilities = probabilities.take(range(before, probabilities.shape[axis] - after), axis)
    assert geometry["native_shape"] == geometry["resampled_shape"]
    return np.stack([to_scanner(region, geometry) for region in probabilities], axis=-1)
