"""How Snakemake was last started on a study: what it alone knows, for people who look."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segsoup import provenance
from segsoup.errors import InputError
from segsoup.files import read_json, write_json

log = logging.getLogger(__name__)

INVOCATION = "snakemake.json"
# Jobs of a Snakemake that was killed run on under its name, and so may those of the one before.
SLURM_NAMES_KEPT = 10


@dataclass(frozen=True)
class Invocation:
    """One start of Snakemake.

    Attributes:
        study: the study's file.
        executor: name of the executor plugin, such as ``local`` or ``slurm``.
        retries: how often it repeats a job that fails.
        started: when, in UTC (ISO 8601).
        host: where it runs.
        process: its number there.
        slurm_names: names that its Slurm jobs have, and before it those of earlier ones.
    """

    study: str
    executor: str
    retries: int
    started: str
    host: str
    process: int
    slurm_names: list[str] = field(default_factory=list)


def write_invocation(
    folder: Path, study: str, executor: str, retries: int, slurm_name: str | None
) -> None:
    """Write down that this process starts on a study; a full disk loses the note, not the study.

    Args:
        folder: the study's states.
        study: its file.
        executor: name of the executor plugin.
        retries: how often a job that fails is repeated.
        slurm_name: the name that all its Slurm jobs will have, if it submits any.
    """
    earlier = read_invocation(folder)
    names = earlier.slurm_names if earlier else []
    if slurm_name is not None:
        names = [*names, slurm_name][-SLURM_NAMES_KEPT:]
    invocation = Invocation(
        study=study,
        executor=executor,
        retries=retries,
        started=provenance.now(),
        host=socket.gethostname(),
        process=os.getpid(),
        slurm_names=names,
    )
    try:
        write_json(folder / INVOCATION, asdict(invocation))
    except (InputError, OSError) as error:
        log.warning("%s could not be written: %s", folder / INVOCATION, error)


def read_invocation(folder: Path) -> Invocation | None:
    """The last start of Snakemake; None if there was none or it cannot be read."""
    try:
        content: dict[str, Any] = read_json(folder / INVOCATION)
        return Invocation(**content)
    except (OSError, ValueError, TypeError):
        return None
