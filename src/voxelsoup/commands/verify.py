"""`voxelsoup verify`: whether the files of a study or a bundle are those that were written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.common.machine import usable_cores
from voxelsoup.common.text import counted
from voxelsoup.data.index.check_cache import files_of, hash_files
from voxelsoup.data.index.index import read_cases
from voxelsoup.deploy.file_manifest import MANIFEST, SCANS, hashes_of, read_entries
from voxelsoup.prediction.bundle_files import METADATA, changed_files
from voxelsoup.study.loading import read_of_results

STUDY = Path("report", "study.yaml")
CHANGED, MISSING = "changed", "missing"


@dataclass(frozen=True)
class Problem:
    """One file that is not what was written.

    Attributes:
        file: below the results folder or the bundle; of ``scans`` the name of a case.
        found: ``changed``, ``missing`` or ``not listed``.
    """

    part: str
    file: str
    found: str


def print_verification(folder: Path, data: Path | None) -> int:
    """Verify a results folder or a bundle, and print what differs; returns 1 if anything does.

    ``data`` is where the scans lie now, if that is not where the study says.

    Raises:
        InputError: if the folder holds neither a manifest nor a bundle.
    """
    screen = Console(soft_wrap=True, highlight=False)
    if (folder / METADATA).is_file():
        problems = [Problem("bundle", *wrong) for wrong in changed_files(folder).items()]
        checked = folder / METADATA
    else:
        problems = verify(folder, data)
        checked = folder / MANIFEST
    for problem in problems:
        screen.print(f"[bold red]{problem.found:10}[/] {problem.part:8} {problem.file}")
    if problems:
        screen.print(f"Not as {checked} lists them: {counted(len(problems), 'file')}")
        return 1
    screen.print(f"Every file is the one that {checked} lists; its own SHA-256: {sha256(checked)}")
    return 0


def verify(results: Path, data: Path | None = None) -> list[Problem]:
    """Hash every file of a study again; arguments and errors as of ``print_verification``."""
    entries = read_entries(results / MANIFEST)
    scans = [entry.file for entry in entries if entry.part == SCANS]
    others = [entry for entry in entries if entry.part != SCANS]
    with _bar() as bar:
        task = bar.add_task("", total=len(entries))
        paths = [results / entry.file for entry in others]
        hashes = hashes_of(paths, usable_cores(), lambda: bar.advance(task))
        found = {(e.part, e.file): digest for e, digest in zip(others, hashes, strict=True)}
        for name, digest in _scans(results, scans, data):
            found[SCANS, name] = digest
            bar.advance(task)
    return [
        Problem(entry.part, entry.file, CHANGED if digest else MISSING)
        for entry in entries
        if (digest := found[entry.part, entry.file]) != entry.sha256
    ]


def _scans(results: Path, scans: Sequence[str], data: Path | None) -> Iterator[tuple[str, str]]:
    """Case -> hash over the contents of its files now; empty if one is missing."""
    try:
        cases = {case.name: case for case in read_cases(results / "cases.tsv")}
    except (OSError, ValueError, KeyError, TypeError):
        # Reported as a file of its own; without it the files of a case are unknown.
        cases = {}
    try:
        root = data if data is not None else _data_root(results)
    except InputError:
        # Reported as a file of its own as well; without it the places of scans are unknown.
        root, cases = results, {}
    for name in scans:
        files = [root / file for file in files_of(cases[name])] if name in cases else []
        yield name, hash_files(files) if files else ""


def _data_root(results: Path) -> Path:
    dataset = read_of_results(results / STUDY).dataset
    if dataset.root is None or dataset.layout == "phantom":
        return results / "phantom"
    return Path(dataset.root)


def _bar() -> Progress:
    return Progress(
        TextColumn("Verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
