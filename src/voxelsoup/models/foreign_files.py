"""Files of weights that other programs wrote, read without running any code of them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxelsoup.common.errors import InputError
from voxelsoup.models import weight_files
from voxelsoup.models.weight_files import Weights

SAFE = ".safetensors"
# What torch.save wrote: of torch itself, Lightning, nnU-Net v2 and v1.
OF_TORCH = (".pt", ".pth", ".ckpt", ".model")
# Where training programs keep the network's weights in a checkpoint: Lightning and nnU-Net v1,
# nnU-Net v2, MONAI and others. The first one that is there counts.
PLACES = ("state_dict", "network_weights", "model_state_dict", "model", "network", "net", "weights")
# Wrappers of torch that put a name in front of all others.
PARALLEL, COMPILED = "module.", "_orig_mod."
DEEPEST = 3


def _numpy_scalars() -> list[Any]:
    """What numbers of numpy are pickled as: no more than numbers."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__ if name != "ObjectDType"]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def read_weights(path: Path) -> tuple[Weights, dict[str, Any]]:
    """The weights of a file by the names that it has for them, and its description.

    Only a file that voxelsoup wrote has a description. Checkpoints may hold anything beside the
    weights that can be read without running code.

    Raises:
        InputError: if the file is missing, damaged or of no known kind, holds what only running
            its code could read, no weights or several networks, or NaN or infinite weights.
    """
    ending = path.suffix.lower()
    if ending == SAFE:
        weights, description = weight_files.load(path)
    elif ending in OF_TORCH:
        weights, description = _state_dict(_unpickled(path), path), {}
    else:
        raise InputError(
            path,
            f"has the ending {ending or 'of no file of weights'}",
            f"a file of weights: {', '.join((SAFE, *OF_TORCH))}",
            "name a file of weights, or rename it if it is one",
        )
    weights = _unwrapped(weights)
    _check_finite(weights, path)
    return weights, description


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise InputError(path, "no such file", "a file of weights", "check the path")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            # What follows them is an error, or weights.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(path, error) from None
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, AttributeError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            path,
            f"cannot be read as weights: {first[0]}",
            "a complete file that torch.save wrote; TorchScript archives hold code",
            "copy the file again if it is incomplete, or save the weights alone: "
            'torch.save(model.state_dict(), "weights.pt")',
        ) from error


def _unsafe(path: Path, error: pickle.UnpicklingError) -> InputError:
    """What of a file could run code, if torch can name it."""
    try:
        named = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    except Exception:
        # It is no archive of torch, whose list alone can be read without unpickling.
        named = []
    found = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    lines = [line.strip() for line in str(error).splitlines() if "WeightsUnpickler" in line]
    found = found or (lines[0] if lines else "a pickle that is no file of weights")
    return InputError(
        path,
        f"holds more than weights and numbers, which only running its code could read: {found}",
        "tensors, numbers and text (torch.load with weights_only=True, numbers of numpy allowed)",
        "if you trust where it comes from, save its weights alone once, in the program that made "
        'it: c = torch.load(FILE, weights_only=False); torch.save(c["state_dict"], "weights.pt")',
    )


def _state_dict(content: Any, path: Path, depth: int = 0) -> Weights:
    """The one mapping of names to tensors in what a checkpoint holds."""
    if _is_weights(content):
        return dict(content)
    inner = dict(content) if isinstance(content, Mapping) else {}
    nested = {key: value for key, value in inner.items() if _holds_weights(value, depth)}
    known = [key for key in PLACES if key in nested]
    chosen = known[:1] or list(nested)
    if len(chosen) == 1:
        return _state_dict(nested[chosen[0]], path, depth + 1)
    held = ", ".join(map(str, nested or list(inner)[:8])) or type(content).__name__
    raise InputError(
        path,
        f"holds several sets of weights: {held}" if nested else f"holds no weights, but: {held}",
        f"the weights of one network, by themselves or as one of {', '.join(PLACES)}",
        "save the weights that are meant alone, as a .pt or .safetensors file",
    )


def _is_weights(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) for key in value)
        and all(isinstance(tensor, torch.Tensor) for tensor in value.values())
    )


def _holds_weights(value: Any, depth: int) -> bool:
    """Whether weights lie in a value, itself or deeper; states of optimizers are numbered."""
    if _is_weights(value):
        return True
    if depth >= DEEPEST or not isinstance(value, Mapping) or "param_groups" in value:
        return False
    return any(
        isinstance(key, str) and _holds_weights(inner, depth + 1) for key, inner in value.items()
    )


def _unwrapped(weights: Weights) -> Weights:
    """Weights without the names that torch's wrappers put in front of the network's own."""
    found = {name.replace(COMPILED, ""): tensor for name, tensor in weights.items()}
    while found and all(name.startswith(PARALLEL) for name in found):
        found = {name.removeprefix(PARALLEL): tensor for name, tensor in found.items()}
    return found if len(found) == len(weights) else weights


def _check_finite(weights: Weights, path: Path) -> None:
    wrong = [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if wrong:
        raise InputError(
            path,
            f"has NaN or infinite weights: {', '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
            "finite weights",
            "take another checkpoint of the run that made it",
        )
