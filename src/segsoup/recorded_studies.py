"""The study files that were ever run on a results folder, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segsoup.files import writable

RECORD = Path(".state", "studies.txt")


def remember_study(results: Path, files: Iterable[str | Path]) -> None:
    """Add a study to the record of a results folder, unless it is there.

    Args:
        results: the results folder.
        files: the study's files, which are merged in this order; usually one.

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
