"""A study with successive halving, run from the installed wheel into its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.installation import Installation
from support.studies import run_locally, write_tiny
from support.workflows import planned

GRID = {"optimizer.lr": [0.01, 0.02], "training.seed": [0, 1]}
# A fifth trial diverges before it has a score.
DIVERGES = {"trials": [{"optimizer.lr": 1e30}]}
HALVED = {"halving": {"rungs": 3, "keep": 0.4}}
TRAINING = {"epochs": 8, "steps_per_epoch": 5}
# Where the run wrote down its process, and the study as it was run: tests change study.yaml.
PROCESS, AS_RUN = "process.txt", "as_run.yaml"


def write_halved(folder: Path, sweep: dict[str, Any]) -> Path:
    """Write the study with a sweep; returns the file."""
    return write_tiny(folder, stem={"epochs": 2}, training=TRAINING, sweep=sweep)


def run_halved(folder: Path, installed: Installation) -> None:
    """Plan the study in the checkout, and run it from the wheel, as another user."""
    study = write_halved(folder, {"grid": GRID} | DIVERGES | HALVED)
    plan = run_locally(folder, "-n", "--quiet", "rules")
    # What follows a rung is not known yet: the plan names the rungs and what waits for them.
    assert planned(plan)["rung"] == 5 and planned(plan)["halve"] == 2
    assert "2 of 5 trials continue, to epoch 3" in run_locally(folder, "-n")
    (folder / AS_RUN).write_bytes(study.read_bytes())
    for path in (folder, *folder.rglob("*")):
        installed.own(path)
    process = installed.start(folder, "voxelsoup", "run", "study.yaml")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed[-6000:]
    (folder / PROCESS).write_text(str(process.pid))
