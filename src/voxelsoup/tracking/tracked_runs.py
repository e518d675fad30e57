"""A study's results as runs of a tracker: the study itself, its trainings, and what is compared."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import decoded, read_json
from voxelsoup.runs.record import read_record, read_result
from voxelsoup.runs.run_state import AT_WORK, RunState
from voxelsoup.status.read_runs import KnownRun
from voxelsoup.status.rows import RunRow
from voxelsoup.status.study_status import StatusReader
from voxelsoup.study.study import FINAL, Study, folder_of, place_of
from voxelsoup.tracking.curves import Histories, Point, Span, curve, seconds, spans_of_record

STUDY = "study"
# Of a section, what does not change what a run computes, or what it says under another name.
NOT_OF_THE_RUN = {
    "training": {
        *("device", "workers", "watchdog", "epochs", "checkpoints", "gradient_checkpointing"),
        *("channels_last", "compile"),
    },
}
SECTIONS = ("network", "training", "optimizer")
Status = Literal["scheduled", "running", "finished", "failed", "killed"]
# What trackers call it. What a halving drops is ended on purpose, as pruned trials are elsewhere.
STATUS: dict[RunState, Status] = {
    "waiting": "scheduled", "queued": "scheduled",
    **dict.fromkeys(AT_WORK, "running"),
    "done": "finished", "diverged": "failed", "failed": "failed",
    "lost": "killed", "dropped": "killed",
}  # fmt: skip
COMPARISON = "comparison"
TABLES = (".csv", ".html")


@dataclass(frozen=True)
class Artefact:
    """A file to keep with a run, in a folder there."""

    path: Path
    folder: str = ""

    @property
    def sign(self) -> list[str | int]:
        """What changes with its content."""
        path = str(self.path.absolute())
        with suppress(OSError):
            found = self.path.stat()
            return [path, found.st_size, found.st_mtime_ns]
        return [path]


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is to know of one run.

    Attributes:
        key: its name within the study, as ``fold0/3b2a69b9`` or ``fold0/soups/greedy``.
        label: for readers, as ``fold 0, lr 0.03``.
        kind: ``study``, ``stem``, ``trial``, ``finish``, ``long-run``, ``best``, ``soup``,
            ``ensemble`` or ``final``.
        state: the project's own word, with what belongs to it.
        parameters: section -> key -> value; a value may be any that JSON has.
        started: in seconds after 1970; None if it is not known.
        ended: None while more may come.
        curve: in the order of the steps.
        scores: name -> value.
    """

    key: str
    label: str
    kind: str
    status: Status
    state: str
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    curve: list[Point] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    artefacts: list[Artefact] = field(default_factory=list)
    note: str = ""

    @cached_property
    def digest(self) -> str:
        """Changes with anything that a tracker is to know."""
        content = [
            *(self.label, self.status, self.state, self.parameters, self.tags, self.started),
            *(self.ended, self.scores, self.note, [one.sign for one in self.artefacts]),
            [[point.step, point.time, point.values] for point in self.curve],
        ]
        return _digest(content)

    @property
    def origin(self) -> dict[str, str]:
        """What makes it another run where it changes, beside its settings; as far as it is known.

        A training that resumes keeps its first epoch; one that starts over has another one. The
        study stays one run whatever its tables say.
        """
        found = {}
        if self.curve:
            found["first_epoch"] = _digest(self.curve[0].values)
        if self.scores and self.kind != STUDY:
            found["scores"] = _digest(self.scores)
        return found

    @property
    def settings(self) -> dict[str, str]:
        """Its parameters as trackers show them: dotted key -> value."""
        return dict(_flat(self.parameters))


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)


