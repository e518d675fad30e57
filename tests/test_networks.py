"""Networks, losses, regions and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segsoup.augment import PRESETS, affine_matrices, augment
from segsoup.errors import InputError
from segsoup.losses import make_loss, training_loss
from segsoup.metrics import dice
from segsoup.networks import build, count_parameters, seeded
from segsoup.regions import label_table, to_regions
from segsoup.study import Network, Training


@pytest.mark.parametrize(("size", "millions"), [("S", 5.6), ("B", 10.5), ("M", 17.6), ("L", 61.8)])
def test_mednext_has_the_published_sizes(size: str, millions: float) -> None:
    """Roy et al. 2023, Table 1: millions of weights at kernel 3."""
    with torch.device("meta"):
        model = build(Network(size=size), channels=4, regions=3)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, rel=0.05)


def test_other_networks_of_monai_by_name() -> None:
    network = Network(name="SegResNet", arguments={"init_filters": 8})
    with torch.device("meta"):
        model = build(network, channels=2, regions=3)
        assert model(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Network(name="SegResNett"), "did you mean `SegResNet`?"),
        (Network(name="SegResNet", arguments={"filters": 8}), "refuses"),
    ],
)
def test_an_unknown_network_or_argument_is_refused(network: Network, said: str) -> None:
    with pytest.raises(InputError) as caught:
        build(network, channels=1, regions=1)
    assert said in str(caught.value)


def test_a_seed_gives_the_same_weights_and_leaves_torch_alone() -> None:
    network = Network(name="SegResNet", arguments={"init_filters": 8})
    state = torch.random.get_rng_state()
    models = []
    for _ in range(2):
        with seeded(7):
            models.append(build(network, 1, 1).state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_losses_agree_with_their_formulas() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 3, 4, 4, 4))
    target = (random.random((2, 3, 4, 4, 4)) < 0.3).astype(float)
    p = 1 / (1 + np.exp(-logits))
    axes = (2, 3, 4)
    soft = 1 - (2 * (p * target).sum(axes) + 1e-5) / (p.sum(axes) + target.sum(axes) + 1e-5)
    entropy = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    tensors = torch.tensor(logits), torch.tensor(target)
    assert make_loss("dice")(*tensors).item() == pytest.approx(soft.mean())
    assert make_loss("dice-bce")(*tensors).item() == pytest.approx(soft.mean() + entropy)
    axes = (0, 2, 3, 4)
    batch = 1 - (2 * (p * target).sum(axes) + 1e-5) / (p.sum(axes) + target.sum(axes) + 1e-5)
    assert make_loss("dice", "batch")(*tensors).item() == pytest.approx(batch.mean())


def test_deep_supervision_halves_each_coarser_stage() -> None:
    training = Training(loss="dice", loss_over="sample")
    fine, target = torch.randn(1, 2, 8, 8, 8), (torch.rand(1, 2, 8, 8, 8) < 0.5).float()
    coarse, small = fine[..., ::2, ::2, ::2], target[..., 1::2, 1::2, 1::2]
    plain = make_loss("dice")
    expected = plain(fine, target) + 0.5 * plain(coarse, small)
    torch.testing.assert_close(training_loss(training)((fine, coarse), target), expected)


def test_dice_follows_the_brats_rule_for_empty_regions() -> None:
    one, none = torch.ones(4, 4, 4, dtype=torch.bool), torch.zeros(4, 4, 4, dtype=torch.bool)
    half = none.clone()
    half[:2] = True
    prediction = torch.stack([none, one, none, half])
    truth = torch.stack([none, none, one, one])
    assert dice(prediction, truth).tolist() == pytest.approx([1, 0, 0, 2 / 3])


def test_regions_are_unions_of_labels() -> None:
    label = np.array([[[0, 1, 2, 3]]], dtype=np.uint8)
    regions = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    expected = np.stack([np.isin(label, values) for values in regions.values()])
    np.testing.assert_array_equal(to_regions(label, label_table(regions)), expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_augmentation_repeats_itself_and_keeps_labels_whole(preset: str) -> None:
    images = torch.randn(6, 2, 12, 14, 10)
    labels = (torch.rand(6, 3, 12, 14, 10) < 0.3).float()
    twice = [augment(images, labels, preset, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(twice[0][0], twice[1][0])
    assert torch.equal(twice[0][1], twice[1][1])
    assert set(twice[0][1].unique().tolist()) <= {0.0, 1.0}
    assert twice[0][0].shape == images.shape
    assert torch.isfinite(twice[0][0]).all()
    if preset == "none":
        assert torch.equal(twice[0][0], images)


def test_flips_move_image_and_labels_together() -> None:
    labels = (torch.rand(16, 1, 8, 8, 8) < 0.3).float()
    # Intensities change by a factor and an offset per channel only: the order of voxels stays.
    image, label = augment(
        labels.clone(), labels, "flips-intensity", torch.Generator().manual_seed(0)
    )
    for sample in range(16):
        inside = image[sample][label[sample] == 1]
        outside = image[sample][label[sample] == 0]
        assert inside.min() > outside.max()
    assert not torch.equal(label, labels)


def test_a_quarter_turn_is_the_one_of_torch() -> None:
    volume = torch.randn(1, 1, 9, 9, 9)
    for axis, dims in ((0, (3, 4)), (1, (2, 4)), (2, (2, 3))):
        angles = torch.zeros(1, 3)
        angles[0, axis] = torch.pi / 2
        theta = affine_matrices(angles, torch.ones(1), volume.shape[2:])
        grid = torch.nn.functional.affine_grid(theta, [1, 1, 9, 9, 9], align_corners=False)
        turned = torch.nn.functional.grid_sample(volume, grid, align_corners=False)
        both = [torch.rot90(volume, turns, dims) for turns in (1, -1)]
        assert any(torch.allclose(turned, other, atol=1e-4) for other in both)
