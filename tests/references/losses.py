"""Losses in numpy: of logits and targets (sample, region, x, y, z)."""

from __future__ import annotations

import numpy as np

# The axes that one overlap is summed over.
AXES = {"sample": (2, 3, 4), "batch": (0, 2, 3, 4)}
SMOOTH = 1e-5


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities."""
    return 1 / (1 + np.exp(-logits))


def dice_loss(logits: np.ndarray, target: np.ndarray, over: str) -> float:
    """Milletari et al., V-Net, 3DV 2016; per sample, or over the batch as in nnU-Net."""
    p, axes = sigmoid(logits), AXES[over]
    overlap, sizes = (p * target).sum(axes), p.sum(axes) + target.sum(axes)
    return float((1 - (2 * overlap + SMOOTH) / (sizes + SMOOTH)).mean())


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Binary cross entropy of each voxel."""
    p = sigmoid(logits)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def focal_loss(logits: np.ndarray, target: np.ndarray) -> float:
    """Lin et al., Focal loss, ICCV 2017, equation 4 with gamma 2."""
    p = sigmoid(logits)
    missed = np.where(target == 1, 1 - p, p)
    return float((missed**2 * cross_entropy(logits, target)).mean())
