"""Files of a results folder that no study names any more: listed, and removed if asked.

Only folders and files that voxelsoup itself names are looked at, one level after the other, and
none behind a symbolic link.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import writable
from voxelsoup.common.plug_ins import BUILT_IN
from voxelsoup.runs.invocation import recorded_studies
from voxelsoup.runs.lease import Lease, LeaseTaken, server_time
from voxelsoup.runs.run_state import condition_by_states
from voxelsoup.study.ingredients import given_models
from voxelsoup.study.loading import read
from voxelsoup.study.sections.removed_recipes import REMOVED
from voxelsoup.study.sections.soup import FINISHED, FINISHED_BEST
from voxelsoup.study.study import LONG_RUN, Study
from voxelsoup.study.trials import trials

STATES = ".state"
ROOTS = (".", "logs", "benchmarks", STATES, f"{STATES}/origins")
FOLD = re.compile(r"fold(\d+)")
# What follows a name in the files about it, as in stem-evaluate.log.
ABOUT = r"(?:[-.].*)?"
STEM = re.compile(rf"stem{ABOUT}")
TRIAL = re.compile(rf"([0-9a-f]{{8}}){ABOUT}")
# The longer name first: the shorter one begins it.
COMPARED = "|".join([*BUILT_IN["recipes"], *REMOVED, FINISHED_BEST, FINISHED, LONG_RUN])
RECIPE = re.compile(rf"({COMPARED}){ABOUT}")
FIGURE = re.compile(rf"differences_({COMPARED})\..*")
# The runs of the finishes of a fold, and what they train towards.
FINISHES = "finishes"
OF_FINISHES = re.compile(rf"finish(?:_targets)?{ABOUT}|targets")
TABLE = re.compile(r"fold(\d+)\..*")


@dataclass(frozen=True)
class Considered:
    """The studies that say what is kept.

    Attributes:
        results: their folder, resolved.
        files: those of each study, in the order of ``studies``.
        gone: recorded studies whose files are gone, so that they keep nothing.
    """

    results: Path
    studies: list[Study]
    files: list[tuple[Path, ...]]
    gone: list[tuple[Path, ...]]

    @property
    def lease_seconds(self) -> float:
        """After so many seconds without a sign of life a run counts as dead for all of them."""
        return max(study.recovery.lease_seconds for study in self.studies)


@dataclass(frozen=True)
class Remnant:
    """Something that no study names.

    Attributes:
        name: as ``trial 0a1b2c3d of fold 0``.
        states: the folders whose lease a run of it holds.
    """

    name: str
    paths: list[Path]
    states: list[Path]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(_size(path) for path in self.paths)

    def in_use(self, lease_seconds: float) -> bool:
        """Whether a process trains a run of it."""
        # A finished run that a study halves afterwards trains in folders beside its states.
        folders = [folder for run in self.states for folder in (run, *run.glob("rung*"))]
        return any(
            condition_by_states(folder, server_time(folder), lease_seconds).at_work
            for folder in folders
        )


def consider(files: Sequence[Path]) -> Considered:
    """Read the named studies and those that the record of their results folder has.

    Raises:
        InputError: if a study cannot be read, or the named ones have different results folders.
    """
    named = [(Path(file).absolute(),) for file in files]
    studies = [read(*study) for study in named]
    folders = {Path(study.results).resolve(): study.results for study in studies}
    if len(folders) > 1:
        raise InputError(
            files[0],
            f"the studies have different results folders: {', '.join(folders.values())}",
            "studies of one results folder",
            "call the command once for each results folder",
        )
    (results,) = folders

    recorded = [study for study in recorded_studies(results) if study not in named]
    gone = [study for study in recorded if not all(file.exists() for file in study)]
    there = [study for study in recorded if study not in gone]
    return Considered(results, studies + [read(*study) for study in there], named + there, gone)


def find_remnants(considered: Considered) -> list[Remnant]:
    """All that no considered study names: fold by fold, then figures and tables.

    Raises:
        InputError: if the sweep of a study is wrong.
    """
    named = _named(considered)
    found: dict[str, Remnant] = {}
    for fold, folder in sorted(_folds(considered.results)):
        states = considered.results / STATES / f"fold{fold}"
        if fold not in named:
            name = f"fold {fold}"
            found.setdefault(name, Remnant(name, [], _run_folders(states))).paths.append(folder)
            continue
        for part, path in _parts(folder):
            if part not in named[fold]:
                name = f"{part} of fold {fold}"
                found.setdefault(name, Remnant(name, [], _runs_of(part, states))).paths.append(path)
    for name, path in _shown(considered.results, named):
        found.setdefault(name, Remnant(name, [], [])).paths.append(path)
    return list(found.values())


def _runs_of(part: str, states: Path) -> list[Path]:
    """Where the runs of a part of a fold have their leases."""
    if part == FINISHES:
        return [run for start in _children(states / "finish") for run in _children(start)]
    names = {"stem": "stem", f"soup {LONG_RUN}": LONG_RUN}
    return [states / names.get(part, f"trials/{part.split()[-1]}")]


def _shown(results: Path, named: Mapping[int, set[str]]) -> Iterator[tuple[str, Path]]:
    """Name and path of figures and tables of what no fold has any more."""
    for path in _children(results / "figures"):
        match = FIGURE.fullmatch(path.name)
        if match and not any(f"soup {match[1]}" in parts for parts in named.values()):
            yield f"figures of soup {match[1]}", path
    for path in _children(results / "comparison"):
        match = TABLE.fullmatch(path.name)
        if match and int(match[1]) not in named:
            yield f"tables of fold {match[1]}", path


def _named(considered: Considered) -> dict[int, set[str]]:
    """Fold -> all that some study names there, as ``stem``, ``trial 0a1b2c3d``, ``soup greedy``."""
    named: dict[int, set[str]] = defaultdict(set)
    for study, files in zip(considered.studies, considered.files, strict=True):
        parts = {f"trial {trial.id}" for trial in trials(study, str(files[-1]))}
        parts |= {f"soup {recipe}" for recipe in study.compared_recipes}
        parts |= {f"trial {given}" for given in given_models(study)}
        if study.stem.source == "train":
            parts.add("stem")
        if study.soup.finish is not None:
            parts.add(FINISHES)
        for fold in study.folds.numbers:
            named[fold] |= parts
    return named


def linked_folders(considered: Considered) -> list[Path]:
    """Symbolic links where folders of folds are expected: what they point to is left alone."""
    roots = [considered.results / root for root in ROOTS]
    folds = [folder for _, folder in _folds(considered.results)]
    below = [folder / name for folder in folds for name in ("trials", "rungs", "soups")]
    return [path for path in (*roots, *folds, *below) if path.is_symlink()]


def remove(considered: Considered) -> None:
    """Remove all that no study names, but for what is in use.

    The lease of the study is held meanwhile, so that no Snakemake begins to work here.



    Raises:
        InputError: if a Snakemake works on the folder, or something cannot be removed.
    """
    seconds = considered.lease_seconds
    lease = Lease(considered.results / STATES, seconds, wait=False)
    try:
        lease.acquire()
    except LeaseTaken as error:
        raise InputError(
            considered.results,
            f"nothing was removed: {error}",
            "a results folder that no Snakemake works on",
            "wait until it has ended, then call the command again",
        ) from error
    with lease:
        for remnant in find_remnants(considered):
            removed = not remnant.in_use(seconds)
            for path in remnant.paths if removed else []:
                _remove(considered.results, path)
            _say(f"{'removed' if removed else 'not removed, because it is in use'}: {remnant.name}")


def prune(files: Sequence[Path], confirmed: bool) -> None:
    """Print what no study names, and remove it if that is confirmed.

    The study files are of one results folder; those of its record are considered too.

    Raises:
        InputError: see ``consider``, ``find_remnants`` and ``remove``.
    """
    considered = consider(files)
    if not considered.results.is_dir():
        _say(
            f"There is nothing to prune: the results folder {considered.results} does not exist. "
            "If the study has run, change to the directory that it ran in."
        )
        return
    _say(f"What one of these studies names in {considered.results} is kept:")
    for study in considered.files:
        _say(f"  {' + '.join(map(str, study))}")
    for study in considered.gone:
        _say(f"  {' + '.join(map(str, study))} is gone: what it alone named is listed below")
    for link in linked_folders(considered):
        _say(f"{link} is a symbolic link: what it points to is left alone")
    remnants = find_remnants(considered)
    if not remnants:
        _say("There is nothing else.")
    elif confirmed:
        remove(considered)
    else:
        seconds = considered.lease_seconds
        for remnant in remnants:
            used = ", in use" if remnant.in_use(seconds) else ""
            _say(f"{_megabytes(remnant.size):>12}  {remnant.name}{used}")
        total = _megabytes(sum(remnant.size for remnant in remnants))
        _say(f"{total:>12}  in all. Nothing was removed; `--yes` removes it.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _say(text: str) -> None:
    # Lines that other programs can read are not broken.
    print(text, flush=True)


def _remove(results: Path, path: Path) -> None:
    # The last look before something is lost: nothing outside, nothing behind a link.
    if not path.parent.resolve().is_relative_to(results) or path == results:
        raise AssertionError(f"{path} is not in {results}")
    with writable(path):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)


def _folds(results: Path) -> Iterator[tuple[int, Path]]:
    """All that is named like a fold, in the results and beside them."""
    for root in ROOTS:
        for path in _children(results / root):
            match = FOLD.fullmatch(path.name)
            if match:
                yield int(match[1]), path


def _parts(fold: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of what a folder of a fold has of runs and soups."""
    if fold.is_symlink():
        return
    for path in _children(fold):
        if STEM.fullmatch(path.name):
            yield "stem", path
        elif OF_FINISHES.fullmatch(path.name):
            yield FINISHES, path
        elif path.name == LONG_RUN:
            yield f"soup {LONG_RUN}", path
    of_trials = [fold / "trials", *_children(fold / "rungs")]
    kinds = [("trial", folder, TRIAL) for folder in of_trials]
    for kind, folder, pattern in [*kinds, ("soup", fold / "soups", RECIPE)]:
        for path in _children(folder):
            match = pattern.fullmatch(path.name)
            if match:
                yield f"{kind} {match[1]}", path


def _run_folders(states: Path) -> list[Path]:
    """Where the runs of a fold have their leases."""
    trials = filter(Path.is_dir, _children(states / "trials"))
    return [states / "stem", states / LONG_RUN, *trials, *_runs_of(FINISHES, states)]


def _children(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(folder.iterdir())


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_size(child) for child in path.iterdir())
