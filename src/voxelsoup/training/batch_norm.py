"""Batch normalisation of averaged weights: running statistics that belong to them.

Statistics that a network has collected in training belong to the weights of that moment. An
average of weights, along a run or of several models, needs its own (as SWA: Izmailov et al. 2018).
"""

from __future__ import annotations

from contextlib import closing

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from voxelsoup.models import networks
from voxelsoup.training.patches import PatchSource, batches

# Training batches that the statistics are estimated from.
BATCHES = 20


def estimate_batch_norm(model: nn.Module, source: PatchSource, device: torch.device) -> None:
    """Estimate a network's running statistics for the weights it holds now, if it has any."""
    if networks.has_batch_norm(model):
        with closing(batches(source, 0, BATCHES, device)) as stream:
            update_bn((images for images, _ in stream), model)
