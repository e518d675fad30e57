"""MedNeXt with a stride per axis: MONAI's own, but an axis of thick slices is halved less often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks import nets
from torch import nn


class _WithoutFirst:
    """Hook that takes away the first plane of a block's output along some of x, y and z.

    MONAI's upsampling block pads each axis by one plane there, which its transposed convolution
    lacks only if its stride is 2.
    """

    def __init__(self, stride: tuple[int, ...]) -> None:
        self.x, self.y, self.z = (2 - step for step in stride)

    def __call__(self, block: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
        return output[:, :, self.x :, self.y :, self.z :]


def with_strides(variant: str, strides: Sequence[Sequence[int]], **arguments: Any) -> nn.Module:
    """Build a MedNeXt of MONAI whose downsamplings shrink each axis by 1 or 2.

    Weights, their names and their shapes are those of the network without ``strides``, and so are
    its results where all strides are 2.

    Args:
        variant: name in ``monai.networks.nets``: MedNeXt, MedNeXtS, ...
        strides: of x, y and z for each downsampling, at full resolution first; the upsamplings
            undo them.
        arguments: what MONAI's class or function takes.
    """
    model = getattr(nets, variant)(**arguments)
    blocks = [*zip(model.down_blocks, model.up_blocks[::-1], strict=True)]
    for (down, up), (x, y, z) in zip(blocks, strides, strict=True):
        for block in (down, up):
            for layer in (block.conv1, getattr(block, "res_conv", None)):
                if layer is not None:
                    layer.stride = (x, y, z)
        up.register_forward_hook(_WithoutFirst((x, y, z)))
    network: nn.Module = model
    return network
