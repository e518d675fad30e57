"""Weights on disk: safetensors files that say what they are."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import atomic_write, write_text
from voxelsoup.common.plug_ins import find, is_plug_in
from voxelsoup.common.provenance import FORMER_NAME, NAME
from voxelsoup.study.study import Study

Weights = dict[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
# How many names of weights a message lists.
NAMED = 3

# One key only: safetensors writes several in random order, and files would differ by it.
METADATA_KEY, FORMER_KEY = NAME, FORMER_NAME
# In a description: the package that the network is of, where that is not MONAI.
NETWORK_FROM = "network_from"
# What is in the place of the weights of a run that diverged: no program takes it for weights.
NO_WEIGHTS = f"{NAME}: no weights, the training of this run diverged"


def describe(study: Study) -> dict[str, Any]:
    """What a model file has to say for it to be used or averaged with others."""
    settings = study.model_dump(mode="json")
    mirrored = settings["training"].get("mirror_axes")
    return {
        "network": settings["network"],
        "channels": settings["dataset"]["channels"],
        "regions": settings["regions"],
        "preprocess": settings["preprocess"],
        "patch": settings["training"]["patch"],
        # Only where some are left out: other files say what they always said.
        **({} if mirrored is None else {"mirror_axes": mirrored}),
        **_package_of(study.network.name),
    }


def _package_of(network: str) -> dict[str, Any]:
    """From where a network of another package is, without its version: averages of models that
    were made with several versions are asked about elsewhere.
    """
    if not is_plug_in("networks", network):
        return {}
    plug_in = find("networks", network)
    package = plug_in.distribution.name if plug_in.distribution else None
    return {NETWORK_FROM: {"object": plug_in.path, "package": package}}


def save(path: Path, weights: Weights, description: dict[str, Any]) -> str:
    """Write weights and their description atomically; gives the SHA-256 of the file.

    The same input gives the same bytes.
    """
    tensors: Weights = {}
    storages: set[int] = set()
    for name, tensor in weights.items():
        tensors[name] = tensor.detach().cpu().contiguous()
        storage = tensors[name].untyped_storage().data_ptr()
        # Some networks (DynUNet) have one tensor under two names, which safetensors refuses.
        if storage in storages:
            tensors[name] = tensors[name].clone()
        storages.add(storage)
    with atomic_write(path) as temporary:
        # Not sorted: the regions' order is that of the network's outputs.
        metadata = {METADATA_KEY: json.dumps(description)}
        # Through bytes: safetensors' own writing hides why it fails.
        content = serialize(tensors, metadata=metadata)
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def write_no_weights(path: Path) -> None:
    """Write a text in the place of weights that there are none of: the run diverged."""
    write_text(path, f"{NO_WEIGHTS}; see its run.json\n")


def load(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Read weights and their description (empty if another program wrote the file).

    Raises:
        InputError: if the file is missing, damaged or not a safetensors file.
    """
    with _opened(path) as opened:
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return weights, _description(opened)


def stream(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a model file one after the other, mapped from the disk, not copied.

    A tensor may be used until the next one is asked for.

    Raises:
        InputError: as ``load``.
    """
    with _opened(path) as opened:
        for name in opened.keys():  # noqa: SIM118
            yield name, opened.get_tensor(name)


def shapes(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], str]], dict[str, Any]]:
    """Name -> shape and type of the weights, and the description; reads the header alone.

    Raises:
        InputError: as ``load``.
    """
    with _opened(path) as opened:
        parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        found = {
            name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in parts.items()
        }
        return found, _description(opened)


def read_slice(path: Path, start: int, stop: int) -> np.ndarray:
    """Part of a model's floating-point weights, laid end to end in the order of their names.

    From number ``start`` to ``stop`` - 1, or those that there are, as float64; nothing else is
    read from the file.

    Raises:
        InputError: as ``load``.
    """
    pieces, before = [np.empty(0)], 0
    with _opened(path) as opened:
        for name in sorted(opened.keys()):
            header = opened.get_slice(name)
            if not header.get_dtype().startswith(("F", "BF")):
                continue
            count = math.prod(header.get_shape())
            first, last = max(start - before, 0), min(stop - before, count)
            if first < last:
                # Mapped from the disk: nothing but the slice is read.
                part = opened.get_tensor(name).reshape(-1)[first:last]
                pieces.append(part.double().numpy())
            before += count
    return np.concatenate(pieces)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as opened:
            yield opened
    except FileNotFoundError as error:
        raise InputError(
            path, "no such file", "a model file (.safetensors)", "check the path"
        ) from error
    except (SafetensorError, ValueError, OSError) as error:
        if _has_no_weights(path):
            raise InputError(
                path,
                "holds no weights: the training of its run diverged (its run.json says where)",
                "the model of a run that did not diverge",
                "take another model of the study; those of `best` and `soups` are made without it",
            ) from error
        raise InputError(
            path,
            f"cannot be read as weights: {error}",
            "a complete safetensors file; other formats could run code when they are loaded",
            "convert the weights to safetensors, or copy the file again if it is incomplete",
        ) from error


def _has_no_weights(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(NO_WEIGHTS)) == NO_WEIGHTS.encode()
    except OSError:
        return False


def _description(opened: Any) -> dict[str, Any]:
    metadata = opened.metadata() or {}
    description = json.loads(metadata.get(METADATA_KEY) or metadata.get(FORMER_KEY, "{}"))
    if not isinstance(description, dict):
        raise ValueError(f"its description is {description!r} instead of a mapping")
    return description


def fit(model: nn.Module, weights: Weights, where: str | Path) -> None:
    """Put weights into a model, if they pass ``check_fit``."""
    check_fit(model, weights, where)
    model.load_state_dict(weights)


def check_fit(model: nn.Module, weights: Weights, where: str | Path) -> None:
    """Make sure that weights belong to a model's network.

    Raises:
        InputError: naming the first weights that are missing, unknown and of another shape.
    """
    differences = misfits(shapes_of(model), shapes_of_weights(weights))
    if differences:
        raise InputError(
            where,
            f"does not fit the network: it {'; it '.join(differences)}",
            "weights of the study's network, channels and regions",
            "use weights of this network, or set `network`, `dataset.channels` and "
            "`regions` to those of the weights",
        )


def shapes_of(model: nn.Module) -> Shapes:
    """Name -> shape of a model's weights."""
    return shapes_of_weights(model.state_dict())


def shapes_of_weights(weights: Mapping[str, torch.Tensor]) -> Shapes:
    """Name -> shape of weights."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def misfits(expected: Shapes, found: Shapes) -> list[str]:
    """What is missing, unknown and of another shape, each with its first names and their number."""
    reshaped = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    kinds = {
        "lacks": [name for name in expected if name not in found],
        "has unknown": [name for name in found if name not in expected],
        "has": reshaped,
    }
    return [f"{kind} {_first(names)}" for kind, names in kinds.items() if names]


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
