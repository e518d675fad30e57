"""From the start of a training's job to its first step: where the time goes.

A job of a cluster starts Snakemake twice (one process in the allocation, one in the job step),
and the second one starts the training. Both read the study; neither looks at the scans. The last
line is one JSON object, all in seconds, the medians of some starts:

    snakemake_s        one start of Snakemake that does nothing
    ours_in_snakemake_s  what reading the study and planning the one job adds to it
    torch_s            importing torch
    monai_s            importing MONAI after torch, all of it (MONAI does not load in parts)
    first_step_s       from the start of the training's process to its first step done
    beyond_torch_s     first_step_s without torch_s
    beyond_imports_s   first_step_s without torch_s and monai_s: lease, network, cases, one step
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REPEATS = 5
STEM = "results/fold0/stem/model.safetensors"


def seconds(command: list[str], folder: Path) -> float:
    """How long a command takes."""
    began = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - began


def snakemake(*arguments: str) -> list[str]:
    """Snakemake on the study of this benchmark."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    return [*command, "--cores", "1", "--nolock", *arguments, "--configfile", "study.yaml"]


def as_in_a_job() -> list[str]:
    """Snakemake as a cluster's job starts it for the one training."""
    alone = ["--target-jobs", "stem:fold=0", "--allowed-rules", "stem", "--mode", "remote"]
    return snakemake(*alone, "--force", "--no-hooks", "--ignore-incomplete")


def write_study(folder: Path) -> None:
    """The shipped study with a stem of two steps."""
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study["training"] |= {"steps_per_epoch": 2}
    study["stem"] |= {"epochs": 1}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))


def first_step(folder: Path) -> float:
    """Seconds from the start of the training's process to the end of its first step."""
    from voxelsoup.runs.record import read_record

    record = read_record(folder / "results/.state/fold0/stem")
    assert record is not None
    (attempt,) = record.attempts
    assert attempt.owner.started is not None and attempt.first_step is not None
    # Field 22 of proc(5): clock ticks after the machine came up.
    up = float(Path("/proc/uptime").read_text().split()[0])
    began = time.time() - up + attempt.owner.started / os.sysconf("SC_CLK_TCK")
    return datetime.fromisoformat(attempt.first_step).timestamp() - began


def measure(folder: Path) -> dict[str, Any]:
    """All figures."""
    write_study(folder)
    subprocess.run(
        snakemake("results/preprocessed.tsv", "results/folds.json"),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    taken: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        subprocess.run(["rm", "-rf", "results/.state"], cwd=folder, check=True)
        subprocess.run(as_in_a_job(), cwd=folder, check=True, capture_output=True)
        version = seconds([sys.executable, "-m", "snakemake", "--version"], folder)
        torch = seconds([sys.executable, "-c", "import torch"], folder)
        both = seconds([sys.executable, "-c", "import torch, monai"], folder)
        planned = seconds([*as_in_a_job(), "--dry-run"], folder)
        step = first_step(folder)
        for name, value in (
            ("snakemake_s", version),
            ("ours_in_snakemake_s", planned - version),
            ("torch_s", torch),
            ("monai_s", both - torch),
            ("first_step_s", step),
            ("beyond_torch_s", step - torch),
            ("beyond_imports_s", step - both),
        ):
            taken.setdefault(name, []).append(value)
    return {name: round(statistics.median(values), 2) for name, values in taken.items()}


def main() -> None:
    """Measure in a folder of its own, and print."""
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name))
    table = Table(title="From a job's start to its first step")
    table.add_column("what")
    table.add_column("seconds", justify="right")
    for key, value in result.items():
        table.add_row(key, f"{value:.2f}")
    Console().print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
