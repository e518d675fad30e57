"""Rungs of a halved study on disk: which trial was dropped after which, and where states lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.runs.divergence import DivergedTrial
from voxelsoup.runs.record import read_saved
from voxelsoup.study.study import Study

# The key of a rung's record for those that have no score; only where there are any.
DIVERGED = "diverged"


def dropped_trials(study: Study) -> dict[int, dict[str, int]]:
    """Fold -> trial -> the rung after which it was dropped, as far as the rungs have ended."""
    rungs = range(1, study.sweep.halving.rungs if study.sweep.halving else 1)
    folds = {fold: Path(study.results, f"fold{fold}", "rungs") for fold in study.folds.numbers}
    return {fold: _dropped(folder, rungs) for fold, folder in folds.items()}


def _dropped(folder: Path, rungs: range) -> dict[str, int]:
    dropped: dict[str, int] = {}
    for rung in rungs:
        try:
            record = read_json(folder / f"{rung}.json")
        except (OSError, ValueError):
            break
        kept = set(record["kept"])
        dropped |= {trial: rung for trial in record["scores"] if trial not in kept}
    return dropped


def trials_at_the_end(study: Study, of_fold: Path, trials: Sequence[str]) -> list[str]:
    """Those of a fold's trials, by their ids, that train to their end; all without any rungs."""
    last = of_fold / "rungs" / f"{study.sweep.halving.rungs - 1 if study.sweep.halving else 0}.json"
    kept = read_json(last)["kept"] if last.exists() else trials
    return [trial for trial in trials if trial in kept]


def diverged_at_rungs(study: Study) -> list[DivergedTrial]:
    """Trials that diverged on the way to a rung, as far as the rungs have ended; by fold."""
    rungs = range(1, study.sweep.halving.rungs if study.sweep.halving else 1)
    found = []
    for fold in study.folds.numbers:
        for rung in rungs:
            try:
                record = read_json(Path(study.results, f"fold{fold}", "rungs", f"{rung}.json"))
            except (OSError, ValueError):
                break
            diverged = record.get(DIVERGED, {})
            found += [DivergedTrial(fold, trial, **where) for trial, where in diverged.items()]
    return found


def states_of_rung(states: Path, rung: int, steps: int) -> Path:
    """Where a run keeps its states before a rung, counted from 1, that ends after ``steps``.

    That is the run's own folder, so that it resumes from there. A run that is beyond the rung
    already, as when a finished study is halved afterwards, trains up to it in a folder aside.
    """
    saved = read_saved(states)
    beyond = saved is not None and saved.step > steps
    return states / f"rung{rung}" if beyond else states
