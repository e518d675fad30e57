"""What Slurm reports: its partitions, and what their nodes have."""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import dataclass

from voxelsoup.common.errors import InputError

# A controller that is overloaded answers late; one that is gone never does.
PATIENCE_S = 30
# Partition, node, CPUs, memory (MB), GRES and longest run time: understood by every sinfo.
NODE_LAYOUT = "%R|%N|%c|%m|%G|%l"


@dataclass(frozen=True)
class Node:
    """One node as a member of one partition."""

    partition: str
    name: str
    cpus: int
    mem_mb: int
    gpus: dict[str, int]
    max_runtime: float

    def has(self, cpus: int, mem_mb: int, gpu: int, gpu_model: str | None) -> bool:
        """Whether the node, when it is empty, has all of this at once."""
        gpus = sum(self.gpus.values()) if gpu_model is None else self.gpus.get(gpu_model, 0)
        return cpus <= self.cpus and mem_mb <= self.mem_mb and gpu <= gpus


def ask(*command: str, patience: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Run a Slurm command that only asks, and wait ``patience`` seconds for the answer.

    Raises:
        InputError: if the command is not there or does not come back.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except FileNotFoundError as error:
        raise no_commands(command[0], "there is no such command here") from error
    except subprocess.TimeoutExpired as error:
        raise _no_answer(command[0], f"no answer within {patience:g} s") from error


def no_commands(where: str, found: str) -> InputError:
    """Slurm is not installed here."""
    fix = "log in to a submission node of the cluster, or load its Slurm module"
    return InputError(where, found, "Slurm's client commands", fix)


def _no_answer(command: str, found: str) -> InputError:
    fix = "try again later; if this persists, ask the cluster's administrators"
    return InputError(command, found, "Slurm's controller answering", fix)


def read_nodes() -> list[Node]:
    """All nodes of all partitions that you may see.

    Raises:
        InputError: if Slurm is not here or its controller does not answer.
    """
    answer = ask("sinfo", "--noheader", "--Node", "-o", NODE_LAYOUT)
    if answer.returncode != 0:
        said = answer.stderr.strip() or f"failed with exit code {answer.returncode}"
        raise _no_answer("sinfo", said)
    return parse_nodes(answer.stdout)


def parse_nodes(printed: str) -> list[Node]:
    """Read what ``sinfo`` prints in ``NODE_LAYOUT``."""
    nodes = []
    for line in printed.splitlines():
        partition, name, cpus, memory, gres, limit = line.strip().split("|")
        cores, mem_mb = int(cpus.rstrip("+")), int(memory.rstrip("+"))
        nodes.append(Node(partition, name, cores, mem_mb, _gpus(gres), minutes_of(limit)))
    return nodes


def minutes_of(limit: str) -> float:
    """A time as Slurm prints it: infinite, or days-hours:minutes:seconds without leading parts.

    The Slurm plugin would read 30:00, half an hour, as thirty hours.
    """
    if limit == "infinite":
        return math.inf
    days, _, clock = limit.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 24 * 60 + seconds / 60


def _gpus(gres: str) -> dict[str, int]:
    """GPU models and how many of them; a GPU without a model counts under an empty name."""
    found: dict[str, int] = {}
    # Such as gpu:a100:2(S:0-1),gpu:4,mps:100; what is in parentheses are sockets, with commas.
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        words = part.split(":")
        if words[0] == "gpu":
            model = words[1] if len(words) > 2 else ""
            found[model] = found.get(model, 0) + int(words[-1])
    return found
