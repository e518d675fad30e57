"""A network planned per axis: which axes are halved how often, and how far its kernels reach.

The rule is that of nnU-Net v2 (Isensee et al., Nature Methods 2021; ``get_pool_and_conv_props`` in
``nnunetv2/experiment_planning/experiment_planners/network_topology.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# No axis gets fewer voxels than this by halving it.
FEWEST_VOXELS = 4
# Axes whose voxels are less than so many times as long as the shortest are halved with it.
COMPARABLE = 2
KERNEL = 3
# MONAI's DynUNet has at least an input block, a block below it and a bottleneck.
FEWEST_STAGES = 3


@dataclass(frozen=True)
class Topology:
    """The stages of a U-Net, at full resolution first, each a number for x, y and z.

    Attributes:
        strides: of the convolution that a stage begins with; 1 in the first stage.
        kernels: sides of the kernels.
    """

    strides: list[list[int]]
    kernels: list[list[int]]

    @property
    def divisors(self) -> list[int]:
        """By which factors (x, y, z) a patch shrinks; its sides must be divisible by them."""
        return [math.prod(axis) for axis in zip(*self.strides, strict=True)]

    def as_dynunet(self) -> dict[str, Any]:
        """Arguments of MONAI's DynUNet; numbers of filters are those that it takes by default."""
        return {
            "kernel_size": self.kernels,
            "strides": self.strides,
            "upsample_kernel_size": self.strides[1:],
        }


def plan_topology(spacing: Sequence[float], patch: Sequence[float]) -> Topology:
    """Plan a network for patches of a size in voxels and of a spacing in mm, both (x, y, z).

    Stage by stage, the axes are halved that have 8 voxels left and are, of those, less than twice
    as coarse as the finest; a lone one needs 12. Kernels reach along an axis once it is less than
    twice as coarse as the finest of all, and in the bottleneck along each.

    It departs from nnU-Net in three ways: kernels look at an axis' own spacing, as nnU-Net's
    comment says, where its code looks at that of another if some axis is not halved any more; a
    lone axis of too few voxels is passed over, where nnU-Net halves the others no more either; and
    patches too small for three stages get stages that halve nothing, which MONAI's DynUNet needs.
    """
    size, sides = list(map(float, spacing)), [math.ceil(side) for side in patch]
    strides, kernels, kernel = [[1, 1, 1]], list[list[int]](), [1, 1, 1]
    while halved := _axes_to_halve(size, sides):
        kernel = [
            KERNEL if reaching == KERNEL or side / min(size) < COMPARABLE else 1
            for reaching, side in zip(kernel, size, strict=True)
        ]
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in range(3)])
        for axis in halved:
            size[axis] *= 2
            sides[axis] = math.ceil(sides[axis] / 2)
    while len(strides) < FEWEST_STAGES:
        kernels.append(3 * [KERNEL])
        strides.append([1, 1, 1])
    return Topology(strides, [*kernels, 3 * [KERNEL]])


def _axes_to_halve(size: list[float], sides: list[int]) -> list[int]:
    enough = [axis for axis in range(3) if sides[axis] >= 2 * FEWEST_VOXELS]
    while enough:
        finest = min(size[axis] for axis in enough)
        halved = [axis for axis in enough if size[axis] / finest < COMPARABLE]
        if len(halved) > 1 or sides[halved[0]] >= 3 * FEWEST_VOXELS:
            return halved
        enough.remove(halved[0])
    return []
