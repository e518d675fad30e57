"""A study as it was when it was started: what all jobs of that start read.

``results/.state/starts/TIME-PROCESS/`` has the study, with all paths expanded, and ``start.json``:
which files it was read from, what they contained, and the version of the code.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from voxelsoup.common import provenance
from voxelsoup.common.code_version import version
from voxelsoup.common.files import read_json, sha256, write_json, write_text
from voxelsoup.common.plug_ins import RECORDED

STARTS = Path(".state", "starts")
RECORD = "start.json"
# Jobs of a Snakemake that was killed may still wait in a queue, and read theirs.
KEPT = 10


@dataclass(frozen=True)
class Start:
    """One start of a study.

    Attributes:
        time: when, in UTC (ISO 8601).
        files: study file -> SHA-256 of what it contained; in the order of merging.
    """

    time: str
    files: dict[str, str]

    def edited_since(self) -> list[str]:
        """Its files that have another content by now, or are gone."""
        return [path for path, digest in self.files.items() if _digest(Path(path)) != digest]


def write_snapshot(
    results: Path,
    study: dict[str, Any],
    files: Iterable[str | Path],
    plug_ins: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write down a study that starts now; returns the file that its jobs are to read.

    ``plug_ins`` are the records of what it uses of other packages.

    Raises:
        InputError: if it cannot be written.
    """
    now = datetime.now(UTC)
    folder = results / STARTS / f"{now:%Y%m%dT%H%M%S}-{os.getpid()}"
    path = write_copy(folder, study, files, plug_ins)
    for old in sorted(folder.parent.iterdir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def write_copy(
    folder: Path,
    study: dict[str, Any],
    files: Iterable[str | Path],
    plug_ins: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write a study and what it was read from into a folder; returns its file there.

    ``plug_ins`` are the records of what it uses of other packages.

    Raises:
        InputError: if it cannot be written.
    """
    paths = [Path(file).absolute() for file in files]
    # Named as the user's file: messages of jobs begin with it.
    path = folder / (paths[-1].name if paths else "study.yaml")
    write_text(path, yaml.safe_dump(study, sort_keys=False, allow_unicode=True))
    content = {
        "time": provenance.now(),
        "files": sources(paths),
        "code": version(),
        **({RECORDED: list(plug_ins)} if plug_ins else {}),
    }
    write_json(folder / RECORD, content)
    return path


def sources(files: Iterable[str | Path]) -> dict[str, str]:
    """What a study is read from: file -> SHA-256 of what it contained.

    Of a copy, these are the files that it was made from.
    """
    paths = [Path(file).absolute() for file in files]
    record = record_beside(paths[-1]) if paths else None
    try:
        copied: dict[str, str] = read_json(record)["files"] if record else {}
    except (OSError, ValueError, KeyError, TypeError):
        copied = {}
    return copied or {str(path): _digest(path) for path in paths}


def record_beside(study_file: Path) -> Path | None:
    """The record of the start that a study file is a snapshot of; None if it is none."""
    record = study_file.with_name(RECORD)
    return record if record.is_file() else None


def last_start(results: Path) -> Start | None:
    """The last start of the studies of a results folder; None if none is recorded."""
    try:
        newest = max((results / STARTS).iterdir())
        content = read_json(newest / RECORD)
        return Start(content["time"], content["files"])
    except (OSError, ValueError, KeyError):
        return None


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return ""
