"""Where a benchmark ran: kept beside its figures in ``bench/results``."""

from __future__ import annotations

import datetime
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "monai", "numpy", "nibabel", "deflate", "schedulefree")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, load, GPU, versions and date."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        # Above the cores, other work shared them.
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def keep_result(name: str, figures: dict[str, Any]) -> Path:
    """Write the figures of a benchmark and where it ran to ``bench/results/{name}.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"figures": figures, "machine": describe_machine()}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
