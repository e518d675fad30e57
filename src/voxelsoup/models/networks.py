"""Segmentation networks, MONAI's or another package's, built from the study's description."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from monai.networks import nets
from monai.networks.blocks.mednext_block import MedNeXtBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import uses_plug_in
from voxelsoup.models.losses import stages_of
from voxelsoup.models.mednext import with_strides
from voxelsoup.study.sections.training import Network


def build(network: Network, channels: int, regions: int) -> nn.Module:
    """Build a network with random weights, drawn from torch's global random state.

    It has one output, a sigmoid logit, for each of so many regions.

    Returns:
        A module from (batch, channel, x, y, z) to logits (batch, region, x, y, z); with deep
        supervision, those of all stages in training mode (``losses.stages_of``).

    Raises:
        InputError: if MONAI has no such network, or does not take these arguments.
    """
    if uses_plug_in("networks", network.name):
        from voxelsoup.models import plug_ins

        return plug_ins.build_network(network, channels, regions)
    factory, arguments = _call(network, channels, regions)
    try:
        return factory(**arguments)
    except (TypeError, ValueError, AssertionError, LookupError, RuntimeError, ImportError) as error:
        raise InputError(
            "network.arguments",
            f"MONAI's {network.name} refuses {arguments}: {error}",
            f"arguments of monai.networks.nets.{network.name}{inspect.signature(factory)}",
            "correct `network.arguments` in the study",
        ) from error


def _mednext(network: Network) -> str:
    """What MONAI calls a MedNeXt of this size; empty for other networks."""
    size = "" if network.size == "free" else network.size
    return f"MedNeXt{size}" if network.name == "MedNeXt" else ""


def as_monai_config(network: Network, channels: int, regions: int) -> dict[str, Any]:
    """The network as MONAI's configuration files name it; raises as ``build``."""
    if uses_plug_in("networks", network.name):
        from voxelsoup.models import plug_ins

        return plug_ins.as_monai_config(network, channels, regions)
    factory, arguments = _call(network, channels, regions)
    target = f"monai.networks.nets.{_mednext(network) or network.name}"
    if factory is with_strides:
        target = f"{with_strides.__module__}.{with_strides.__name__}"
    return {"_target_": target, **arguments}


def _call(network: Network, channels: int, regions: int) -> tuple[Any, dict[str, Any]]:
    """The class or function that builds the network, and what it is called with.

    Blocks and expansion ratios of MedNeXt's published sizes are MONAI's (Roy et al., MedNeXt,
    MICCAI 2023, Table 1).
    """
    filled: dict[str, Any] = {"spatial_dims": 3, "in_channels": channels, "out_channels": regions}
    defaults = {}
    if network.name == "MedNeXt":
        factory: Any = getattr(nets, _mednext(network))
        filled |= {
            "kernel_size": network.kernel_size,
            "deep_supervision": network.deep_supervision,
        }
        if network.size == "free":
            # All published blocks have residual connections; by MONAI's default none has.
            defaults = {"use_residual_connection": True}
        if network.strides is not None:
            factory = with_strides
            filled |= {"variant": _mednext(network), "strides": network.strides}
    else:
        factory = _by_name(network.name)
        taken = inspect.signature(factory).parameters
        filled = {key: value for key, value in filled.items() if key in taken}
    _check_not_filled(network, filled)
    return factory, defaults | filled | network.arguments


def outline(network: Network, channels: int, regions: int) -> nn.Module:
    """Build a network without memory for its weights, as ``build`` does otherwise."""
    try:
        with torch.device("meta"):
            return build(network, channels, regions)
    except InputError:
        # SwinUNETR and others read numbers out of tensors while they are built, which only works
        # with memory; a real mistake is raised again.
        return build(network, channels, regions)


