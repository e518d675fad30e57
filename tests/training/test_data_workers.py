"""Data workers end with the run that reads with them, and what goes wrong in one is one message."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from support.studies import wait_for
from voxelsoup.common.errors import InputError
from voxelsoup.training.data_workers import WorkerLost, read_batches


class Numbers:
    """Samples that are their own numbers, up to one that fails."""

    def __init__(self, bad: int | None = None, error: Exception | None = None) -> None:
        self.bad, self.error = bad, error

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.bad in numbers and self.error:
            raise self.error
        return torch.tensor(numbers), torch.tensor([os.getpid()])


class Unpicklable(Exception):
    """An error that cannot travel between processes."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def reading(source: Numbers, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return read_batches(source, range(100), 2, workers, pin_memory=False)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers: int) -> None:
    batches = [numbers.tolist() for numbers, _ in reading(Numbers(), workers)]
    assert batches == [[first, first + 1] for first in range(0, 100, 2)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (InputError("a.npy", "is damaged", "a file", "copy it"), InputError, "a.npy: is damaged\n"),
        (MemoryError(), InputError, "main memory is full .*\n.*\n +fix: raise `resources.training"),
        (RuntimeError("unable to allocate shared memory(shm)"), InputError, "/dev/shm: .* is full"),
        (KeyError("no such key"), KeyError, "no such key"),
    ],
)  # fmt: skip
def test_an_error_while_reading_is_the_same_with_and_without_workers(
    error: Exception, kind: type[Exception], message: str, workers: int
) -> None:
    read = []
    with pytest.raises(kind, match=message) as caught:
        read += [numbers.tolist() for numbers, _ in reading(Numbers(5, error), workers)]
    assert "Traceback" not in str(caught.value)


def test_an_error_that_cannot_travel_comes_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*Unpicklable: this and that"):
        list(reading(Numbers(0, Unpicklable("this", "that")), 1))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "one of the 2 data workers .* by SIGKILL, probably because main memory"),
        (signal.SIGBUS, "by SIGBUS: a preprocessed file could not be read any more"),
    ],
)
def test_a_worker_that_is_killed_ends_the_reading_between_two_batches(
    number: signal.Signals, message: str
) -> None:
    with closing(reading(Numbers(), 2)) as batches:
        _, process = next(batches)
        os.kill(int(process), number)
        # torch would raise its error here, or anywhere.
        wait_for(lambda: Path(f"/proc/{int(process)}/stat").read_text().split()[2] == "Z")
        with pytest.raises(WorkerLost, match=message):
            list(batches)


def test_a_worker_that_does_not_react_is_not_waited_for() -> None:
    with closing(reading(Numbers(), 2)) as batches:
        _, process = next(batches)
        os.kill(int(process), signal.SIGSTOP)
    assert not Path(f"/proc/{int(process)}").exists()


def test_workers_leave_signals_to_the_training() -> None:
    with closing(reading(Numbers(), 2)) as batches:
        _, process = next(batches)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            os.kill(int(process), number)
        assert len(list(batches)) == 49
