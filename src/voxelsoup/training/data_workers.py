"""Data workers: the processes that read the batches of a run beside its training.

torch's loader starts them and hands out the work. What is added here is their end. A worker ends
with the training process, however that ends, and is never waited for without a limit. One that
dies or fails ends the run with one message.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from voxelsoup.common.errors import InputError, Stopped
from voxelsoup.runs.failures import MEMORY_FIX, RESUMES
from voxelsoup.runs.signals import end_with_parent, ignore_signals
from voxelsoup.runs.watchdog import show_stacks_on_request

# After SIGKILL a process ends at once, unless a file server keeps it.
SECONDS_TO_END = 5.0
# A broken connection may be seen before the death that broke it.
SECONDS_TO_DIE = 2.0


class WorkerLost(Stopped):
    """A data worker was killed; the run resumes from its last saved state."""


class Batches(Protocol):
    """What can be read: batches by the numbers of their samples, as tensors."""

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]: ...


def read_batches(
    source: Batches, numbers: Sequence[int], size: int, workers: int, pin_memory: bool
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    """Batches of ``size`` samples of these numbers, in order, read by so many workers.

    Workers begin with the first batch and end with the iterator: exhaust it, or close it. Without
    any, batches are read when they are asked for.

    Raises:
        InputError: if a batch could not be read, or main or shared memory is full.
        WorkerLost: if a worker was killed; the batches given so far are complete.
    """
    context = _Workers()
    loader: DataLoader[Any] = DataLoader(
        _Caught(source),
        # Without one of its own the loader draws from torch's global random state.
        generator=torch.Generator(),
        worker_init_fn=partial(_prepare_worker, os.getpid()),
        batch_size=size,
        sampler=numbers,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        multiprocessing_context=context if workers else None,
    )
    try:
        with _pinning_fails_silently() if pin_memory else nullcontext():
            stream = None
            while True:
                try:
                    context.check()
                    stream = stream or _started(loader)
                    batch = next(stream)
                except StopIteration:
                    return
                except WorkerLost:
                    raise
                except Exception:
                    context.check(SECONDS_TO_DIE)
                    raise
                if isinstance(batch, _Failure):
                    raise batch.error
                yield batch
    finally:
        context.end()


class _Workers(ForkContext):
    """Starts the workers of one reading, and knows them."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[ForkProcess] = []

    def Process(self, *arguments: Any, **named: Any) -> ForkProcess:  # type: ignore[override]
        """Called by torch's loader for every worker."""
        process = ForkProcess(*arguments, **named)
        self._processes.append(process)
        return process

    def check(self, patience: float = 0.0) -> None:
        """Raise WorkerLost if a worker has ended, or does so within ``patience`` seconds."""
        started = self._started()
        for process in started:
            process.join(patience / len(started))
            if process.exitcode is not None:
                raise WorkerLost(_words(process.pid, process.exitcode, len(self._processes)))

    def end(self) -> None:
        """End the workers: they only read, so that nothing is lost."""
        for process in self._started():
            process.kill()
        for process in self._started():
            process.join(SECONDS_TO_END)

    def _started(self) -> list[ForkProcess]:
        return [process for process in self._processes if process.pid is not None]


def _words(process: int | None, code: int, count: int) -> str:
    """Why a worker has ended, with the fix."""
    reason, fix = "", RESUMES
    if code == -signal.SIGKILL:
        reason, fix = ", probably because main memory ran out", f"{MEMORY_FIX}; {RESUMES}"
    elif code == -signal.SIGBUS:
        reason = (
            ": a preprocessed file could not be read any more (disk or file server), or shared "
            "memory (/dev/shm) is full"
        )
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    one = f"one of the {count} data workers (`training.workers`), process {process},"
    return f"{one} {how}{reason}\n  fix: {fix}"


@dataclass(frozen=True)
class _Failure:
    """What a worker hands over in place of a batch that it could not read."""

    error: Exception


class _Caught(Dataset[Any]):
    """A source whose errors take the place of its batches, which torch would wrap in its own."""

    def __init__(self, source: Batches) -> None:
        self.source = source

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor] | _Failure:
        try:
            batch = self.source.__getitems__(numbers)
            if get_worker_info() is not None:
                # Here, where a lack of it is noticed: what fails in the thread that sends batches
                # is dropped, and would be waited for for ever.
                for tensor in batch:
                    tensor.share_memory_()
        except Exception as error:
            return _Failure(_understood(error))
        return batch


def _understood(error: Exception) -> Exception:
    """An error while reading, as one for the user where it is one, that can be handed over."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return InputError(
            "reading patches",
            f"main memory is full ({error or type(error).__name__})",
            "room for the training and its data workers",
            MEMORY_FIX,
        )
    if isinstance(error, RuntimeError) and "shared memory" in str(error):
        return InputError(
            "/dev/shm",
            f"shared memory is full: {str(error).splitlines()[0]}",
            "room for two batches of every data worker",
            "lower `training.workers`, or make /dev/shm larger (of a container: `--shm-size`)",
        )
    if get_worker_info() is None:
        return error
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(traceback.format_exc())
    error.add_note(f"in a data worker:\n{traceback.format_exc()}")
    return error


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator, whose workers have started.

    torch lets a worker's death raise an error wherever the main thread is. That may be within a
    step, whose state could not be saved. Here a death is noticed between two steps.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    except OSError as error:
        raise _understood(error) from error
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)


@contextmanager
def _pinning_fails_silently() -> Iterator[None]:
    """Print no traceback of torch's thread that copies batches to pinned memory.

    It fails when a worker dies, which is reported; otherwise the loader itself reports its end.
    """
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is None or "_pin_memory_loop" not in failure.thread.name:
            before(failure)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _as_it_is(batch: Any) -> Any:
    return batch


def _prepare_worker(parent: int, _: int) -> None:
    # Slurm sends signals to all processes; the training reacts to them and ends its workers.
    ignore_signals()
    end_with_parent(parent)
    show_stacks_on_request()
