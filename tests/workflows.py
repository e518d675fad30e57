"""Snakemake run for real, for the test files that look at what it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]


def snakemake(folder: Path, *arguments: str, config: Path | None = None, succeeds: bool = True):
    """Run Snakemake in ``folder`` and return what it printed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--configfile", str(config or REPOSITORY / "config.yaml"), *arguments]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"}
    )
    printed = result.stdout + result.stderr
    assert (result.returncode == 0) == succeeds, printed[-6000:]
    return printed


def planned(printed: str) -> dict[str, int]:
    """Jobs per rule that a dry run announces."""
    words = [line.split() for line in printed.splitlines()]
    return {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdigit()}


def write_study(path: Path, **changes: object) -> Path:
    """The shipped study with some sections replaced."""
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return path
