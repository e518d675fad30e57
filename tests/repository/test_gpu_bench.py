"""`bench/gpu.sh` at the sizes of a test: what runs unattended on a machine with a GPU."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.documents import REPOSITORY
from support.forked import from_one_that_imported_them

SCRIPT = REPOSITORY / "bench/gpu.sh"
PARTS = ["smoke", "train_step", "depthwise", "input", "evaluate", "runs_per_gpu"]


def run(*options: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Call the script with this Python."""
    environment = from_one_that_imported_them() | {"PYTHON": sys.executable} | more
    command = ["bash", str(SCRIPT), *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one whole run on the CPU."""
    folder = tmp_path_factory.mktemp("gpu")
    done = run("--device", "cpu", folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def figures(results: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / f"{name}.json").read_text())["figures"]
    return found


def test_all_parts_end_in_the_order_of_their_importance(results: Path) -> None:
    with (results / "gpu/parts.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["part"] for row in rows] == PARTS
    assert {row["ended"] for row in rows} == {"done"}


def test_every_check_of_the_smoke_test_passes(results: Path) -> None:
    checks = figures(results, "gpu_smoke")["checks"]
    assert list(checks) == [
        "epoch_bfloat16", "epoch_float16", "resume", "evaluation", "prediction", "sharing",
        "epoch_bfloat16_compiled", "epoch_float16_compiled",
    ]  # fmt: skip
    assert all(check["passed"] for check in checks.values())
    # The same device twice: nothing differs.
    assert set(checks["evaluation"]["difference"].values()) == {0.0}


def test_each_part_leaves_its_figures(results: Path) -> None:
    step = figures(results, "train_step_cpu")
    assert {"ours", "published", "nnunet"} == set(step["networks"]["demo"]["patches_per_second"])
    assert step["share_of_peak"] > 0 and step["share_of_bandwidth"] > 0
    assert step["depthwise"][0]["channels_last"]["forward_vs_floor"] > 0
    assert figures(results, "gpu_input")["patches_per_second"] > 0
    assert figures(results, "gpu_evaluate")["difference"]["float32"] < 1e-5
    assert figures(results, "runs_per_gpu_cpu")["vs_alone"]["1"] == 1


def test_a_machine_without_a_gpu_is_told_so_at_once(tmp_path: Path) -> None:
    done = run(tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "torch sees no GPU here" in done.stderr
    assert not list(tmp_path.glob("*.json"))
