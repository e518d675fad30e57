"""How fast a run trains: what an epoch took, and when the last one will be done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from voxelsoup.runs.record import peak_gpu_memory_mb, peak_memory_mb


@dataclass(frozen=True)
class Epoch:
    """One epoch as it was trained.

    Attributes:
        number: from 1.
        epochs: those that the run is to have.
        step: optimizer steps done at its end.
        training_loss: mean over the epoch.
        lr: the one that it began with.
        seconds: time that it took; of one that an earlier attempt began, what all of it would
            have taken at the pace of its rest.
        memory_mb: most main memory that the process has had so far.
        gpu_memory_mb: most memory of tensors on the GPU so far; None without a GPU.
        estimated_end: when the last epoch will be done, at the mean pace of this attempt.
    """

    number: int
    epochs: int
    step: int
    training_loss: float
    lr: float
    seconds: float
    memory_mb: float
    gpu_memory_mb: float | None
    estimated_end: datetime

    def __str__(self) -> str:
        """One line for a log, aligned with those of the other epochs."""
        memory = _gigabytes(self.memory_mb)
        if self.gpu_memory_mb is not None:
            memory += f", GPU {_gigabytes(self.gpu_memory_mb)}"
        parts = [
            f"epoch {self.number:>{len(str(self.epochs))}} of {self.epochs}",
            f"loss {self.training_loss:.4f}",
            f"lr {self.lr:.2e}",
            f"{self.seconds:6.1f} s",
            memory,
        ]
        if self.number < self.epochs:
            today = self.estimated_end.date() == datetime.now(self.estimated_end.tzinfo).date()
            parts.append(f"ends {self.estimated_end:{'%H:%M' if today else '%d %b %H:%M'}}")
        return "   ".join(parts)


class Pace:
    """Measures the epochs that one attempt trains."""

    def __init__(self, epochs: int, steps_per_epoch: int, step: int) -> None:
        """Begin to measure, after so many optimizer steps."""
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self._first_step = self._last_step = step
        self._began = self._last_end = time.monotonic()

    def epoch(self, row: dict[str, float]) -> Epoch:
        """The epoch that has just ended, by its row of the history."""
        now, step = time.monotonic(), int(row["step"])
        of_attempt = (now - self._began) / (step - self._first_step)
        of_epoch = (now - self._last_end) / (step - self._last_step)
        self._last_end, self._last_step = now, step
        left = timedelta(seconds=of_attempt * (self.epochs * self.steps_per_epoch - step))
        return Epoch(
            number=int(row["epoch"]),
            epochs=self.epochs,
            step=step,
            training_loss=row["training_loss"],
            lr=row["lr"],
            seconds=of_epoch * self.steps_per_epoch,
            memory_mb=peak_memory_mb(),
            gpu_memory_mb=peak_gpu_memory_mb(),
            estimated_end=datetime.now().astimezone() + left,
        )


def _gigabytes(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB"
