"""Several small runs on one card: how much more of them it trains in the same time.

One, two and four runs of one kind (one and two on CPUs) train at once, each in a process of its
own, as `resources.runs_per_gpu` lets them; the rate of one alone is the yardstick. On a machine
with a GPU all of them share the first one. On a machine without, the same is measured with
processes that share the CPU's cores, with a thread each: it says how evenly they share, and
nothing about GPUs. The last line is one JSON object, kept in `bench/results/runs_per_gpu_gpu.json`
or `runs_per_gpu_cpu.json`:

    device            the GPU's model, or `cpu`
    patches_per_s     number of runs at once -> patches per second of all of them together
    vs_alone          the same, over that of one run: above 1 sharing pays
    best              number of runs at once with the highest rate
    memory_mb         number of runs at once -> GPU memory that torch took for all (GPU only)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

from bench.machine import TINY, device_kind, keep_result  # noqa: E402

AT_ONCE = {"cuda": (1, 2, 4), "cpu": (1,) if TINY else (1, 2)}
# Measured after all runs have warmed up, for as long as all of them train.
SECONDS = {"cuda": 10.0, "cpu": 1.0 if TINY else 20.0}
LONGEST_START = 240.0

# A small network at a patch that leaves a large card idle for most of a step; on CPUs a tiny one.
ON_GPU: dict[str, Any] = {
    "network": {"size": "S"},
    "training": {"patch": [64, 64, 64], "batch_size": 2, "precision": "bfloat16"},
    "preprocess": {},
}
ON_CPU: dict[str, Any] = {
    "network": {
        "size": "free",
        "arguments": {"init_filters": 2, "blocks_down": [0, 1], "blocks_up": [1, 0]},
    },
    "training": {"patch": [32, 32, 32], "batch_size": 2},
}


class Clock:
    """Notes when steps end, until a file says to stop (a ``train.Checkpointer``)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.ends: list[float] = []

    def newest(self) -> None:
        """There is no state."""

    def after_epoch(self, rows: list[dict[str, float]]) -> None:
        """Losses have been fetched, so that all steps of the epoch are done."""
        import torch

        self.ends.append(time.time())
        if len(self.ends) == 2:
            (self.folder / f"{self.name}.warm").touch()
        if (self.folder / "stop").exists():
            memory = torch.cuda.max_memory_reserved() / 1e6 if torch.cuda.is_initialized() else 0.0
            measured = {"ends": self.ends, "memory_mb": memory}
            (self.folder / f"{self.name}.json").write_text(json.dumps(measured))
            sys.exit(0)

    def after_step(self, step: int, capture: object) -> None:
        """Nothing to save."""

    def save(self, step: int, capture: object) -> None:
        """Nothing to save."""


def study_for(kind: str) -> Any:
    """The study of a kind of device."""
    from voxelsoup.study.loading import load

    chosen = ON_GPU if kind == "cuda" else ON_CPU
    endless = {"epochs": 100_000, "steps_per_epoch": 2, "augmentation": "affine-contrast"}
    config = {
        "dataset": {"channels": ["t1n", "t1c", "t2w", "t2f"]},
        "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
        "sweep": {"grid": {"training.seed": [0]}},
    }
    return load(config | chosen | {"training": chosen["training"] | endless})


def train_until_stopped(folder: Path, data: Path, name: str, kind: str, threads: int) -> None:
    """One of the runs; in a process of its own."""
    from voxelsoup.models import devices
    from voxelsoup.study.trials import trials
    from voxelsoup.training.run import trial_run
    from voxelsoup.training.train import train

    # All of them on the first GPU.
    device = devices.prepare(kind, threads, gpu=0)
    study = study_for(kind)
    cases = [path.stem for path in sorted(data.glob("*.json"))]
    run = trial_run(trials(study)[0], int(name), cases, data, initial=None)
    train(run, device, Clock(folder, name))


def measure(count: int, data: Path, kind: str, threads: int) -> dict[str, float]:
    """So many runs at once: their common rate while all of them train."""
    study = study_for(kind)
    patches = study.training.batch_size * study.training.steps_per_epoch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = str(max(1, threads // count))
        command = [sys.executable, __file__, str(folder), str(data)]
        runs = [subprocess.Popen([*command, str(i), kind, each]) for i in range(count)]
        deadline = time.monotonic() + LONGEST_START
        while len(list(folder.glob("*.warm"))) < count:
            if any(run.poll() is not None for run in runs) or time.monotonic() > deadline:
                for run in runs:
                    run.kill()
                raise RuntimeError(f"{count} runs at once did not start")
            time.sleep(0.1)
        began = time.time()
        time.sleep(SECONDS[kind])
        ended = time.time()
        (folder / "stop").touch()
        for run in runs:
            run.wait()
        measured = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    rate = sum(_epochs_between(one["ends"], began, ended) for one in measured) * patches
    return {"patches_per_s": rate, "memory_mb": sum(one["memory_mb"] for one in measured)}


def _epochs_between(ends: list[float], began: float, ended: float) -> float:
    """Epochs per second of a run, from the first end after a moment to the last before another."""
    inside = [end for end in ends if began <= end <= ended]
    if len(inside) < 2:
        return 0.0
    return (len(inside) - 1) / (inside[-1] - inside[0])


def figures_of(found: dict[int, dict[str, float]], device: str, kind: str) -> dict[str, Any]:
    """What is known after so many numbers of runs at once."""
    rates = {count: one["patches_per_s"] for count, one in found.items()}
    figures = {
        "device": device,
        "patches_per_s": {str(count): round(rate, 3) for count, rate in rates.items()},
        "vs_alone": {str(count): round(rate / rates[1], 3) for count, rate in rates.items()},
        "best": max(rates, key=lambda count: rates[count]),
    }
    if kind == "cuda":
        figures["memory_mb"] = {str(n): round(one["memory_mb"]) for n, one in found.items()}
    return figures


def main() -> None:
    """Measure, keep and print."""
    import torch
    from bench.phantoms import prepare_phantoms

    from voxelsoup.common.machine import usable_cores

    kind = device_kind()
    device = torch.cuda.get_device_name(0) if kind == "cuda" else "cpu"
    # A thread for each on CPUs, where threads of one run would take the place of another one.
    threads = usable_cores() if kind == "cuda" else 1
    console = Console()
    if kind == "cpu":
        console.print("No GPU here: processes that share the cores, which says nothing about GPUs.")
    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        shape = [96, 96, 80] if kind == "cuda" else [48, 48, 40]
        data = prepare_phantoms(study_for(kind), Path(name), 4, shape)
        for count in AT_ONCE[kind]:
            found[count] = measure(count, data, kind, threads)
            figures = figures_of(found, device, kind)
            keep_result("runs_per_gpu_gpu" if kind == "cuda" else "runs_per_gpu_cpu", figures)
    table = Table(title=f"Runs at once on {device}")
    for column in ("runs", "patches per second, all", "over one run", "GPU memory (MB)"):
        table.add_column(column, justify="right")
    for number, rate in figures["patches_per_s"].items():
        memory = str(figures["memory_mb"][number]) if kind == "cuda" else "-"
        table.add_row(number, f"{rate:.2f}", f"{figures['vs_alone'][number]:.2f}", memory)
    console.print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train_until_stopped(
            Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
        )
    else:
        main()
