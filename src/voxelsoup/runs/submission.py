"""A study that was submitted: its head job's record and the study as it was then.

``results/.state/submitted/`` has ``head.json`` and the study with all paths expanded, which every
start of the head job reads: what becomes of the study's file meanwhile is for the next submission.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from voxelsoup.common.files import read_json, write_json
from voxelsoup.runs.snapshot import write_copy

SUBMITTED = Path(".state", "submitted")
RECORD = "head.json"
LOG = Path("logs", "head.log")

# What became of a study: all done, Snakemake ended with an error, or its user stopped it.
End = Literal["done", "failed", "stopped"]


@dataclass(frozen=True)
class Submission:
    """The head job of a study.

    Attributes:
        study: its file, as it was given.
        job: number of the Slurm job.
        submitted: when, in UTC (ISO 8601).
        folder: working directory.
        log: what Snakemake prints, of all starts of the job.
        snakemake: the command that the job runs.
        sbatch: the command by which it was submitted, should it need a successor.
        lease_seconds: a former Snakemake without a sign of life for so long is dead.
        notify: a command to be called at the end; None if there is none.
        end: what became of the study, once it has ended.
    """

    study: str
    job: str
    submitted: str
    folder: str
    log: str
    snakemake: list[str]
    sbatch: list[str]
    lease_seconds: float
    notify: str | None = None
    end: End | None = None


def copy_study(results: Path, study: dict[str, Any], files: Iterable[str | Path]) -> Path:
    """Write down a study that is submitted now; returns the file that its head job reads.

    Raises:
        InputError: if it cannot be written.
    """
    return write_copy(results / SUBMITTED, study, files)


def write_submission(results: Path, submission: Submission) -> None:
    """Write down what is known of a head job.

    Raises:
        InputError: if it cannot be written.
    """
    write_json(results / SUBMITTED / RECORD, asdict(submission))


def read_submission(results: Path) -> Submission | None:
    """The last submission of the studies of a results folder; None if there was none."""
    try:
        return Submission(**read_json(results / SUBMITTED / RECORD))
    except (OSError, ValueError, TypeError):
        return None
