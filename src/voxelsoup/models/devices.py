"""Where torch computes, and the settings under which its results are bit-identical."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.models.gpu_locks import claim, claim_all

Item = TypeVar("Item")

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}

# Numbers from which on a piece of work is worth a thread: below, threads wait for Python's lock.
PARALLEL_ABOVE = 500_000

# Of glibc's malloc.h, and its defaults.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TRIM_THRESHOLD, MMAP_MAX = 128 * 1024, 65536


def prepare(
    device: str,
    threads: int,
    where: str = "training.device",
    gpu: int | None = None,
    runs_per_gpu: int = 1,
) -> torch.device:
    """Choose the device and make torch deterministic on it.

    Args:
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads of this process; sums are split by them, so that results are
            bit-identical for the same number only.
        where: the key or option that says so, for messages.
        gpu: number of the GPU, where it is reserved already (``reserved``).
        runs_per_gpu: so many processes that say the same may share a GPU.

    Raises:
        InputError: if a GPU is asked for and there is none.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Results do not depend on it, for nothing reads memory that was not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            where,
            "is `cuda`, and torch sees no GPU here",
            "a machine with a GPU and its driver",
            "set it to `auto` or `cpu`, or run the job on a GPU node",
        )
    if device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory(True)
        return torch.device("cpu")
    if gpu is None:
        gpu = _free_gpu(runs_per_gpu)
    return torch.device("cuda", gpu)


@contextmanager
def reserved(device: str, count: int) -> Iterator[list[int]]:
    """Reserve GPUs for processes that this one starts, until they have ended.

    Args:
        device: `auto`, `cpu` or `cuda`.
        count: how many.

    Yields:
        Their numbers; none on a machine without GPUs, or for `cpu`.

    Raises:
        InputError: if there are fewer.
    """
    found = torch.cuda.device_count() if device != "cpu" else 0
    if found == 0 and device != "cuda":
        yield []
        return
    if found < count:
        raise InputError(
            "resources.training.gpu",
            f"asks for {count} GPUs, and torch sees {found} here",
            "a machine, or a job, with this many",
            f"set it to {max(1, found)}, or run the job elsewhere",
        )
    handles: list[int] = []
    try:
        yield claim_all(_names(), count, handles)
    finally:
        for handle in handles:
            os.close(handle)


def several(device: torch.device, count: int) -> list[torch.device]:
    """Devices for so many models at once: a GPU each if there are enough, else the one given."""
    if device.type == "cpu" or count == 1 or torch.cuda.device_count() < count:
        return [device] * count
    return [torch.device("cuda", number) for number in range(count)]


def _free_gpu(runs_per_gpu: int) -> int:
    """The GPU to use: SLURM has allocated it, or it is one that no other job here has."""
    # Several: runs that share a submission have to share them out.
    if "SLURM_JOB_ID" in os.environ and torch.cuda.device_count() == 1:
        return 0
    return claim(_names(), runs=runs_per_gpu)


def _names() -> list[str]:
    """Names of the GPUs that are the same for all processes of the machine."""
    gpus = range(torch.cuda.device_count())
    return [str(torch.cuda.get_device_properties(gpu).uuid) for gpu in gpus]


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


def parallel_map(
    work: Callable[[Item], None], items: Sequence[Item], numbers: int, device: torch.device
) -> None:
    """Do independent pieces of work; on a CPU large ones as many at once as torch has threads.

    Small operations gain nothing from a second thread of their own. Each piece is computed by one,
    whatever the number of threads, so that results are bit-identical.

    Args:
        work: what is done to each; it calls torch.
        items: the pieces, about equally large.
        numbers: that each piece reads and writes.
        device: where they lie; a GPU is handed one after the other.
    """
    threads = torch.get_num_threads()
    # Of the whole process, not of the thread that says it.
    torch.set_num_threads(1)
    try:
        if device.type == "cpu" and threads > 1 and numbers >= PARALLEL_ABOVE:
            with ThreadPoolExecutor(threads) as pool:
                # Asked for, what failed in one is raised here.
                list(pool.map(work, items))
        else:
            for item in items:
                work(item)
    finally:
        torch.set_num_threads(threads)


def compiled(model: nn.Module) -> Callable[[torch.Tensor], Any]:
    """A model's forward pass through torch.compile, with a cache that outlives the machine's /tmp.

    The model itself stays as it is, with its names of weights.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "voxelsoup", "inductor")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    forward: Callable[[torch.Tensor], Any] = torch.compile(model)
    return forward


def keep_freed_memory(keep: bool) -> None:
    """Have this process keep the memory that it frees, where it will soon want as much again.

    By default glibc gives large blocks back at once, and the kernel clears them again for each
    tensor: a tenth of a training step on CPUs, a quarter of the augmentation, most of a forward
    pass over a large window. Other C libraries are left alone.

    Args:
        keep: False: by glibc's default again, for work of many sizes, whose pieces would add up.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_MAX, 0 if keep else MMAP_MAX)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if keep else TRIM_THRESHOLD)
        if not keep:
            library.malloc_trim(0)
