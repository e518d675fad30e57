"""Segmentation networks, all of them MONAI's, built from the study's description."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from monai.networks import nets
from torch import nn

from segsoup.errors import InputError
from segsoup.study import Network

# Blocks and expansion ratios of the published sizes: Roy et al., MedNeXt, MICCAI 2023, Table 1,
# as monai.networks.nets.mednext.create_mednext has them.
MEDNEXT_SIZES = {"S": nets.MedNeXtS, "B": nets.MedNeXtB, "M": nets.MedNeXtM, "L": nets.MedNeXtL}


def build(network: Network, channels: int, regions: int) -> nn.Module:
    """Build a network with random weights, drawn from torch's global random state.

    Args:
        network: its description in the study.
        channels: number of input channels.
        regions: number of outputs, one sigmoid logit per region.

    Returns:
        A module from (batch, channel, x, y, z) to logits (batch, region, x, y, z); MedNeXt with
        deep supervision returns a tuple in training mode, full resolution first.

    Raises:
        InputError: if MONAI has no such network, or does not take these arguments.
    """
    arguments: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": channels,
        "out_channels": regions,
    }
    if network.name == "MedNeXt":
        factory, arguments = _mednext(network, arguments)
    else:
        factory = _by_name(network.name)
        taken = inspect.signature(factory).parameters
        arguments = {key: value for key, value in arguments.items() if key in taken}
        arguments |= network.arguments
    try:
        return factory(**arguments)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise InputError(
            "network.arguments",
            f"MONAI's {network.name} refuses {arguments}: {error}",
            f"arguments of monai.networks.nets.{network.name}{inspect.signature(factory)}",
            "correct `network.arguments` in the study",
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch draws from ``seed``; its random state is put back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model holds running statistics that belong to its very weights."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def count_parameters(model: nn.Module) -> int:
    """Number of trained weights."""
    return sum(p.numel() for p in model.parameters())


def _mednext(network: Network, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    arguments = arguments | {
        "kernel_size": network.kernel_size,
        "deep_supervision": network.deep_supervision,
    }
    if network.size != "free":
        return MEDNEXT_SIZES[network.size], arguments | network.arguments
    # The published MedNeXt has residual connections in all of its blocks; MONAI's default has none.
    return nets.MedNeXt, {"use_residual_connection": True} | arguments | network.arguments


def _by_name(name: str) -> Any:
    known = [key for key, value in vars(nets).items() if inspect.isclass(value)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise InputError(
            "network.name",
            f"monai.networks.nets has no class `{name}`",
            "the name of a segmentation network of MONAI",
            f"did you mean `{near[0]}`?" if near else "see MONAI's list of networks",
        )
    return getattr(nets, name)
