"""Losses against their formulas, written down a second time in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DeepSupervisionLoss

from references.losses import AXES, cross_entropy, dice_loss, focal_loss
from voxelsoup.data.regions import UNKNOWN
from voxelsoup.models.losses import make_loss, training_loss
from voxelsoup.study.sections.training import LossName, Training

FORMULAS = {
    "dice": dice_loss,
    "dice-bce": lambda x, t, over: dice_loss(x, t, over) + cross_entropy(x, t).mean(),
    "dice-focal": lambda x, t, over: dice_loss(x, t, over) + focal_loss(x, t),
}


@pytest.mark.parametrize("over", AXES)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_is_its_formula(name: str, over: str) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 3, 4, 5, 6))
    target = (random.random(logits.shape) < np.array([0.1, 0.6])[:, None, None, None, None]) * 1.0
    loss = make_loss(name, over)(torch.tensor(logits), torch.tensor(target)).item()  # type: ignore[arg-type]
    assert loss == pytest.approx(FORMULAS[name](logits, target, over))


@pytest.mark.parametrize("over", AXES)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_where_some_is_unknown_is_its_formula_on_the_rest(name: LossName, over: str) -> None:
    random = np.random.default_rng(1)
    logits = torch.tensor(random.normal(size=(2, 3, 4, 5, 6)), requires_grad=True)
    target = torch.tensor(random.integers(0, 2, logits.shape) * 1.0)
    # The same number of voxels in both samples, so that what is known fits into an array.
    known = torch.tensor(random.permuted(np.arange(120) < 70)).reshape(4, 5, 6)
    target[:, :, ~known] = UNKNOWN
    loss = make_loss(name, over, some_unknown=True)(logits, target)
    rest = [part[:, :, known].detach().numpy()[..., None, None] for part in (logits, target)]
    assert loss.item() == pytest.approx(FORMULAS[name](*rest, over))
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, ~known] == 0).all() and (logits.grad[:, :, known] != 0).all()


@pytest.mark.parametrize("over", AXES)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_region_that_is_unknown_as_a_whole_does_not_count(name: LossName, over: str) -> None:
    logits, target = torch.randn(2, 3, 4, 5, 6), (torch.rand(2, 3, 4, 5, 6) < 0.4).float()
    others = make_loss(name, over)(logits[:, 1:], target[:, 1:]).item()
    target[:, 0] = UNKNOWN
    loss = make_loss(name, over, some_unknown=True)
    assert loss(logits, target).item() == pytest.approx(others, rel=1e-5)
    assert loss(logits, torch.full_like(target, UNKNOWN)).item() == 0


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("over", AXES)
def test_overlapping_regions_can_all_be_right_at_once(name: str, over: str) -> None:
    """A softmax over the outputs could not give two regions to one voxel."""
    target = torch.ones(1, 3, 4, 4, 4)
    assert make_loss(name, over)(40 * target, target).item() == pytest.approx(0, abs=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "weights"), [("same", 1.0), ("exp", 0.5), ("two", 0.5)])
def test_deep_supervision_weighs_the_coarser_stages(mode: str, weights: float) -> None:
    training = Training(loss="dice", loss_over="sample", deep_supervision_weights=mode)  # type: ignore[arg-type]
    fine, target = torch.randn(1, 2, 8, 8, 8), (torch.rand(1, 2, 8, 8, 8) < 0.5).float()
    middle, coarse = fine[..., ::2, ::2, ::2], fine[..., ::4, ::4, ::4]
    # MONAI's "nearest-exact" takes the voxel after the middle of each block.
    targets = [target, target[..., 1::2, 1::2, 1::2], target[..., 2::4, 2::4, 2::4]]
    last = {"same": 1.0, "exp": 0.25, "two": 0.5}[mode]
    terms = [
        weight * dice_loss(output.numpy().astype(float), part.numpy(), "sample")
        for weight, output, part in zip(
            (1.0, weights, last), (fine, middle, coarse), targets, strict=True
        )
    ]
    theirs = DeepSupervisionLoss(make_loss("dice"), weight_mode=mode)
    found = training_loss(training)((fine, middle, coarse), target).item()
    assert found == pytest.approx(theirs([fine, middle, coarse], target).item(), rel=1e-6)
    assert found == pytest.approx(sum(terms), rel=1e-5)
    assert training_loss(training)(fine, target).item() == pytest.approx(terms[0], rel=1e-5)


def test_the_stages_of_a_dynunet_may_come_in_one_tensor() -> None:
    """MONAI's DynUNet brings its coarser outputs to full size and stacks them behind the batch."""
    target = (torch.rand(2, 3, 8, 8, 8) < 0.5).float()
    fine, coarse = torch.randn(2, 2, 3, 8, 8, 8)
    loss = training_loss(Training())
    assert loss(torch.stack([fine, coarse], dim=1), target) == loss((fine, coarse), target)