class StudyRecords:
    """Reads what the runs and rules of a study have written so far, and disturbs none."""

    def __init__(self, study_file: Path) -> None:
        """Read the study; an ``InputError`` if it is not usable."""
        self.status = StatusReader(study_file)
        self.study: Study = self.status.study
        self.results = Path(self.study.results)
        self._histories = Histories()

    def look(self) -> list[TrackedRun]:
        """All that there is to know now: the study first, then trainings, then what is compared."""
        rows = self.status.look().rows
        known = zip(self.status.runs, rows, strict=True)
        runs = [run for one, row in known if (run := self._training(one, row)) is not None]
        compared = list(self._compared())
        return [self._whole(runs, rows), *runs, *compared]

    def _whole(self, runs: list[TrackedRun], rows: Any) -> TrackedRun:
        """The study as a run: over all others, with tables and report."""
        report = self.results / "report.html"
        done = sum(row.state in ("done", "diverged", "dropped") for row in rows)
        works = any(run.status == "running" for run in runs)
        status: Status = "finished" if report.exists() and done == len(rows) else "scheduled"
        status = "running" if works else status
        if status == "scheduled" and any(run.status in ("failed", "killed") for run in runs):
            status = "failed"
        artefacts = [Artefact(path) for path in [report] if path.exists()]
        artefacts += [
            Artefact(path, folder)
            for folder in (COMPARISON, "report")
            for path in sorted((self.results / folder).glob("*"))
            if path.suffix in (*TABLES, ".md", ".yaml")
        ]
        manifests = (self.results / "models" / "manifest.tsv", self.results / "provenance.tsv")
        artefacts += [Artefact(path) for path in manifests if path.exists()]
        started = [run.started for run in runs if run.started is not None]
        parts = ("folds", "evaluation", "soup")
        settings = self.study.model_dump(mode="json", include={*SECTIONS, *parts})
        return TrackedRun(
            STUDY,
            STUDY,
            STUDY,
            status,
            f"{done} of {len(rows)} runs are done",
            parameters=_without_others(settings),
            tags={"folds": str(len(self.study.folds.numbers))},
            started=min(started, default=None),
            ended=_date(report) if status == "finished" else None,
            scores=scores_of_tables(self.results / COMPARISON),
            artefacts=artefacts,
            note=_text(self.results / COMPARISON / "answer.rst"),
        )

    def _training(self, run: KnownRun, row: RunRow) -> TrackedRun | None:
        """A stem, trial, finish or long run; None if it has not begun."""
        history = self._histories.of(run.states, run.folder)
        record, result = read_record(run.states), read_result(run.folder)
        if record is None and not result:
            return None
        if record is not None and record.attempts:
            steps = history[-1]["step"] / history[-1]["epoch"] if history else 0.0
            spans = spans_of_record(record, steps)
            began, ended = seconds(record.attempts[0].started), seconds(record.updated)
        elif "started" in result:
            began, ended = seconds(result["started"]), seconds(result["ended"])
            spans = [Span(0, int(history[-1]["step"]), began, ended)] if history else []
        else:
            return None
        status = STATUS[row.state]
        kind = "trial" if run.trial else run.run.partition("/")[0]
        over = status in ("finished", "failed", "killed")
        scores = {}
        # While it trains, the score is that of an earlier state.
        if row.state in ("done", "dropped") and row.selection_score is not None:
            scores["selection/dice"] = row.selection_score
            if row.selection_loss is not None:
                scores["selection/loss"] = row.selection_loss
        tags = {"epochs": str(run.epochs), "device": row.gpu or "", "host": row.host or ""}
        tags |= {"attempts": str(row.attempt), "slurm_job": row.job or ""}
        tags |= {f"sweep.{key}": str(value) for key, value in row.parameters.items()}
        records = [Path(run.folder, name) for name in ("run.json", "history.csv")]
        return TrackedRun(
            run.name,
            f"{place_of(run.fold)}, {row.label}",
            kind,
            status,
            f"{row.state} {row.detail}".strip(),
            parameters=self._parameters(run, kind),
            tags=_place(run.fold, run.name) | {key: text for key, text in tags.items() if text},
            started=began,
            ended=ended if over else None,
            curve=curve(history, spans),
            scores=scores,
            artefacts=[Artefact(path) for path in records if path.exists()],
        )

    def _parameters(self, run: KnownRun, kind: str) -> dict[str, Any]:
        """The settings of a training that its result depends on, with its own values in place."""
        study = run.trial.study if run.trial else self.study
        settings = _without_others(study.model_dump(mode="json", include={*SECTIONS}))
        if kind == "stem" and study.stem.optimizer is not None:
            settings["optimizer"] = study.stem.optimizer.model_dump(mode="json")
        if kind in ("finish", "long-run") and study.soup.finish is not None:
            settings["finish"] = study.soup.finish.model_dump(mode="json")
        if kind == "finish":
            settings["finish"]["run"] = run.run
        return settings

    def _compared(self) -> Iterator[TrackedRun]:
        """The models that are compared, of each fold: with their scores on test cases."""
        for fold in self.study.folds.numbers:
            for recipe in ("best", *self.study.compared_recipes):
                place = "best" if recipe == "best" else f"soups/{recipe}"
                scores = scores_of_test(self.results / folder_of(fold) / place / "test.csv")
                if scores:
                    yield self._model(fold, recipe, place, scores)
        if self.study.final and (self.results / "final" / "recipe.json").exists():
            yield self._model(FINAL, "final", "", {})

    def _model(self, fold: int, recipe: str, place: str, scores: Mapping[str, float]) -> TrackedRun:
        folder = self.results / folder_of(fold) / place
        key = f"{folder_of(fold)}/{place or 'model'}"
        kind = recipe if recipe in ("best", "ensemble", "final") else "soup"
        recipe_file, weights = folder / "recipe.json", folder / "model.safetensors"
        made_of = _made_of(recipe_file)
        if kind == "best":
            made_of = {"trial": _best_of(folder.with_name("candidates.tsv"))}
        files = [recipe_file, folder / "test.csv", weights]
        found = [path for path in files if path.exists()]
        date = max(map(_date, found), default=0.0) or None
        name = "final model" if fold == FINAL else f"{place_of(fold)}, {recipe}"
        return TrackedRun(
            key,
            name,
            kind,
            "finished",
            "done",
            parameters={"model": {"recipe": recipe, **made_of}},
            tags=_place(fold, key) | {"protocol": self.study.evaluation.protocol},
            started=date,
            ended=date,
            scores=dict(scores),
            artefacts=[Artefact(path) for path in found],
        )


