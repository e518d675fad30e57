"""Networks planned per axis: nnU-Net's published plans, and shapes that cannot be halved often."""

from __future__ import annotations

import itertools

import pytest

from voxelsoup.models.networks import check_outputs, outline
from voxelsoup.planning.topology import plan_topology
from voxelsoup.study.sections.training import Network

TWOS, THREES = [2, 2, 2], [3, 3, 3]


def test_the_plan_of_cardiac_mr_is_nnunets() -> None:
    """Isensee et al. 2021, supplement: ACDC, 5 x 1.56 x 1.56 mm, patch 20 x 256 x 224 (z first)."""
    planned = plan_topology((1.5625, 1.5625, 5.0), (224, 256, 20))
    assert planned.strides == [[1, 1, 1], [2, 2, 1], TWOS, TWOS, [2, 2, 1], [2, 2, 1]]
    assert planned.kernels == [[3, 3, 1], THREES, THREES, THREES, THREES, THREES]


def test_the_plan_of_isotropic_brains_is_nnunets() -> None:
    """Isensee et al. 2021, supplement: BraTS, 1 mm, patch 128^3: all axes are halved five times."""
    planned = plan_topology((1, 1, 1), (128, 128, 128))
    assert planned.divisors == [32, 32, 32]
    assert planned.kernels == 6 * [THREES]


def nnunets(spacing: list[float], patch: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """nnU-Net's rule, written down after its source axis by axis; one axis at a time."""
    strides, kernels, reach = [[1, 1, 1]], [], [1, 1, 1]
    while True:
        valid = [a for a in range(3) if patch[a] >= 8]
        valid = [a for a in valid if spacing[a] < 2 * min(spacing[b] for b in valid)]
        if not valid or (len(valid) == 1 and patch[valid[0]] < 12):
            return strides, [*kernels, [3, 3, 3]]
        for a in range(3):
            if spacing[a] / min(spacing) < 2:
                reach[a] = 3
        kernels.append(list(reach))
        strides.append([1 + (a in valid) for a in range(3)])
        spacing = [s * t for s, t in zip(spacing, strides[-1], strict=True)]
        patch = [-(-n // t) for n, t in zip(patch, strides[-1], strict=True)]


@pytest.mark.parametrize("thick", [0.7, 1.0, 1.9, 2.0, 3.1, 6.7, 12.0])
def test_the_rule_is_nnunets_for_all_thicknesses_and_axes(thick: float) -> None:
    for sides, axis in itertools.product(([160, 96, 7], [40, 48, 10], [200, 16, 31]), range(3)):
        spacing, patch = [1.0, 1.2], list(sides)
        spacing.insert(axis, thick)
        planned = plan_topology(spacing, patch)
        strides, kernels = nnunets(spacing, patch)
        # Where a lone axis of few voxels is left, nnU-Net ends, and this rule goes on.
        assert planned.strides[: len(strides)] == strides
        assert planned.kernels[: len(strides) - 1] == kernels[:-1]


@pytest.mark.parametrize("slices", [1, 2, 5, 6, 9, 12, 18])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_few_slices_trains_along_any_axis(slices: int, axis: int) -> None:
    """On torch's meta device: the network takes the patch, with one map per region."""
    spacing, patch = [1.5, 1.5], [64, 48]
    spacing.insert(axis, 10.0)
    patch.insert(axis, slices)
    planned = plan_topology(spacing, patch)
    divisors = planned.divisors
    assert divisors[axis] <= max(1, slices / 4)
    sides = [-(-side // divisor) * divisor for side, divisor in zip(patch, divisors, strict=True)]
    network = Network(name="DynUNet", arguments=planned.as_dynunet() | {"filters": 6 * [4]})
    assert network.divisors == divisors
    check_outputs(outline(network, 1, 3), 1, 3, sides)


def test_a_fine_axis_of_few_voxels_does_not_keep_the_others_from_being_halved() -> None:
    """nnU-Net's own rule would halve nothing at all."""
    planned = plan_topology((1, 1, 0.4), (64, 64, 10))
    assert planned.divisors == [16, 16, 1]


def test_a_tiny_patch_has_the_three_stages_that_dynunet_needs() -> None:
    planned = plan_topology((1, 1, 1), (10, 10, 10))
    assert planned.strides == [[1, 1, 1], [2, 2, 2], [1, 1, 1]]
    assert len(planned.kernels) == 3
    network = Network(name="DynUNet", arguments=planned.as_dynunet() | {"filters": 3 * [4]})
    check_outputs(outline(network, 1, 1), 1, 1, [10, 10, 10])
