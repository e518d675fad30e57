"""Results folders as runs leave them, without the runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from voxelsoup.common.files import write_json
from voxelsoup.runs.record import RECORD, RunRecord, SavedState
from voxelsoup.study.loading import read
from voxelsoup.study.trials import Trial, trials
from voxelsoup.training.run import run_settings

STUDY: dict[str, Any] = {
    "dataset": {"layout": "phantom", "channels": ["t1n"]},
    "regions": {"WT": [1, 2, 3]},
    "folds": {"count": 3, "run": [0, 1]},
    "sweep": {"grid": {"optimizer.lr": [0.01, 0.02]}},
    "soup": {"recipes": ["greedy", "uniform"]},
}


def write_study(folder: Path, name: str = "study.yaml", **changes: Any) -> Path:
    """A study whose results folder is ``folder/results``, with some sections replaced."""
    path = folder / name
    path.write_text(yaml.safe_dump(STUDY | {"results": str(folder / "results")} | changes))
    return path


def trials_in(study: Path) -> list[Trial]:
    """The trials of a study file."""
    return trials(read(study))


def finish(results: Path, fold: int, trial: Trial) -> None:
    """What a trial that has ended leaves: results, states, log and benchmark."""
    own = trial.study
    of_fold, epochs = f"fold{fold}", own.training.epochs
    record = {
        "parameters": trial.parameters,
        "epochs": epochs,
        "settings": run_settings(own, own.optimizer, epochs),
    }
    write_json(results / of_fold / "trials" / trial.id / "run.json", record)
    begin(results, fold, trial, steps=100)
    for name in (f"{trial.id}.log", f"{trial.id}-evaluate.log", f"{trial.id}/raw-1-evaluate.log"):
        write(results / "logs" / of_fold / "trials" / name)
    write(results / "benchmarks" / of_fold / "trials" / f"{trial.id}.tsv")
    write(results / ".state" / "origins" / of_fold / "trials" / trial.id / "selection.csv.json")
    write(results / of_fold / "rungs" / "1" / trial.id / "selection.csv")
    write(results / "logs" / of_fold / "rungs" / "1" / f"{trial.id}.log")


def begin(results: Path, fold: int, trial: Trial, steps: int = 10) -> Path:
    """The states of a trial that has saved one; returns their folder."""
    folder = results / ".state" / f"fold{fold}" / "trials" / trial.id
    saved = SavedState({"settings": {}}, steps)
    write_json(folder / RECORD, asdict(RunRecord("stopped", "", steps=100, saved=saved)))
    return folder


def finish_others(results: Path, fold: int, recipes: tuple[str, ...] = ("greedy",)) -> None:
    """A stem and soups."""
    names = ["stem", *(f"soups/{recipe}" for recipe in recipes)]
    for name in names:
        write(results / f"fold{fold}" / name / "model.safetensors")
        write(results / "logs" / f"fold{fold}" / f"{name}.log")
    write(results / ".state" / f"fold{fold}" / "stem" / RECORD)


def write(path: Path, text: str = "x" * 1000) -> None:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files_of(folder: Path) -> set[str]:
    """All files below a folder, but for leases."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("lease.")
    }
