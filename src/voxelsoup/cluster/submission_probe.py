"""A look from a node at what ``voxelsoup submit`` needs there; runs as a small job on it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from voxelsoup.cluster.head_job import without_job
from voxelsoup.cluster.slurm import PATIENCE_S

# What a head job calls, beside the commands of Snakemake's plugin, which are the same.
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")


def look(questions: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Which commands the node lacks, and what Slurm says to questions that are asked from there.

    Args:
        questions: partition -> a command that asks whether a job would be taken.

    Returns:
        The node's name, the commands that are ``absent``, and partition -> why it ``refused``.
    """
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    answers = {} if absent else {name: _ask(asked) for name, asked in questions.items()}
    refused = {name: said for name, said in answers.items() if said}
    return {"node": node, "absent": absent, "refused": refused}


def _ask(command: Sequence[str]) -> str:
    """Why a command fails; nothing if it does not."""
    try:
        answer = subprocess.run(
            command,
            # As in a head job, which is no longer taken for the job that it is in.
            env=without_job(os.environ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PATIENCE_S} s"
    return "" if answer.returncode == 0 else answer.stderr.strip() or "failed without a message"


if __name__ == "__main__":
    print(json.dumps(look(json.loads(sys.argv[1]))))
