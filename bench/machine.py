"""Where a benchmark runs, and its figures, which are kept beside what that machine is.

``bench/gpu.sh`` says by the environment where they run (``BENCH_DEVICE``), that all sizes are those
of a test (``BENCH_TINY``) and where the figures go (``BENCH_RESULTS``).
"""

from __future__ import annotations

import datetime
import json
import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

TINY = "BENCH_TINY" in os.environ
RESULTS = Path(os.environ.get("BENCH_RESULTS", Path(__file__).parent / "results"))
PACKAGES = ("torch", "monai", "numpy", "nibabel", "deflate", "schedulefree")


def device_kind() -> str:
    """`cuda` or `cpu`: what benchmarks of training measure."""
    # After voxelsoup, which says how torch's threads wait.
    import torch

    return os.environ.get("BENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, load, GPU, versions and date."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    import torch

    versions = {}
    for package in PACKAGES:
        # A bare machine with a GPU has not all of them.
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "processor": models[0] if models else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        # Above the cores, other work shared them.
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if device_kind() == "cuda" else None,
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def keep_result(name: str, figures: dict[str, Any]) -> Path:
    """Write the figures of a benchmark and where it ran to ``bench/results/{name}.json``.

    Atomically: a benchmark may write after each part, and be killed at its time limit.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"figures": figures, "machine": describe_machine()}
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path
