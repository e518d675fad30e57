"""Scores of one prediction against the truth."""

from __future__ import annotations

import torch
from monai.metrics import compute_dice


def dice(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Dice per region by the BraTS rule for empty regions (computed by MONAI).

    A region that is empty in the truth scores 1 if the prediction is empty too, and else 0.

    Args:
        prediction: booleans (region, x, y, z).
        truth: booleans of the same shape.

    Returns:
        float32 (region,).
    """
    scores: torch.Tensor = compute_dice(prediction[None], truth[None], ignore_empty=False)
    return scores[0]
