"""What to change after a GPU's memory was not enough, found while the run still knows its card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from voxelsoup.common.errors import CardTooSmall, GpuMemoryFull, InputError
from voxelsoup.common.text import listed
from voxelsoup.models import devices
from voxelsoup.planning.training_memory import TrainingShape, estimate, fitting, gib
from voxelsoup.runs.failures import GPU_MEMORY_FIX
from voxelsoup.training.run import Run

# A card on which it was not enough is not filled to the brim again.
FILLED = 0.9


@contextmanager
def explained(run: Run, device: torch.device) -> Iterator[None]:
    """Give torch's error for a full GPU the `fix` that the run's record keeps and `status` shows.

    It is known by its type: torch has one for devices other than the CPU alone. ``alone`` says
    whether the run had the GPU for itself.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        memory = devices.memory(device)
        shared = run.study.resources.runs_per_gpu > 1
        vars(error)["alone"] = not shared and devices.is_alone(device)
        vars(error)["fix"] = what_would_fit(run, memory) if memory else GPU_MEMORY_FIX
        raise


def as_refusal(error: torch.OutOfMemoryError, run: str) -> Exception:
    """What the job of a run ends with: one message; an error that was not ``explained`` as it is.

    ``run`` is what messages call it.
    """
    if not hasattr(error, "fix"):
        return error
    said = str(error).partition("\n")[0]
    if vars(error)["alone"]:
        return CardTooSmall(run, said, "a GPU that the training fits into", error.fix)
    others = "as much memory of the GPU as it needs, beside what others take of it"
    return GpuMemoryFull(run, said, others, error.fix)


def what_would_fit(run: Run, memory: int) -> str:
    """Which settings to change, and to what, for a run on a card of so many bytes."""
    shape = TrainingShape.of(run.study, run.optimizer)
    try:
        need = estimate([shape])[0].total
        found = fitting(shape, FILLED * min(memory, need))
    except InputError:
        return GPU_MEMORY_FIX
    if not found:
        return GPU_MEMORY_FIX
    ways = listed([f"`{words}` ({gib(fewer.total)} GiB)" for words, fewer in found], "or")
    return (
        f"set {ways} in the study: {gib(need)} GiB are estimated, and the card has {gib(memory)}; "
        "or ask for a GPU with more memory (`resources.training.gpu_model`)"
    )
