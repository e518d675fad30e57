"""Where torch computes, and the settings under which it repeats itself to the bit."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segsoup.errors import InputError

log = logging.getLogger(__name__)

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def prepare(device: str, threads: int, where: str = "training.device") -> torch.device:
    """Choose the device and make torch deterministic on it.

    Args:
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads of this process; sums are split by them, so that results are the
            same to the bit for the same number only.
        where: the key or option that says so, for messages.

    Raises:
        InputError: if a GPU is asked for and there is none.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            where,
            "is `cuda`, and torch sees no GPU here",
            "a machine with a GPU and its driver",
            "set it to `auto` or `cpu`, or run the job on a GPU node",
        )
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", _free_gpu())


def several(device: torch.device, count: int) -> list[torch.device]:
    """Devices for so many models at once: a GPU each if there are enough, else the one given."""
    if device.type == "cpu" or count == 1 or torch.cuda.device_count() < count:
        return [device] * count
    return [torch.device("cuda", number) for number in range(count)]


def _free_gpu() -> int:
    """The GPU to use: SLURM has allocated it, or it is one that no other job here has."""
    if "SLURM_JOB_ID" in os.environ:
        return 0
    count = torch.cuda.device_count()
    return claim([str(torch.cuda.get_device_properties(gpu).uuid) for gpu in range(count)])


def claim(names: Sequence[str], patience: float = math.inf) -> int:
    """Reserve one of several devices for this process, until it ends, however it ends.

    The kernel keeps the reservations: a lock on a file per device, which dies with the process.

    Args:
        names: of the devices, the same in all processes of the machine.
        patience: seconds to wait for one to become free.

    Returns:
        The index of the reserved device.

    Raises:
        TimeoutError: if none became free.
    """
    deadline = time.monotonic() + patience
    while True:
        for index, device in enumerate(names):
            if _lock(Path(tempfile.gettempdir()) / f"segsoup-gpu-{device}.lock"):
                return index
        if time.monotonic() >= deadline:
            raise TimeoutError(f"all of {', '.join(names)} are in use")
        log.info("waiting for one of %d GPUs to become free", len(names))
        time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))


# Open files are what holds the locks.
_HELD: list[int] = []


def _lock(path: Path) -> bool:
    """Lock a file without waiting; another user's file will do, for reading is enough."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    _HELD.append(handle)
    return True


def name(device: torch.device) -> str:
    """The device for people: the GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def precision_on(device: torch.device, precision: str) -> str:
    """What `auto` means on a device; all others are what they say."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    # Older cards compute bfloat16 too, but by way of float32.
    has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if has_bfloat16 else "float16"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Automatic mixed precision, or nothing for float32."""
    chosen = precision_on(device, precision)
    if chosen == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[chosen])


def compiled(model: nn.Module) -> Callable[[torch.Tensor], Any]:
    """A model's forward pass through torch.compile, with a cache that outlives the machine's /tmp.

    The model itself stays as it is, with its names of weights.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "segsoup", "inductor")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    forward: Callable[[torch.Tensor], Any] = torch.compile(model)
    return forward


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for it will soon want as much again.

    By default glibc gives large blocks back at once, and the kernel clears them anew for each
    tensor: a tenth of a training step on CPUs, a quarter of the augmentation. Other C libraries are
    left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
