"""The trials of a study and how far each has come, before and while they run; reads only."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxelsoup.common.text import counted
from voxelsoup.runs.divergence import DivergedTrial, divergence_of
from voxelsoup.runs.lease import look_at, server_time
from voxelsoup.runs.record import read_record, read_result, read_saved
from voxelsoup.runs.run_state import Circumstances, RunFacts, run_condition
from voxelsoup.runs.rungs import diverged_at_rungs, dropped_trials
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial, parameters_of, swept_keys
from voxelsoup.training.run import run_settings

TRIAL = re.compile(r"[0-9a-f]{8}")
NEW, STOPPED, RUNNING, DONE, OUTDATED = "new", "stopped", "running", "done", "outdated"
DROPPED, DIVERGED, LOST = "dropped", "diverged", "lost"
# In this order they are counted, after those that are done.
COUNTED = (RUNNING, LOST, STOPPED, OUTDATED, DIVERGED, DROPPED)


@dataclass(frozen=True)
class ListedTrial:
    """A trial and its runs.

    Attributes:
        parameters: dotted key -> value; None if no record has them.
        folds: number of the fold -> ``new``, ``running``, ``lost`` (its process gives no sign of
            life), ``stopped`` (resumes from a saved state), ``done``, ``outdated`` (done with
            other settings, so trained again), ``diverged`` (and left out) or ``dropped`` (at a
            rung of a halving).
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
        counted_states = [f"{counts[state]} {state}" for state in COUNTED if counts[state]]
        return ", ".join([f"{counts[DONE]} of {len(self.folds)} folds done", *counted_states])


def list_trials(study: Study, trials: Sequence[Trial]) -> list[ListedTrial]:
    """All trials of a study, in their order; its results count from the working directory."""
    parameters, around = parameters_of(trials), _circumstances(study)
    dropped = dropped_trials(study)
    diverged = {(one.fold, one.trial): one for one in diverged_at_rungs(study)}
    listed = []
    for trial in trials:
        folds = {}
        for fold in study.folds.numbers:
            at_rungs = dropped[fold].get(trial.id), diverged.get((fold, trial.id))
            folds[fold] = _state(study, fold, trial.id, around, *at_rungs)
            has_results = folds[fold] == DONE or (folds[fold] == DIVERGED and at_rungs[1] is None)
            if has_results and _is_outdated(Path(study.results), fold, trial):
                folds[fold] = OUTDATED
        listed.append(ListedTrial(trial.id, parameters[trial.id], folds))
    return listed


def list_others(study: Study, trials: Sequence[Trial]) -> list[ListedTrial]:
    """The trials that lie in the results folder and are not in the study, by their ids."""
    results, known = Path(study.results), {trial.id for trial in trials}
    around = _circumstances(study)
    found: dict[str, dict[int, str]] = {}
    for folder in sorted([*results.glob("fold*/trials/*"), *results.glob(".state/fold*/trials/*")]):
        number = folder.parts[-3].removeprefix("fold")
        is_trial = TRIAL.fullmatch(folder.name) and number.isdecimal() and folder.is_dir()
        if is_trial and folder.name not in known:
            folds = found.setdefault(folder.name, {})
            folds[int(number)] = _state(study, int(number), folder.name, around)
    return [
        ListedTrial(trial, _recorded_parameters(results, trial, folds), folds)
        for trial, folds in sorted(found.items())
    ]


def _circumstances(study: Study) -> Circumstances:
    return Circumstances(server_time(Path(study.results, ".state")), study.recovery.lease_seconds)


def _state(
    study: Study,
    fold: int,
    trial: str,
    around: Circumstances,
    dropped_after: int | None = None,
    diverged: DivergedTrial | None = None,
) -> str:
    states = Path(study.results, ".state", f"fold{fold}", "trials", trial)
    results, record = Path(study.results, f"fold{fold}", "trials", trial), read_record(states)
    # It is written last.
    done = (results / "run.json").exists()
    if done and (record is None or record.state != "finished"):
        diverged = divergence_of(fold, results) or diverged
    lease, name = look_at(states), f"fold{fold}/{trial}"
    facts = RunFacts(name, 0, done, record, lease, False, None, dropped_after, diverged)
    condition = run_condition(facts, around)
    if condition.at_work:
        return RUNNING
    if condition.state in (DONE, DIVERGED, DROPPED, LOST):
        return condition.state
    return STOPPED if read_saved(states) else NEW


def _is_outdated(results: Path, fold: int, trial: Trial) -> bool:
    """Whether a trial was trained with other settings than it has now."""
    record, own = read_result(results / f"fold{fold}" / "trials" / trial.id), trial.study
    epochs, checkpoints = own.training.epochs, own.training.checkpoints
    wanted = run_settings(own, own.optimizer, epochs, checkpoints, own.soup.weights)
    return record.get("settings") != wanted or record.get("epochs") != epochs


def _recorded_parameters(results: Path, trial: str, folds: dict[int, str]) -> dict[str, Any] | None:
    records = (read_result(results / f"fold{fold}" / "trials" / trial) for fold in folds)
    return next((record["parameters"] for record in records if "parameters" in record), None)


def print_trials(study: Study, trials: Sequence[Trial], as_json: bool) -> None:
    """Print all trials of a study, those that it does not name any more, and a summary.

    As JSON it is one object with ``trials`` and ``not_in_the_study``.
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
    return {"id": trial.id, "parameters": trial.parameters, "state": trial.state, "folds": folds}


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
    states = [f"{counts[state]} {state}" for state in (DONE, *COUNTED, NEW) if counts[state]]
    folds = counted(len(study.folds.numbers), "fold")
    text = f"{counted(len(listed), 'trial')} x {folds}: {', '.join(states)}."
    if others:
        verb = "is" if len(others) == 1 else "are"
        text += (
            f" {counted(len(others), 'trial')} in {study.results} {verb} not in this study; "
            "`voxelsoup prune` lists what no study names."
        )
    return text[0].upper() + text[1:]