def _place(fold: int, key: str) -> dict[str, str]:
    trial = key.rpartition("/")[2]
    return {"fold": "final" if fold == FINAL else str(fold), "run": trial}


def _without_others(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        section: {
            key: value
            for key, value in values.items()
            if key not in NOT_OF_THE_RUN.get(section, set())
        }
        for section, values in settings.items()
    }


def _date(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _text(path: Path) -> str:
    try:
        return decoded(path).strip()
    except (OSError, ValueError):
        return ""


def _made_of(recipe: Path) -> dict[str, Any]:
    """The ingredients of a soup, with their weights, as far as they are known."""
    try:
        content = read_json(recipe)
        ingredients = {one["trial"]: one.get("weight") for one in content["ingredients"]}
        return {"ingredients": ingredients, "selection score": content.get("score")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _best_of(candidates: Path) -> str:
    from voxelsoup.soups.candidates import ranking, read_candidates

    with suppress(InputError, OSError, ValueError):
        return ranking({one.model: one.selection_score for one in read_candidates(candidates)})[0]
    return ""


def scores_of_test(path: Path) -> dict[str, float]:
    """A model's means over its test cases: of all regions together, and of each; empty if none."""
    from voxelsoup.evaluation.case_scores import measured_by, read_rows, region_means, summary

    if not path.exists():
        return {}
    try:
        rows = read_rows(path)
    except InputError:
        # It is just being written, or the model diverged and has no scores.
        return {}
    found = {"test/loss": summary(rows)["test_loss"]}
    for metric in ("dice", *measured_by(rows)):
        means = region_means(rows, metric)
        found[f"test/{metric}"] = fmean(means.values())
        found |= {f"test/{metric}/{region}": value for region, value in means.items()}
    return found


def scores_of_tables(folder: Path) -> dict[str, float]:
    """The numbers of the final tables: each model over all folds, and the primary question."""
    found: dict[str, float] = {}
    for row in _rows(folder / "overview.csv"):
        if row.get("region") == "mean":
            means = {key: value for key, value in row.items() if key.endswith("_mean")}
            for key, value in means.items():
                found[f"test/{key.removesuffix('_mean')}/{row['model']}"] = _number(value)
    for row in _rows(folder / "comparisons.csv"):
        if row.get("role") == "primary" and row.get("folds") == "all":
            numbers = ("difference", "low", "high", "p")
            found |= {f"primary/{key}": _number(row.get(key, "")) for key in numbers}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(decoded(path).splitlines()))
    except (OSError, ValueError):
        return []


def _number(text: str) -> float:
    try:
        return float(text)
    except (ValueError, TypeError):
        return math.nan
