"""The watchdog of a training process: it ends a process in which no step ends any more.

The thread that trains may be stuck in a file server, a GPU or a library, where no exception reaches
it. So a thread beside it writes down where the run stands, and ends the process.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, TypeVar

from voxelsoup.common.errors import Stopped, place_of

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

# The first step of a job waits for the first files, and may compile the network.
FIRST_STEP = 2
# Between two looks, and how long a process that should end by itself may take, in seconds.
LOOK = 1.0
GRACE = 15.0
# Writing down where a run stands may hang for the same reason as the run.
SECONDS_TO_REPORT = 20
# Processes that were started show their stacks there when they get this signal.
SHOW_STACKS = signal.SIGUSR2
_stacks: IO[bytes] | None = None


class Hung(Stopped):
    """No step ended for long; the run resumes from its last saved state."""


class Watchdog:
    """Watches over a training process, as a context.

    It counts its looks, not the time: a process that was stopped for hours, as Slurm's suspended
    jobs are, has not hung.
    """

    def __init__(
        self,
        minutes: float,
        end: Callable[[Stopped], None],
        trouble: Callable[[], Stopped | None] = lambda: None,
    ) -> None:
        """Set up.

        Args:
            minutes: a step may take, and the first one ``FIRST_STEP`` times as long.
            end: ends the process for a reason, without help of the thread that trains.
            trouble: why this process should be ending by itself, within ``GRACE`` seconds.
        """
        self.minutes, self._end, self._trouble = minutes, end, trouble
        self._look = min(LOOK, 60 * minutes / 10)
        self._left: float | None = None
        self._troubled = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        global _stacks
        # Processes that are forked inherit it.
        _stacks = _stacks or tempfile.TemporaryFile()
        self._thread.start()
        return self

    def over(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """The same batches, which are closed with it: the step of one ends where the next is asked
        for, and has to end in time."""
        self._left = 60 * self.minutes * FIRST_STEP
        try:
            with closing(batches) as open_batches:
                for batch in open_batches:
                    yield batch
                    self._left = 60 * self.minutes
        finally:
            self._left = None

    def _watch(self) -> None:
        while not self._done.wait(self._look):
            reason = self._reason()
            if reason is not None:
                self._end_for(reason)
                return

    def _reason(self) -> Stopped | None:
        """Why the process has to be ended, if it has, at one more look."""
        if self._left is not None:
            self._left -= self._look
            if self._left <= 0:
                return self._hung()
        trouble = self._trouble()
        self._troubled = self._troubled + self._look if trouble else 0.0
        return trouble if self._troubled > GRACE else None

    def _hung(self) -> Hung:
        main = sys._current_frames()[threading.main_thread().ident or 0]
        return Hung(
            f"no step has ended for {self.minutes:g} minutes (`training.watchdog`): process "
            f"{os.getpid()} stood in {place_of(traceback.extract_stack(main))}; the log shows its "
            "threads and its data workers\n  fix: start again: the run resumes from its last saved "
            "state; if it stands there again, look for what it waits for (file server, GPU)"
        )

    def _end_for(self, reason: Stopped) -> None:
        # A thread of C, which nothing can keep from ending the process.
        faulthandler.dump_traceback_later(
            SECONDS_TO_REPORT, exit=True, file=sys.__stderr__ or sys.stderr
        )
        log.error("where the run stands:\n%s", stacks())
        self._end(reason)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()


def show_stacks_on_request() -> None:
    """Let the process that started this one see, by ``stacks``, where this one stands."""
    if _stacks is not None:
        faulthandler.register(SHOW_STACKS, file=_stacks)


def stacks() -> str:
    """Where the threads of this process, and the processes that it started, stand."""
    frames = sys._current_frames()
    lines = [
        f"thread {thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
        for thread in threading.enumerate()
        if thread.ident in frames and thread is not threading.current_thread()
    ]
    children = _children()
    lines += [f"process {child}: {_state(child)}" for child in children]
    for child in children:
        _ask_for_stacks(child)
    if children and _stacks is not None:
        # A process that waits for a disk answers when the disk does, which is never.
        time.sleep(0.5)
        _stacks.seek(0)
        lines.append(_stacks.read().decode(errors="replace"))
    return "\n".join(lines)


def _children() -> list[int]:
    own = Path("/proc/self/task")
    with suppress(OSError):
        return [int(child) for path in own.glob("*/children") for child in path.read_text().split()]
    return []


def _ask_for_stacks(process: int) -> None:
    """Ask a process that catches the signal, which would end others."""
    with suppress(OSError, StopIteration):
        status = Path(f"/proc/{process}/status").read_text().splitlines()
        caught = int(next(line for line in status if line.startswith("SigCgt")).split()[1], 16)
        if caught >> (SHOW_STACKS - 1) & 1:
            os.kill(process, SHOW_STACKS)


def _state(process: int) -> str:
    """What the kernel says of a process: its state, and where it waits in the kernel."""
    with suppress(OSError, StopIteration):
        status = Path(f"/proc/{process}/status").read_text().splitlines()
        state = next(line for line in status if line.startswith("State")).split(None, 1)[1]
        waits = Path(f"/proc/{process}/wchan").read_text().strip("0\n")
        return f"{state}, in {waits}" if waits else state
    return "gone"
