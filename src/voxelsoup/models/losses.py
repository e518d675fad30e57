"""Losses on sigmoid outputs of regions that may overlap."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DeepSupervisionLoss, DiceFocalLoss, DiceLoss, FocalLoss
from torch import nn
from torch.nn.modules.loss import _Loss

from voxelsoup.common.plug_ins import uses_plug_in
from voxelsoup.data.regions import UNKNOWN
from voxelsoup.study.sections.training import LossName, Training


class DiceBCELoss(_Loss):
    """Dice + binary cross-entropy, equally weighted (nnU-Net's loss for regions).

    MONAI's DiceCELoss takes several output channels for exclusive classes and would apply a
    softmax, which is wrong for overlapping regions.
    """

    def __init__(self, batch: bool) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, batch=batch)
        self.cross_entropy = nn.BCEWithLogitsLoss()

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits against a target of zeros and ones, both (batch, region, x, y, z)."""
        loss: torch.Tensor = self.dice(logits, target) + self.cross_entropy(logits, target)
        return loss


# Its probability of a voxel is 0 to the last bit.
SURELY_NOT = -1e4


class LossWhereKnown(_Loss):
    """A loss over the voxels alone whose target is known, which is the plain one of those voxels.

    Dice is the mean over the regions (of each sample, unless over the batch) of which some voxel
    is known, cross-entropy and focal loss the mean over the known voxels. Where nothing is known,
    the loss is 0.
    """

    def __init__(self, name: LossName, batch: bool) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, batch=batch, reduction="none")
        self.axes = [0, 2, 3, 4] if batch else [2, 3, 4]
        self.by_voxel = {
            "dice": None,
            "dice-bce": nn.BCEWithLogitsLoss(reduction="none"),
            "dice-focal": FocalLoss(reduction="none"),
        }[name]

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits against zeros, ones and ``UNKNOWN``, both (batch, region, x, y, z)."""
        known = target != UNKNOWN
        # Neither predicted nor there, such a voxel adds nothing to any sum.
        logits, target = logits.masked_fill(~known, SURELY_NOT), target.clamp_min(0)
        seen = known.any(dim=4).any(dim=3).any(dim=2)
        seen = seen.any(dim=0) if 0 in self.axes else seen
        dice = self.dice(logits, target).reshape(seen.shape)
        loss: torch.Tensor = (dice * seen).sum() / seen.sum().clamp_min(1)
        if self.by_voxel is not None:
            loss = loss + (self.by_voxel(logits, target) * known).sum() / known.sum().clamp_min(1)
        return loss


def make_loss(name: LossName, over: str = "sample", some_unknown: bool = False) -> _Loss:
    """A loss on logits and targets of (batch, region, x, y, z), over a `batch` or per `sample`.

    ``some_unknown``: targets may be ``UNKNOWN`` in places.
    """
    batch = over == "batch"
    if uses_plug_in("losses", name):
        from voxelsoup.models import plug_ins

        return plug_ins.make_loss(name, batch, some_unknown)
    if some_unknown:
        return LossWhereKnown(name, batch)
    if name == "dice-bce":
        return DiceBCELoss(batch)
    kind = {"dice": DiceLoss, "dice-focal": DiceFocalLoss}[name]
    return kind(sigmoid=True, batch=batch)


def stages_of(output: torch.Tensor | Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """What a network gives while it trains as one map (batch, region, x, y, z) per stage.

    MONAI's MedNeXt gives several as a tuple, its DynUNet as one tensor (batch, stage, ...).
    """
    if not isinstance(output, torch.Tensor):
        return output
    return output.unbind(1) if output.ndim == 6 else [output]


class SupervisedLoss(nn.Module):
    """MONAI's loss for deep supervision: targets are brought down to coarser outputs.

    Without the zero that MONAI's sum begins with, for which a GPU would be waited.
    """

    def __init__(self, loss: _Loss, weight_mode: str) -> None:
        super().__init__()
        self.monai = DeepSupervisionLoss(loss, weight_mode=weight_mode)

    def forward(
        self, logits: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        """Loss of one output, or of several, full resolution first, with the weights."""
        outputs = stages_of(logits)
        weights = self.monai.get_weights(len(outputs)) if len(outputs) > 1 else [1.0]
        losses: list[torch.Tensor] = [
            weight * self.monai.get_loss(output.float().contiguous(), target)
            for weight, output in zip(weights, outputs, strict=True)
        ]
        return sum(losses[1:], losses[0])


def training_loss(training: Training, some_unknown: bool = False) -> nn.Module:
    """The loss of a run; it also takes the tuple of a deeply supervised network."""
    return SupervisedLoss(
        make_loss(training.loss, training.loss_over, some_unknown),
        weight_mode=training.deep_supervision_weights,
    )
