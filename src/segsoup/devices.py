"""Where torch computes, and the settings under which it repeats itself to the bit."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from segsoup.errors import InputError

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def prepare(device: str, threads: int) -> torch.device:
    """Choose the device and make torch deterministic on it.

    Args:
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads of this process; sums are split by them, so that results are the
            same to the bit for the same number only.

    Raises:
        InputError: if a GPU is asked for and there is none.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "training.device",
            "is `cuda`, and torch sees no GPU here",
            "a machine with a GPU and its driver",
            "set it to `auto` or `cpu`, or run the job on a GPU node",
        )
    use_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def name(device: torch.device) -> str:
    """The device for people: the GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Automatic mixed precision, or nothing for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[precision])