@torch.inference_mode()
def check_outputs(model: nn.Module, channels: int, regions: int, patch: list[int]) -> None:
    """Make sure that a network takes the patch and segments it, without computing anything.

    The model is one of ``outline``, whose weights are given up; the patch is in voxels (x, y, z).

    Raises:
        InputError: if it fails on the patch, or gives something else than one map per region.
    """
    model = model.to("meta")
    # Two, for in training some networks normalise over the batch.
    image = torch.zeros(2, channels, *patch, device="meta")
    expected = (2, regions, *patch)
    for training in (True, False):
        output = _pass(model.train(training), image)
        # Deep supervision: coarser maps behind the first, while training only.
        several = training and isinstance(output, list | tuple | torch.Tensor)
        maps = list(stages_of(output)) if several else [output]
        shapes = [tuple(m.shape) if isinstance(m, torch.Tensor) else type(m).__name__ for m in maps]
        if shapes[0] != expected or any(s[:2] != expected[:2] for s in shapes):
            raise InputError(
                "network",
                f"{type(model).__name__} gives {', '.join(map(str, shapes))} "
                f"{'in training' if training else 'when it is evaluated'}",
                f"{expected} (batch, region, x, y, z), and coarser maps only behind it in a list",
                "take a segmentation network of MONAI, or correct `network.arguments`",
            )


def _pass(model: nn.Module, image: torch.Tensor) -> Any:
    try:
        return model(image)
    except Exception as error:
        raise InputError(
            "training.patch",
            f"{type(model).__name__} fails on a patch of {list(image.shape[2:])} voxels: "
            f"{str(error).splitlines()[0]}",
            "a patch that the network takes: most need sides divisible by the factor by which "
            "they shrink their input, and more than that",
            "install the package that is named"
            if isinstance(error, ImportError)
            else "take sides divisible by 16 or 32, or correct `network.arguments`",
        ) from error


def checkpoint_gradients(model: nn.Module) -> None:
    """Have a MedNeXt's blocks computed again in the backward pass ("outside block").

    Names of weights and results stay the same. Nothing in the blocks is random.

    Raises:
        InputError: if the network has no such blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, MedNeXtBlock)]
    if not blocks:
        raise InputError(
            "training.gradient_checkpointing",
            f"is on, and {type(model).__name__} has no blocks of MedNeXt",
            "`network.name: MedNeXt` where it is on",
            "set it to false; if memory is too small, use a smaller patch",
        )
    for block in blocks:
        forward = functools.partial(
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )
        # Of the block alone, not of its class.
        vars(block)["forward"] = forward


def memory_format(
    model: nn.Module, device: torch.device, channels_last: bool | Literal["auto"]
) -> torch.memory_format:
    """How volumes lie in memory where a network trains.

    Predictions keep torch's plain format, in which a MedNeXt's logits are twenty times as exact on
    a CPU, and the same that the exported model and MONAI's own inferer give.

    ``channels_last`` has a voxel's channels lie together; `auto`: where that was measured to pay,
    which is MedNeXt on CPUs (DynUNet loses there, others hardly change).
    """
    if channels_last == "auto":
        channels_last = isinstance(model, nets.MedNeXt) and device.type == "cpu"
    return torch.channels_last_3d if channels_last else torch.contiguous_format


def to_memory_format(tensor: torch.Tensor, chosen: torch.memory_format) -> torch.Tensor:
    """A tensor of five dimensions in a memory format; the same one if it has it already.

    Torch's own ``contiguous`` returns what has one channel (or one voxel) as it is, for that lies
    alike in both formats. Layers look at the strides, though, and compute in the plain format
    then: all weights of a MedNeXt, depthwise or of one voxel, are such tensors, and images of one
    channel.
    """
    strides = torch.empty(tensor.shape, memory_format=chosen, device="meta").stride()
    return tensor.contiguous(memory_format=chosen).as_strided(tensor.shape, strides)


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


def _check_not_filled(network: Network, filled: dict[str, Any]) -> None:
    """Refuse arguments that other parts of the study decide, so that they cannot disagree."""
    homes = {
        "spatial_dims": "nothing: volumes have three dimensions",
        "in_channels": "`dataset.channels`",
        "out_channels": "`regions`",
        "kernel_size": "`network.kernel_size`",
        "deep_supervision": "`network.deep_supervision`",
        "variant": "`network.size`",
        "strides": "`network.strides`",
    }
    for key in filled.keys() & network.arguments.keys():
        raise InputError(
            f"network.arguments.{key}",
            f"is given as {network.arguments[key]}, but the study fills it in ({filled[key]})",
            f"`{key}` not among the arguments",
            f"take it out; what sets it is {homes[key]}",
        )


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
