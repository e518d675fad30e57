"""Every file that a study's numbers come from and go to, with its SHA-256, from scan to table.

Hashes that were taken while a file was read or written are reused, so that later changes are
noticed. Preprocessed arrays are hashed here: it would add a fifth to the time of a case.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import decoded, sha256, write_tsv
from voxelsoup.data.index.index import read_cases
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.prediction.bundle_files import METADATA, bundle_hashes, collected_models
from voxelsoup.runs.final_plan import trials_of_final
from voxelsoup.soups.candidates import CANDIDATES, OWN, read_candidates, read_diverged, trials_of
from voxelsoup.study.configurations import FOLDER
from voxelsoup.study.study import FINAL, folder_of

MANIFEST = "provenance.tsv"
# What the configurations' comparison chose, in their common folder.
CHOSEN = "chosen.json"
COLUMNS = ["part", "file", "sha256"]
SCANS = "scans"
# Files directly in the results folder; no others there belong to the study.
TOP = {"cases.tsv", "rejected.tsv", "folds.json", "preprocessed.tsv", "report.html"}
# TensorBoard's, which may be deleted.
EVENTS = "events.out.tfevents"
# First part of a path -> what its files are.
PARTS = {
    "preprocessed": "arrays",
    "comparison": "tables",
    "other_tools": "scores",
    "figures": "figures",
    "models": "models",
    "elsewhere": "models",
    "bundle": "bundle",
    "report": "report",
}


@dataclass(frozen=True)
class HashedFile:
    """One line of the manifest.

    Attributes:
        part: ``scans``, ``data``, ``arrays``, ``models``, ``scores``, ``records``, ``tables``,
            ``figures``, ``bundle`` or ``report``.
        file: below the results folder; of ``scans`` the name of a case.
        sha256: of the file; of a case over the contents of all of its files.
    """

    part: str
    file: str
    sha256: str


def list_files(
    results: Path, folds: Sequence[int], configurations: Sequence[str] = ()
) -> list[str]:
    """The files of a study below its results folder, sorted; none of trials that it has left.

    ``configurations``: names of its further ones, each with its files in a folder of its own.
    """
    found = _of_configuration(results, folds)
    if configurations:
        beside = results / FOLDER
        of_folds = (name for name in _walk(beside) if _fold_of(Path(name).parts[0]) in folds)
        found += [f"{FOLDER}/{name}" for name in of_folds]
        found += [f"{FOLDER}/{CHOSEN}"]
    for name in configurations:
        own = _of_configuration(results / FOLDER / name, folds)
        found += [f"{FOLDER}/{name}/{file}" for file in own]
    return sorted(found)


def _of_configuration(results: Path, folds: Sequence[int]) -> list[str]:
    kept = {}
    for fold in folds:
        of_fold = results / f"fold{fold}" / CANDIDATES
        models = [candidate.model for candidate in read_candidates(of_fold)]
        kept[fold] = {*trials_of(models), *read_diverged(of_fold)}
    kept[FINAL] = set(trials_of_final(results))
    cases = set(read_manifest(results / "preprocessed.tsv"))
    return [name for name in _walk(results) if _belongs(name, kept, cases)]


def _walk(results: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(results):
        if Path(folder) == results:
            folders[:] = [f for f in folders if f in PARTS or _fold_of(f) is not None]
            names = [name for name in names if name in TOP]
        for name in names:
            if name[0] != "." and not name.startswith(EVENTS):
                yield (Path(folder) / name).relative_to(results).as_posix()


def _belongs(name: str, kept: Mapping[int, set[str]], cases: set[str]) -> bool:
    parts = Path(name).parts
    if parts[0] == "preprocessed":
        # Names of cases may hold dots; what follows them in a name does not.
        case = parts[-1].removesuffix(".json").removesuffix(".npy")
        return case in cases or case.rpartition(".")[0] in cases
    fold = _fold_of(parts[0])
    if fold is None or len(parts) == 1:
        return True
    return fold in kept and (parts[1] != "trials" or parts[2] in kept[fold])


def _fold_of(folder: str) -> int | None:
    """The fold of a folder below the results, or ``FINAL``."""
    if folder == folder_of(FINAL):
        return FINAL
    number = folder.removeprefix("fold")
    return int(number) if folder != number and number.isdecimal() else None


def part_of(name: str) -> str:
    """Which part of the study a file below the results folder is."""
    parts = Path(name).parts
    if parts[0] == FOLDER:
        of_study = parts[1] == CHOSEN or _fold_of(parts[1]) is not None
        return part_of(str(Path(*parts[1 if of_study else 2 :])))
    first, last = parts[0], parts[-1]
    if first in PARTS:
        return PARTS[first]
    if _fold_of(first) is None or first == last:
        return "report" if last == "report.html" else "data"
    if last == OWN:
        return "models"
    return "scores" if Path(name).suffix == ".csv" else "records"


def recorded_hashes(
    results: Path, folds: Sequence[int], configurations: Sequence[str] = ()
) -> dict[str, str]:
    """File below the results folder -> SHA-256 that was taken when it was written."""
    recorded: dict[str, str] = {}
    for name in configurations:
        own = recorded_hashes(results / FOLDER / name, folds)
        recorded |= {f"{FOLDER}/{name}/{file}": digest for file, digest in own.items()}
    for fold in folds:
        for candidate in read_candidates(results / f"fold{fold}" / CANDIDATES):
            recorded[f"fold{fold}/trials/{candidate.model}/{OWN}"] = candidate.sha256
    collected = results / "models" / "manifest.tsv"
    # A further configuration has none.
    rows = collected_models(collected) if collected.exists() else []
    recorded |= {f"models/{row['path']}": row["sha256"] for row in rows}
    if (results / "bundle" / METADATA).is_file():
        hashes = bundle_hashes(results / "bundle")
        recorded |= {f"bundle/{name}": digest for name, digest in hashes.items()}
    return {name: digest for name, digest in recorded.items() if digest}


def entries_of(
    results: Path, folds: Sequence[int], workers: int, configurations: Sequence[str] = ()
) -> list[HashedFile]:
    """The manifest of a finished study; ``workers`` threads hash what has no recorded hash.

    ``configurations`` as of ``list_files``.
    """
    scans = [
        HashedFile(SCANS, case.name, case.sha256) for case in read_cases(results / "cases.tsv")
    ]
    names = list_files(results, folds, configurations)
    known = recorded_hashes(results, folds, configurations)
    unknown = [name for name in names if name not in known]
    paths = [results / name for name in unknown]
    known |= dict(zip(unknown, hashes_of(paths, workers), strict=True))
    return scans + [HashedFile(part_of(name), name, known[name]) for name in names]


def hashes_of(
    paths: Sequence[Path], workers: int, done: Callable[[], None] = lambda: None
) -> Iterable[str]:
    """SHA-256 of files in their order; empty for those that cannot be read.

    A file that has several names (hard links) is read once; ``done`` is called after each path.
    """

    def hashed(path: Path) -> str:
        try:
            return sha256(path)
        except OSError:
            return ""

    first: dict[object, Path] = {}
    for path in paths:
        first.setdefault(_identity(path), path)
    with ThreadPoolExecutor(workers) as pool:
        futures = {key: pool.submit(hashed, path) for key, path in first.items()}
        for path in paths:
            yield futures[_identity(path)].result()
            done()


def _identity(path: Path) -> object:
    try:
        state = path.stat()
    except OSError:
        return path
    return state.st_dev, state.st_ino


def write_manifest(path: Path, entries: Iterable[HashedFile]) -> None:
    """Write the manifest as a TSV file."""
    write_tsv(path, COLUMNS, map(asdict, entries))


def read_entries(path: Path) -> list[HashedFile]:
    """Read a manifest; raises InputError if it is missing or no manifest."""
    try:
        rows = list(csv.reader(io.StringIO(decoded(path)), delimiter="\t"))
    except (OSError, ValueError, csv.Error) as error:
        raise _unusable(path, f"cannot be read: {error}") from error
    if not rows or rows[0] != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise _unusable(path, "is not a manifest")
    return [HashedFile(*row) for row in rows[1:]]


def _unusable(path: Path, found: str) -> InputError:
    return InputError(
        path,
        found,
        f"the file that the study's last step writes: {', '.join(COLUMNS)} of every file",
        "run the study to its end, or name its results folder or a bundle",
    )
