"""A study of seconds, for tests that run Snakemake for real, locally and on Slurm."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from support.forked import from_one_that_imported_them
from voxelsoup.runs.record import read_record

REPOSITORY = Path(__file__).parents[2]
LOCAL_PROFILE = REPOSITORY / "profiles" / "local"

TINY: dict[str, Any] = {
    "dataset": {
        "layout": "phantom",
        "channels": ["t1n", "t1c", "t2w", "t2f"],
        "phantom": {"cases": 8, "shape": [24, 28, 24]},
    },
    "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
    "folds": {"count": 3, "run": [0], "selection_share": 0.4},
    "network": {
        "size": "free",
        "arguments": {"init_filters": 2, "blocks_down": [0, 1], "blocks_up": [1, 0]},
    },
    "training": {"patch": [16, 16, 16], "batch_size": 1, "epochs": 5, "steps_per_epoch": 20},
    "optimizer": {"lr": 0.02},
    # Long enough to be caught at work.
    "stem": {"epochs": 40},
    "sweep": {"grid": {"optimizer.lr": [0.01, 0.02]}},
    "soup": {"recipes": ["greedy"]},
    "recovery": {"save_minutes": 0.02},
}
STEM_STATES = Path("results/.state/fold0/stem")
TABLES = ("results/comparison/overview.csv", "results/comparison/fold0.csv")
TARGET = TABLES[0]


def write_tiny(folder: Path, **changes: dict[str, Any]) -> Path:
    """Write the tiny study with sections merged into it; returns the file."""
    study = copy.deepcopy(TINY)
    for section, values in changes.items():
        study[section] = study.get(section, {}) | values
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    return file


def start_locally(
    folder: Path, *arguments: str, environment: Mapping[str, str] = os.environ
) -> subprocess.Popen[str]:
    """Start Snakemake with the local profile on ``study.yaml``; it prints to printed.txt."""
    command = [sys.executable, "-m", "snakemake", "--profile", str(LOCAL_PROFILE), *arguments]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", "study.yaml"]
    with (folder / "printed.txt").open("a") as printed:
        streams = {"stdout": printed, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=folder, text=True, env=environment, **streams)


def run_locally(folder: Path, *arguments: str) -> str:
    """Run Snakemake to its good end, and return what it printed this time."""
    printed = folder / "printed.txt"
    before = printed.stat().st_size if printed.exists() else 0
    environment = from_one_that_imported_them()
    code = start_locally(folder, *arguments, environment=environment).wait()
    with printed.open() as stream:
        stream.seek(before)
        text = stream.read()
    assert code == 0, text[-6000:]
    return text


def copy_data(source: Path, folder: Path) -> None:
    """Copy what a study has made of its data, and from what, but none of its runs."""
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=_runs)


def _runs(folder: str, names: list[str]) -> list[str]:
    if Path(folder).name == ".state":
        return [name for name in names if name != "origins"]
    made_of_runs = {"comparison", "figures", "models", "fold0", "locks", "printed.txt"}
    return [name for name in names if name in made_of_runs]


def tables(folder: Path) -> list[bytes]:
    """The bytes of the comparison tables."""
    return [(folder / name).read_bytes() for name in TABLES]


def epochs_trained(states: Path) -> list[int]:
    """The epochs that a run has trained, over all of its attempts, in order."""
    record = read_record(states)
    if record is None or record.epoch == 0:
        return []
    per_epoch = record.step // record.epoch
    return [
        epoch
        for attempt in record.attempts
        for epoch in range(attempt.from_step // per_epoch + 1, attempt.to_epoch + 1)
    ]


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something is the case."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def wait_for_epoch(states: Path, epoch: int) -> None:
    """Wait until a run has trained an epoch."""
    history = states / "history.csv"
    # The history has every epoch at once, the record one a second.
    wait_for(lambda: history.exists() and len(history.read_text().splitlines()) > epoch)
