"""The study files that were ever run on a results folder, so that none is forgotten.

How Snakemake was last started on a study: what only it knows, for the status.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from voxelsoup.common import provenance
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, writable, write_json

RECORD = Path(".state", "studies.txt")


def remember_study(results: Path, files: Iterable[str | Path]) -> None:
    """Add a study to the record of a results folder: its files in the order of merging.

    Raises:
        InputError: if the record cannot be written to.
    """
    study = tuple(Path(file).absolute() for file in files)
    record = results / RECORD
    if study in recorded_studies(results):
        return
    with writable(record):
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("a", encoding="utf-8") as stream:
            stream.write("\t".join(map(str, study)) + "\n")


def recorded_studies(results: Path) -> list[tuple[Path, ...]]:
    """All studies of the record, oldest first: the absolute paths of each one's files."""
    try:
        lines = (results / RECORD).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [tuple(map(Path, line.split("\t"))) for line in lines if line.strip()]


log = logging.getLogger(__name__)

INVOCATION = "snakemake.json"
SUBMISSIONS = "submissions.json"
# Jobs of a Snakemake that was killed run on under its name, and so may those of the one before.
SLURM_NAMES_KEPT = 10


@dataclass(frozen=True)
class Invocation:
    """One start of Snakemake.

    Attributes:
        executor: name of the executor plugin, such as ``local`` or ``slurm``.
        retries: how often it repeats a job that fails.
        started: when, in UTC (ISO 8601).
        process: its number on ``host``.
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

    ``slurm_name`` is the name that all its Slurm jobs will have, if it submits any.
    """
    earlier = read_invocation(folder)
    names = earlier.slurm_names if earlier else []
    if slurm_name is not None:
        names = [*names, slurm_name][-SLURM_NAMES_KEPT:]
    here = (provenance.now(), socket.gethostname(), os.getpid())
    invocation = Invocation(study, executor, retries, *here, names)
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


def note_submissions(folder: Path, text: str, ends: bool) -> None:
    """Write down why Slurm does not take jobs, for the status; an empty text: it does.

    ``ends``: whether Snakemake ends because of it. A full disk loses the note, not the study.
    """
    note = folder / SUBMISSIONS
    try:
        if text:
            write_json(note, {"text": text, "ends": ends, "at": provenance.now()})
        else:
            note.unlink(missing_ok=True)
    except (InputError, OSError) as error:
        log.warning("%s could not be written: %s", note, error)


def read_submissions(folder: Path, snakemake_lives: bool) -> str:
    """Why Slurm does not take jobs, or why it ended the last Snakemake; empty if it does."""
    try:
        note: dict[str, Any] = read_json(folder / SUBMISSIONS)
        # One that was killed while it waited submits nothing any more.
        return f"Slurm: {note['text']}" if snakemake_lives or note["ends"] else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""
