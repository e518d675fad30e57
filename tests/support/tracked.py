"""Finished results with a tracker, and runs as a tracker gets them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from support.workflows import REPOSITORY
from voxelsoup.tracking.curves import Point
from voxelsoup.tracking.tracked_runs import TrackedRun

BEGAN = 1_700_000_000.0


def tracked_demo(demo: Path, folder: Path, **tracking: Any) -> Path:
    """A copy of the finished demo whose study has a tracker; returns the study file."""
    shutil.copytree(demo / "results", folder / "results")
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study |= {"results": str(folder / "results"), "tracking": tracking}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


def whole_study(**known: Any) -> TrackedRun:
    """The run over all others."""
    return TrackedRun("study", "study", "study", "running", "0 of 2 runs are done", **known)


def training(epochs: int, first: float = 1.0, key: str = "fold0/stem", **known: Any) -> TrackedRun:
    """A run at work that has trained so many epochs of 20 steps."""
    points = [
        Point(20 * n, BEGAN + 60 * n, {"training/loss": first / n, "epoch": float(n)})
        for n in range(1, epochs + 1)
    ]
    common: dict[str, Any] = {
        **{"label": "fold 0, stem", "kind": "stem", "status": "running", "state": "running"},
        **{"parameters": {"optimizer": {"lr": 0.01}}, "tags": {"fold": "0"}, "started": BEGAN},
    }
    return TrackedRun(key, curve=points, **common | known)
