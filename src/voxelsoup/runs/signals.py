"""Requests to end: signals of a scheduler or a user, noted until work can stop cleanly."""

from __future__ import annotations

import ctypes
import os
import signal
from types import FrameType
from typing import Any

from voxelsoup.common.errors import Stopped

# SLURM sends TERM on scancel and at the time limit, and USR1 ahead of it where a site asks for
# it; INT and HUP come from a terminal.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
# Of Linux's prctl.h.
PR_SET_PDEATHSIG = 1


class Interrupted(Stopped):
    """The process was asked to end."""


class Interruption:
    """Notes signals instead of dying of them; to be used as a context, in the main thread."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def check(self) -> None:
        """End here if a signal came.

        Raises:
            Interrupted: naming the signal.
        """
        if self.signal is not None:
            raise Interrupted(f"stopped by {self.signal}")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Leave it to the parent process to react to signals, which SLURM sends to all processes."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent has ended, however that ended.

    ``parent`` is the number of the process that started this one, which may be gone already.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
