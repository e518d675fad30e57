"""Where torch computes, and the settings under which its results are bit-identical."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from voxelsoup.common.errors import InputError

log = logging.getLogger(__name__)

Item = TypeVar("Item")

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}

# Numbers from which on a piece of work is worth a thread: below, threads wait for Python's lock.
PARALLEL_ABOVE = 500_000

# Bytes of a GPU that a process takes at most beside its tensors: CUDA itself and its libraries.
OWN_CONTEXT = 2**30

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
        device: `auto`, `cpu`, `cuda`, or `mps` for the GPU of an Apple computer, which nobody has
            tried yet, so that `auto` does not choose it.
        threads: CPU threads of this process; sums are split by them, so that results are
            bit-identical for the same number only.
        where: the key or option that says so, for messages.
        gpu: number of the GPU, where it is reserved already (``reserved``).
        runs_per_gpu: so many processes that say the same may share a GPU.

    Raises:
        InputError: if a GPU is asked for and there is none.
    """
    if device == "mps":
        _check_mps(where)
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
    if device == "mps":
        return torch.device("mps")
    if device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory(True)
        return torch.device("cpu")
    if gpu is None:
        gpu = _free_gpu(runs_per_gpu)
    return torch.device("cuda", gpu)


def _check_mps(where: str) -> None:
    if not torch.backends.mps.is_available():
        raise InputError(
            where,
            "is `mps`, and torch sees no GPU of an Apple computer here",
            "a Mac with Apple silicon, and torch's own build for it",
            "set it to `cpu`, or to `auto`",
        )


def ran_out_of_memory(error: Exception) -> bool:
    """Whether this is what Python or torch raise where memory is too small for the work."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # Torch has no class of its own for Apple's.
    return isinstance(error, RuntimeError) and "MPS backend out of memory" in str(error)


@contextmanager
def reserved(device: str, count: int) -> Iterator[list[int]]:
    """Reserve GPUs for processes that this one starts, until they have ended.

    Yields:
        Their numbers; none on a machine without GPUs, or for the device `cpu`.

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


def claim(names: Sequence[str], patience: float = math.inf, runs: int = 1) -> int:
    """Reserve one of several devices for this process, until it ends, however it ends.

    The kernel keeps the reservations: locks on files per device, which die with the process.
    A device that is shared has a lock that all who share it hold together, and one for each
    place; a process that needs it alone waits until the first is free.

    Args:
        names: of the devices, the same in all processes of the machine.
        patience: seconds to wait for one to become free.
        runs: places on each device, of which this process takes one; 1: it takes all.

    Returns:
        The index of the reserved device.

    Raises:
        TimeoutError: if none became free.
    """
    deadline = time.monotonic() + patience
    while True:
        # The first place of every device before the second of any: runs spread out.
        for place in range(runs):
            for index, device in enumerate(names):
                handles = _place(device, place) if runs > 1 else _exclusively(device)
                if handles:
                    _HELD.extend(handles)
                    return index
        if time.monotonic() >= deadline:
            raise TimeoutError(f"all of {', '.join(names)} are in use")
        log.info("waiting for one of %d GPUs to become free", len(names))
        time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))


def claim_all(
    names: Sequence[str], count: int, handles: list[int], patience: float = math.inf
) -> list[int]:
    """Reserve several devices at once: none is held while others are waited for.

    Names, patience and result as in ``claim``; ``handles`` takes what holds the devices, which
    are free when all of it is closed.

    Raises:
        TimeoutError: if they did not become free.
    """
    deadline = time.monotonic() + patience
    while True:
        taken: list[int] = []
        for index, device in enumerate(names):
            held = _exclusively(device) if len(taken) < count else []
            if held:
                handles += held
                taken.append(index)
        if len(taken) == count:
            return taken
        while handles:
            os.close(handles.pop())
        if time.monotonic() >= deadline:
            raise TimeoutError(f"fewer than {count} of {', '.join(names)} are free")
        log.info("waiting for %d of %d GPUs to become free", count, len(names))
        time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))


# Open files are what holds the locks.
_HELD: list[int] = []


def _exclusively(device: str) -> list[int]:
    """Take a device alone; the open file that holds it, or nothing."""
    handle = _lock(f"{device}.lock", fcntl.LOCK_EX)
    return [] if handle is None else [handle]


def _place(device: str, place: int) -> list[int]:
    """Take one place of a device that is shared; the open files that hold it, or nothing."""
    shared = _lock(f"{device}.lock", fcntl.LOCK_SH)
    if shared is None:
        return []
    own = _lock(f"{device}.{place}.lock", fcntl.LOCK_EX)
    if own is None:
        os.close(shared)
        return []
    return [shared, own]


def _lock(name: str, kind: int) -> int | None:
    """Lock a file without waiting; another user's file will do, for reading is enough."""
    path = Path(tempfile.gettempdir()) / f"voxelsoup-gpu-{name}"
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def name(device: torch.device) -> str:
    """The name of the device: the GPU's model, `mps` or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def memory(device: torch.device) -> int | None:
    """Bytes that a GPU has; None for a CPU."""
    on_gpu = device.type == "cuda"
    return int(torch.cuda.get_device_properties(device).total_memory) if on_gpu else None


def is_alone(device: torch.device) -> bool:
    """Whether no other process has memory of a GPU to speak of, and none in sight has more.

    Only then is a training that did not fit too large for any GPU that it may get here.
    """
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    in_sight = [memory(torch.device("cuda", n)) or 0 for n in range(torch.cuda.device_count())]
    return others < OWN_CONTEXT and max(in_sight) <= (memory(device) or 0)


def precision_on(device: torch.device, precision: str) -> str:
    """What `auto` means on a device; all others are what they say."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    # Older cards compute bfloat16 too, but through float32.
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
    # These hold for the whole process, not for this thread alone.
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
