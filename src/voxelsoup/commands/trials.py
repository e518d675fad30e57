"""The trials of a study and how far each has come, before and while they run; reads only."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelsoup.common.files import read_json
from voxelsoup.common.text import counted
from voxelsoup.runs.lease import is_alive
from voxelsoup.runs.progress import read_progress
from voxelsoup.runs.rungs import dropped_trials
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial, parameters_of, swept_keys
from voxelsoup.training.run import target

TRIAL = re.compile(r"[0-9a-f]{8}")
NEW, STOPPED, RUNNING, DONE, OUTDATED = "new", "stopped", "running", "done", "outdated"
DROPPED = "dropped"
# In this order they are told; of what is new nothing is told.
TOLD = (RUNNING, STOPPED, OUTDATED, DROPPED)


@dataclass(frozen=True)
class ListedTrial:
    """A trial and its runs.

    Attributes:
        id: its id.
        parameters: dotted key -> value; None if no record tells them.
        folds: number of the fold -> ``new``, ``running``, ``stopped`` (goes on from a saved
            state), ``done``, ``outdated`` (done with other settings, so trained again) or
            ``dropped`` (at a rung of a halving).
    """

    id: str
    parameters: dict[str, Any] | None
    folds: dict[int, str]

    @property
    def state(self) -> str:
        """The state over all folds, as ``done`` or ``2 of 5 folds done, 1 running``."""
        counts = Counter(self.folds.values())
        if len(counts) == 1:
            return next(iter(counts))
        told = [f"{counts[state]} {state}" for state in TOLD if counts[state]]
        return ", ".join([f"{counts[DONE]} of {len(self.folds)} folds done", *told])


def list_trials(study: Study, trials: Sequence[Trial]) -> list[ListedTrial]:
    """The trials of a study, in their order.

    Args:
        study: the study, whose results folder counts from the working directory.
        trials: all of its trials.
    """
    parameters = parameters_of(trials)
    dropped = {
        fold: dropped_trials(Path(study.results), fold, study.sweep.halving)
        for fold in study.folds.numbers
    }
    return [
        ListedTrial(
            trial.id,
            parameters[trial.id],
            {fold: _state(study, fold, trial, dropped[fold]) for fold in study.folds.numbers},
        )
        for trial in trials
    ]


def list_others(study: Study, trials: Sequence[Trial]) -> list[ListedTrial]:
    """The trials that lie in the results folder and are not in the study, by their ids."""
    results, known = Path(study.results), {trial.id for trial in trials}
    found: dict[str, dict[int, str]] = {}
    for folder in sorted([*results.glob("fold*/trials/*"), *results.glob(".state/fold*/trials/*")]):
        number = folder.parts[-3].removeprefix("fold")
        is_trial = TRIAL.fullmatch(folder.name) and number.isdecimal() and folder.is_dir()
        if is_trial and folder.name not in known:
            folds = found.setdefault(folder.name, {})
            folds[int(number)] = _state_of(study, int(number), folder.name)
    return [
        ListedTrial(trial, _recorded_parameters(results, trial, folds), folds)
        for trial, folds in sorted(found.items())
    ]


def _state(study: Study, fold: int, trial: Trial, dropped: Collection[str]) -> str:
    state = _state_of(study, fold, trial.id)
    if trial.id in dropped and state != RUNNING:
        return DROPPED
    if state == DONE:
        record = _record(Path(study.results), fold, trial.id)
        if (record.get("epochs"), record.get("settings")) != target(trial.study):
            return OUTDATED
    return state


def _state_of(study: Study, fold: int, trial: str) -> str:
    states = Path(study.results, ".state", f"fold{fold}", "trials", trial)
    if is_alive(states, study.recovery.lease_seconds):
        return RUNNING
    # It is written last.
    if Path(study.results, f"fold{fold}", "trials", trial, "run.json").exists():
        return DONE
    return STOPPED if read_progress(states) else NEW


def _record(results: Path, fold: int, trial: str) -> dict[str, Any]:
    try:
        content = read_json(results / f"fold{fold}" / "trials" / trial / "run.json")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _recorded_parameters(results: Path, trial: str, folds: dict[int, str]) -> dict[str, Any] | None:
    records = (_record(results, fold, trial) for fold in folds)
    return next((record["parameters"] for record in records if "parameters" in record), None)


def print_trials(study: Study, trials: Sequence[Trial], as_json: bool) -> None:
    """Print the trials of a study, those that it does not name any more, and a summary.

    Args:
        study: the study.
        trials: all of its trials.
        as_json: print one JSON object instead, with ``trials`` and ``not_in_the_study``.
    """
    listed, others = list_trials(study, trials), list_others(study, trials)
    if as_json:
        parts = {"trials": listed, "not_in_the_study": others}
        print(json.dumps({name: list(map(_json, part)) for name, part in parts.items()}, indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        # A line per trial for programs that read it.
        console = Console(highlight=False, width=10_000)
    console.print(_table(listed, swept_keys(trials)))
    if others:
        keys = dict.fromkeys(key for other in others for key in other.parameters or {})
        console.print(_table(others, list(keys), f"In {study.results}, but not in this study"))
    console.print(_summary(study, listed, others), markup=False, soft_wrap=True)


def _json(trial: ListedTrial) -> dict[str, Any]:
    folds = {str(fold): state for fold, state in trial.folds.items()}
    return {
        "id": trial.id,
        "parameters": trial.parameters,
        "state": trial.state,
        "folds": folds,
    }


def _table(listed: Sequence[ListedTrial], keys: Sequence[str], title: str | None = None) -> Table:
    table = Table(title=Text(title, "bold") if title else None, title_justify="left")
    table.add_column("trial", no_wrap=True)
    for key in keys:
        table.add_column(key, overflow="fold")
    table.add_column("state")
    for trial in listed:
        # Trials that are not in the study have their own keys, or no record of them.
        values = trial.parameters or {}
        shown = (Text(str(values[key]) if key in values else "") for key in keys)
        table.add_row(trial.id, *shown, trial.state)
    return table


def _summary(study: Study, listed: Sequence[ListedTrial], others: Sequence[ListedTrial]) -> str:
    counts = Counter(state for trial in listed for state in trial.folds.values())
    told = [f"{counts[state]} {state}" for state in (DONE, *TOLD, NEW) if counts[state]]
    folds = counted(len(study.folds.numbers), "fold")
    text = f"{counted(len(listed), 'trial')} x {folds}: {', '.join(told)}."
    if others:
        verb = "is" if len(others) == 1 else "are"
        text += (
            f" {counted(len(others), 'trial')} in {study.results} {verb} not in this study; "
            "`voxelsoup prune` lists what no study names."
        )
    return text[0].upper() + text[1:]
