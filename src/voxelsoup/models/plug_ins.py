"""Networks and losses of other packages, checked for what they have to be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from monai.networks import nets
from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import PlugIn, find, is_plug_in, offered
from voxelsoup.common.text import did_you_mean
from voxelsoup.study.sections.training import Network

# What a network is called with, of what it takes; it has to take the first two.
FILLED = ("in_channels", "out_channels", "spatial_dims")
# Sides in voxels of what a loss is tried on.
SIDE = 4


def check_network_name(name: str) -> None:
    """Make sure that MONAI or an installed package has a network of this name.

    Raises:
        InputError: with what there is.
    """
    if is_plug_in("networks", name) or inspect.isclass(getattr(nets, name, None)):
        return
    others = {other: found[0].package for other, found in offered("networks").items()}
    installed = ", ".join(f"{other} of {package}" for other, package in others.items())
    known = [key for key, value in vars(nets).items() if inspect.isclass(value)]
    near = did_you_mean(name, [*known, *others])
    raise InputError(
        "network.name",
        f"monai.networks.nets has no class `{name}`, and no installed package offers it{near}",
        "the name of a segmentation network of MONAI, of a network of an installed package "
        f"({installed or 'none is installed'}), or a dotted path (my_package.my_module.thing)",
        "correct the name, or install the package",
    )


def build_network(network: Network, channels: int, regions: int) -> nn.Module:
    """``networks.build`` for a network of another package.

    Raises:
        InputError: if it is not what it has to be, or does not take the study's arguments.
    """
    plug_in, factory, arguments = _network(network, channels, regions)
    try:
        model = factory(**arguments)
    except Exception as error:
        raise plug_in.refused(
            f"fails when it is built with {arguments}: {type(error).__name__}: {error}",
            f"a network that takes {_signature(factory)}",
            "correct `network.arguments` in the study, or the network",
        ) from error
    if not isinstance(model, nn.Module):
        raise plug_in.refused(f"gives {type(model).__name__}", "a torch.nn.Module")
    return model


def as_monai_config(network: Network, channels: int, regions: int) -> dict[str, Any]:
    """The network as MONAI's configuration files name it; raises as ``build_network``."""
    plug_in, _, arguments = _network(network, channels, regions)
    return {"_target_": plug_in.path, **arguments}


def _network(
    network: Network, channels: int, regions: int
) -> tuple[PlugIn, Callable[..., Any], dict[str, Any]]:
    plug_in = find("networks", network.name)
    if hasattr(nets, network.name):
        raise InputError(
            "network.name",
            f"`{network.name}` is a network of MONAI, and {plug_in.of_package} offers one by that "
            "name too",
            "a name that means one thing",
            f"give the dotted path, `{plug_in.path}`, or uninstall {plug_in.package}",
        )
    factory, values = plug_in.load(), dict(zip(FILLED, (channels, regions, 3), strict=True))
    taken = _parameters(factory)
    # By name, not among `**others`: the header of a model file may name any path.
    if not {"in_channels", "out_channels"} <= taken:
        raise plug_in.refused(
            f"takes {_signature(factory)}",
            "a class or function that takes `in_channels` and `out_channels` by name (and "
            "`spatial_dims`, if it wants it), and gives a torch.nn.Module",
        )
    filled = {key: value for key, value in values.items() if key in taken}
    for key in filled.keys() & network.arguments.keys():
        raise InputError(
            f"network.arguments.{key}",
            f"is given as {network.arguments[key]}, but the study fills it in ({filled[key]})",
            f"`{key}` not among the arguments",
            "take it out",
        )
    return plug_in, factory, filled | network.arguments


def make_loss(name: str, batch: bool, some_unknown: bool) -> Any:
    """``losses.make_loss`` for a loss of another package.

    Raises:
        InputError: if it is not what it has to be.
    """
    plug_in = find("losses", name)
    factory = plug_in.load()
    taken = _parameters(factory)
    if "batch" not in taken:
        raise plug_in.refused(
            f"takes {_signature(factory)}",
            "a class or function that takes `batch` (whether the loss is over the batch at once), "
            "and gives a torch.nn.Module from logits and targets to a number",
        )
    asked = {"batch": batch}
    if some_unknown:
        if "some_unknown" not in taken:
            raise plug_in.refused(
                "has no parameter `some_unknown`, and the ground truth of some voxels is not known",
                "a loss that leaves out the voxels whose target is -1, where it is made with "
                "`some_unknown=True`",
            )
        asked["some_unknown"] = True
    try:
        loss = factory(**asked)
    except Exception as error:
        raise plug_in.refused(
            f"fails when it is made with {asked}: {type(error).__name__}: {error}",
            "a class or function that takes `batch`",
        ) from error
    if not isinstance(loss, nn.Module):
        raise plug_in.refused(f"gives {type(loss).__name__}", "a torch.nn.Module")
    return loss


def check_loss(name: str, regions: int, some_unknown: bool) -> None:
    """Try a loss of another package on a few voxels, over the batch and per sample.

    Raises:
        InputError: if it fails, gives no number, or has no gradient.
    """
    plug_in = find("losses", name)
    shape = (2, regions, SIDE, SIDE, SIDE)
    # Between zeros and ones lie the targets of a finish.
    target = torch.linspace(0, 1, 2 * regions * SIDE**3).reshape(shape)
    for batch in (True, False):
        logits = torch.zeros(shape, requires_grad=True)
        try:
            value = make_loss(name, batch, some_unknown)(logits, target)
            value.backward()
        except InputError:
            raise
        except Exception as error:
            raise plug_in.refused(
                f"fails on logits and targets of {shape}: {type(error).__name__}: {error}",
                "a loss of logits and targets from 0 to 1, both (batch, region, x, y, z)",
            ) from error
        gradient = logits.grad
        if value.ndim or not value.isfinite() or gradient is None or not gradient.isfinite().all():
            raise plug_in.refused(
                f"gives {value.detach().tolist()!r} for logits of 0, with a gradient that is "
                f"{'missing' if gradient is None else 'there'}",
                "one finite number, with a finite gradient by the logits",
            )


def _parameters(factory: Any) -> set[str]:
    """The names that something takes; none of what cannot be called."""
    try:
        return set(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return set()


def _signature(factory: Any) -> str:
    """How something is called, for messages."""
    if not callable(factory):
        return f"no call: it is {factory!r}"
    try:
        return str(inspect.signature(factory))
    except (TypeError, ValueError):
        return "nothing that is known"
