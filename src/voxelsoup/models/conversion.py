"""Weights of another program, or of a network that differs in a stated way, as the study's own.

A file has to fit exactly one network: the study's, with the file's number of input channels and
the file's smaller kernels. Where these differ, the study states what is done about it; names are
changed by its rules alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from voxelsoup.common.errors import InputError
from voxelsoup.models import networks, weight_files
from voxelsoup.models.foreign_files import read_weights
from voxelsoup.models.renaming import propose, renamed
from voxelsoup.models.weight_files import Shapes, Weights
from voxelsoup.study.sections.elsewhere import Conversion
from voxelsoup.study.sections.training import Network
from voxelsoup.study.study import Study

# The first kernel of a MedNeXt's blocks, which is as large as `network.kernel_size` says.
LARGE_KERNEL = ".conv1.weight"


@dataclass(frozen=True)
class Target:
    """The network that weights are to fit, with as many input channels and regions."""

    network: Network
    channels: int
    regions: int

    def outline(self) -> nn.Module:
        """The network without memory for its weights."""
        return networks.outline(self.network, self.channels, self.regions)

    def shapes(self) -> Shapes:
        """Name -> shape of its weights."""
        return weight_files.shapes_of(self.outline())


def target_of(study: Study) -> Target:
    """The network that weights of a study are of."""
    return Target(study.network, len(study.dataset.channels), len(study.regions))


def write_converted(source: Path, conversion: Conversion, study: Study, path: Path) -> str:
    """Write a file's weights as a model file of a study; returns its SHA-256.

    Raises:
        InputError: as ``read_converted``.
    """
    weights = read_converted(source, conversion, target_of(study))
    return weight_files.save(path, weights, weight_files.describe(study))


def read_converted(path: Path, conversion: Conversion, target: Target) -> Weights:
    """The weights of any file, by the names and in the shapes of a network.

    Raises:
        InputError: as ``read_weights`` and ``converted``.
    """
    return converted(read_weights(path)[0], conversion, target, path)


def converted(weights: Weights, conversion: Conversion, target: Target, where: Path) -> Weights:
    """Weights as those of a network, after what a study states is done to them.

    Raises:
        InputError: if a renaming rule fits no name or gives one twice; if the weights fit neither
            the network nor one that differs in ways that the study states, naming what is missing,
            unknown and of another shape, and rules that would do where some are found.
    """
    forms = _Forms(target)
    names = forms.under_all_names(renamed(weights, conversion.rename, where))
    shapes = weight_files.shapes_of_weights(names)
    differences = weight_files.misfits(forms.expected(shapes), shapes)
    if differences:
        raise _does_not_fit(where, differences, weights, conversion, forms)
    _check_stated(where, forms.source(shapes), target, conversion)
    types = {name: tensor.dtype for name, tensor in forms.model.state_dict().items()}
    changed = {
        name: _changed(names[name], shape, forms.inputs.get(name), conversion)
        for name, shape in forms.own.items()
    }
    return {name: tensor.to(types[name]).contiguous() for name, tensor in changed.items()}


class _Forms:
    """A network, and those that differ from it as a study may state.

    Attributes:
        own: name -> shape of its weights.
        inputs: the weights whose shape follows the number of input channels -> the dimension that
            does; nothing where the network makes anything else of that number.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.model = target, target.outline()
        self.own = weight_files.shapes_of(self.model)
        self.inputs = self._inputs()
        self._alike = _names_alike(self.model)
        self._known: dict[tuple[int, int], Shapes] = {}

    def source(self, shapes: Shapes) -> Target:
        """The network that a file's weights seem to be of, in so far as it may be another one."""
        channels = {
            shapes[name][place]
            for name, place in self.inputs.items()
            if name in shapes and len(shapes[name]) == len(self.own[name])
        }
        network = self.target.network
        kernels = {
            shapes[name][2:]
            for name in self.own
            if name.endswith(LARGE_KERNEL) and len(shapes.get(name, ())) == 5
        }
        side = next(iter(kernels))[0] if len(kernels) == 1 else network.kernel_size
        if network.name == "MedNeXt" and kernels == {3 * (side,)} and side < network.kernel_size:
            network = network.model_copy(update={"kernel_size": side})
        count = channels.pop() if len(channels) == 1 else self.target.channels
        return Target(network, count, self.target.regions)

    def expected(self, shapes: Shapes) -> Shapes:
        """Name -> shape of the weights of that network."""
        source = self.source(shapes)
        key = source.channels, source.network.kernel_size
        if key not in self._known:
            self._known[key] = source.shapes()
        return self._known[key]

    def expected_of_names(self, shapes: Shapes) -> Shapes:
        """The same, but each tensor under one name alone where the file has no more."""
        expected = self.expected(shapes)
        absent = {
            name
            for names in self._alike
            for name in names
            if name not in shapes and name != next((n for n in names if n in shapes), names[0])
        }
        return {name: shape for name, shape in expected.items() if name not in absent}

    def under_all_names(self, weights: Weights) -> Weights:
        """Weights that the network has under several names (DynUNet), under all of these."""
        filled = dict(weights)
        for names in self._alike:
            present = [name for name in names if name in weights]
            if present:
                filled |= {name: weights[present[0]] for name in names if name not in weights}
        return filled

    def _inputs(self) -> dict[str, int]:
        target = self.target
        try:
            more = Target(target.network, target.channels + 1, target.regions).shapes()
        except InputError:
            return {}
        if more.keys() != self.own.keys():
            return {}
        found = {}
        for name, shape in self.own.items():
            for place, sides in enumerate(zip(shape, more[name], strict=True)):
                if sides[0] != sides[1]:
                    if name in found or sides != (target.channels, target.channels + 1):
                        return {}
                    found[name] = place
        return found


