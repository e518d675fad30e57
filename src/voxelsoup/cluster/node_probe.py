"""A look at a node from within: a small job there, which reports what it finds."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError

FROM_HERE = "written-by-the-submitter"
FROM_NODE = "written-by-the-node"
# The first import of torch over a cold network file system can take more than a minute.
WORK_S = 180


@dataclass(frozen=True)
class Answer:
    """What a node reports: its name, whether files travel, and what torch sees there."""

    node: str
    read: str
    torch: str | None = None
    cuda: str | None = None
    driver: bool = False
    visible: str | None = None
    gpus: tuple[str, ...] = ()
    error: str | None = None


def ask_node(options: list[str], folder: Path, seconds: float) -> Answer:
    """Run the probe as a job with srun's ``options``, and wait for its report.

    It waits so many seconds for a free node, which should be able to write to ``folder``.

    Raises:
        InputError: if no node is free in time, or the probe does not run there.
    """
    command = [sys.executable, "-m", "voxelsoup.cluster.node_probe", str(folder.absolute())]
    report = run_on_node(options, command, seconds)
    return Answer(**report | {"gpus": tuple(report["gpus"])})


def run_on_node(
    options: list[str], command: list[str], seconds: float, mem_mb: int = 2000, minutes: int = 2
) -> dict[str, Any]:
    """Run a command as a job with srun's ``options``, and wait for the JSON that it prints last.

    It waits so many seconds for a free node, and takes so many ``minutes`` at most.

    Raises:
        InputError: if no node is free in time, or the command does not run there.
    """
    job = ["--job-name=voxelsoup-doctor", "--ntasks=1", "--nodes=1"]
    job += [f"--mem={mem_mb}", f"--time={minutes}", f"--immediate={seconds:.0f}"]
    process = subprocess.Popen(
        ["srun", *options, *job, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    patience = seconds + max(WORK_S, 60 * minutes)
    try:
        printed, errors = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        # On SIGTERM srun takes its job back; killed, it would leave it in the queue.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        process.kill()
        raise _no_answer(patience) from None
    if process.returncode != 0:
        raise _no_answer(seconds) if "busy" in errors else _refused(errors)
    report: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return report


def _no_answer(seconds: float) -> InputError:
    return InputError(
        "srun",
        f"no answer within {seconds:.0f} s: the partition is busy",
        "one free core (and GPU) for a few seconds",
        "ask again later or with a larger --seconds; --no-jobs leaves the nodes out",
    )


def _refused(errors: str) -> InputError:
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    # srun ends with a line about the task's exit code; the reason stands before it.
    messages = [line for line in lines if "task 0" not in line and "Terminating" not in line]
    return InputError(
        "srun",
        (messages or lines or ["failed without a message"])[-1].removeprefix("srun: error: "),
        f"a job that runs {sys.executable} on the node",
        "put the repository and its Python environment on a file system that the nodes share, "
        "and name the account in the profile if the cluster wants one",
    )


def wait_for_file(path: Path, seconds: float) -> bool:
    """Whether a file shows up within some seconds: shared file systems lag."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
        # Listing the folder makes network file systems look again.
        os.listdir(path.parent)  # noqa: PTH208
    return True


def look(folder: Path) -> dict[str, Any]:
    """Read and write in ``folder``, import torch, and count the GPUs; runs on the node."""
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    found: dict[str, Any] = {"node": node, "read": "", "gpus": []}
    try:
        found["read"] = (folder / FROM_HERE).read_text()
        (folder / FROM_NODE).write_text(node)
    except OSError as error:
        return found | {"error": f"{error.strerror}: {error.filename}"}
    try:
        import torch
    except ImportError as error:
        return found | {"error": f"import torch: {error}"}
    gpus = range(torch.cuda.device_count())
    return found | {
        "torch": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip,
        "driver": Path("/proc/driver/nvidia/version").exists() or Path("/dev/kfd").exists(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in gpus],
    }


if __name__ == "__main__":
    print(json.dumps(look(Path(sys.argv[1]))))
