"""From a whole preprocessed volume to logits."""

from __future__ import annotations

import torch
from monai.inferers import sliding_window_inference
from torch import nn


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    image: torch.Tensor,
    patch: list[int],
    overlap: float,
    window_batch: int,
) -> torch.Tensor:
    """Sliding windows with Gaussian blending over one volume (MONAI's inferer).

    Args:
        model: in evaluation mode, on the device to compute on.
        image: normalised volume (channel, x, y, z) on that device.
        patch: window size in voxels (x, y, z).
        overlap: of neighbouring windows, as a share of the patch.
        window_batch: windows that go through the model at once.

    Returns:
        Logits (region, x, y, z), float32, on the same device.
    """
    logits = sliding_window_inference(
        image[None], patch, window_batch, model, overlap=overlap, mode="gaussian"
    )
    assert isinstance(logits, torch.Tensor)
    return logits[0].float()