def _names_alike(model: nn.Module) -> list[list[str]]:
    """The names of each tensor that a network has under several."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [alike for alike in names.values() if len(alike) > 1]


def _changed(
    tensor: torch.Tensor, shape: tuple[int, ...], inputs: int | None, conversion: Conversion
) -> torch.Tensor:
    """A tensor in the network's shape; ``inputs`` is its dimension of input channels, if any."""
    if tuple(tensor.shape) == shape:
        return tensor
    if inputs is not None:
        return _other_channels(tensor, shape[inputs], inputs, conversion)
    return grown(tensor, shape[2:])


def _other_channels(
    tensor: torch.Tensor, channels: int, dimension: int, conversion: Conversion
) -> torch.Tensor:
    before = tensor.shape[dimension]
    tensor = tensor.double()
    if conversion.first_convolution == "averaged":
        tensor = tensor.mean(dimension, keepdim=True)
    places = torch.arange(channels) % tensor.shape[dimension]
    tensor = tensor.index_select(dimension, places)
    # By as much as the first channels in turn weigh more or less than all of them did.
    return (tensor * (before / channels)).float()


def grown(kernel: torch.Tensor, sides: tuple[int, ...]) -> torch.Tensor:
    """A larger kernel by trilinear interpolation, as UpKern does it (Roy et al., MedNeXt, 2023).

    ``kernel`` is (out, in, x, y, z), and ``sides`` its new size in voxels.
    """
    return functional.interpolate(kernel.float(), size=sides, mode="trilinear")


def _check_stated(where: Path, source: Target, target: Target, conversion: Conversion) -> None:
    """Refuse to change weights in a way that the study does not state."""
    if source.channels != target.channels and conversion.first_convolution is None:
        raise InputError(
            where,
            f"has {source.channels} input channel(s) in its first convolution, and the study has "
            f"{target.channels}",
            "the study's number of channels, or a statement of what is done to the first "
            "convolution",
            "set `first_convolution: averaged` or `first_convolution: repeated` beside the file "
            f"({_as_option('first-convolution', 'averaged')})",
        )
    before, now = source.network.kernel_size, target.network.kernel_size
    if before != now and not conversion.upkern:
        raise InputError(
            where,
            f"has kernels of {before} voxels, and `network.kernel_size` is {now}",
            "kernels of this size, or a statement that smaller ones are grown",
            f"set `upkern: true` beside the file ({_as_option('upkern')}), or "
            f"`network.kernel_size: {before}`",
        )


def _as_option(option: str, value: str = "") -> str:
    return f"`voxelsoup soup`: --{option} {value}".rstrip()


def _does_not_fit(
    where: Path, differences: list[str], given: Weights, conversion: Conversion, forms: _Forms
) -> InputError:
    """What does not fit, and rules that would change that."""
    shapes = weight_files.shapes_of_weights(given)
    proposal = propose(shapes, forms.expected_of_names)
    fix = (
        "name a file of this very network, or set `network`, `dataset.channels` and `regions` to "
        "those of the file"
    )
    if forms.target.network.name == "MedNeXt" and all("down_blocks" in one for one in differences):
        # Roy et al. let a downsampling expand as the stage behind it, MONAI as the one before it.
        fix = (
            "only size S of MONAI's MedNeXt is the published network: the downsamplings of B, M "
            "and L expand otherwise; " + fix
        )
    if proposal is not None and dict(proposal.rules) != dict(conversion.rename):
        lines = [f"{_quoted(old)}: {_quoted(new)}" for old, new in proposal.rules.items()]
        fix = (
            f"if these are the same layers ({proposal.grounds}; {proposal.fitting} of "
            f"{proposal.expected} tensors then fit), state the rules beside the file:\n"
            "    rename:\n      " + "\n      ".join(lines)
        )
    return InputError(
        where,
        f"does not fit the network: it {'; it '.join(differences)}",
        f"the {len(forms.own)} tensors of the study's {forms.target.network.name}, by their names",
        fix,
    )


def _quoted(text: str) -> str:
    """Text as YAML takes it, whatever its characters."""
    return "'" + text.replace("'", "''") + "'"
