"""Places on the GPUs of a machine, which jobs of one machine share out among themselves.

The kernel keeps them: locks on files in the folder for temporary files, which die with their
process, however it ends. They are taken here and not by the package filelock (4.2.12), which
refuses a lock file of another user's and has no locks that several processes hold together.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

Found = TypeVar("Found")

# Open files are what holds the locks of this process.
_HELD: list[int] = []


def claim(names: Sequence[str], patience: float = math.inf, runs: int = 1) -> int:
    """Reserve one of several devices for this process, until it ends.

    A device that is shared has a lock that all who share it hold together, and one for each
    place; a process that wants it alone waits until nobody holds the first.

    Args:
        names: of the devices, the same in all processes of the machine.
        patience: seconds to wait for one to become free.
        runs: places on each device, of which this process takes one; 1: it takes all.

    Returns:
        The index of the reserved device.

    Raises:
        TimeoutError: if none became free.
    """

    def take() -> int | None:
        # The first place of every device before the second of any: runs spread out.
        for place in range(runs):
            for index, device in enumerate(names):
                handles = _place(device, place) if runs > 1 else _alone(device)
                if handles:
                    _HELD.extend(handles)
                    return index
        return None

    return _wait_for(take, f"one of the GPUs {', '.join(names)}", patience)


def claim_all(
    names: Sequence[str], count: int, handles: list[int], patience: float = math.inf
) -> list[int]:
    """Reserve several devices at once: none is held while others are waited for.

    Args:
        names: of the devices, the same in all processes of the machine.
        count: how many of them.
        handles: takes what holds them: they are free when all of it is closed.
        patience: seconds to wait for them.

    Returns:
        The indices of the reserved devices.

    Raises:
        TimeoutError: if they did not become free.
    """

    def take() -> list[int] | None:
        taken: list[int] = []
        for index, device in enumerate(names):
            held = _alone(device) if len(taken) < count else []
            if held:
                handles.extend(held)
                taken.append(index)
        if len(taken) == count:
            return taken
        while handles:
            os.close(handles.pop())
        return None

    return _wait_for(take, f"{count} of the GPUs {', '.join(names)}", patience)


def _wait_for(take: Callable[[], Found | None], wanted: str, patience: float) -> Found:
    """Try until something is taken."""
    deadline = time.monotonic() + patience
    while (found := take()) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{wanted} did not become free in {patience:g} s")
        log.info("waiting for %s to become free", wanted)
        time.sleep(min(2.0, left))
    return found


def _alone(device: str) -> list[int]:
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
