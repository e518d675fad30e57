"""Runs in MLflow: one experiment, the study as the parent of all its runs.

What is there already is asked of MLflow itself, by tags: the file of the results folder or the
server may know more than this process, where another one was killed in the middle.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelsoup.study.study import Study
from voxelsoup.tracking.tracked_runs import STUDY, TrackedRun
from voxelsoup.tracking.tracker import Identity, TrackerError

if TYPE_CHECKING:
    from mlflow.entities import Run

FOLDER = "mlflow"
STORE = "mlflow.db"
ARTEFACTS = "artefacts"
# Tags by which runs are known again.
OF_STUDY, KEY, ORIGIN, DIGEST, STATE = (
    f"voxelsoup.{name}" for name in ("study", "key", "origin", "digest", "state")
)
STATUS = {
    "scheduled": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
}
# What one request may hold.
METRICS_AT_ONCE, PARAMETERS_AT_ONCE, LONGEST_VALUE = 1000, 100, 500
# Of a server that does not answer. MLflow's own defaults wait for a quarter of an hour.
SECONDS_PER_REQUEST, REPETITIONS = "20", "2"


def quiet_environment() -> None:
    """Before MLflow is imported: it sends no usage statistics, and gives up on a dead server."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # Two lines for each run of a server.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", SECONDS_PER_REQUEST)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", REPETITIONS)


class MlflowTracker:
    """Writes runs to the file in the results folder, or to the study's server."""

    def __init__(self, study: Study, identity: Identity) -> None:
        """Open the store, and ask it which runs of the study it has.

        Raises:
            TrackerError: if it cannot be reached.
        """
        quiet_environment()
        from mlflow import MlflowClient

        self._folder = Path(study.results, FOLDER).absolute()
        self._offline = study.tracking.address is None
        self.place = f"{study.results}/{FOLDER}/{STORE}" if self._offline else _address(study)
        shown = f"mlflow ui --backend-store-uri sqlite:///{study.results}/{FOLDER}/{STORE}"
        self.advice = shown if self._offline else self.place
        self._identity = identity
        uri = f"sqlite:///{self._folder / STORE}" if self._offline else _address(study)
        with _as_tracker_error(self.place):
            if self._offline:
                self._folder.mkdir(parents=True, exist_ok=True)
                follow_a_move(self._folder)
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            self._experiment = self._find_experiment(identity.experiment)
            self._runs = self._find_runs()

    def _find_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if found is not None:
            return str(found.experiment_id)
        artefacts = (self._folder / ARTEFACTS).as_uri() if self._offline else None
        # Without it MLflow's pages take it for one of language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, artefacts, tags))

    def _find_runs(self) -> dict[str, Run]:
        """Key -> run, of all runs of this study that MLflow has."""
        found: dict[str, Run] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                filter_string=f"tags.`{OF_STUDY}` = '{self._identity.study}'",
                max_results=1000,
                page_token=token,
            )
            found |= {run.data.tags[KEY]: run for run in page if KEY in run.data.tags}
            token = page.token
            if not token:
                return found

    def mirror(self, run: TrackedRun, confirm: Callable[[], None]) -> None:
        """Make MLflow know all of a run; see ``Tracker``."""
        with _as_tracker_error(self.place):
            known = self._runs.get(run.key)
            if known is not None and known.data.tags.get(DIGEST) == run.digest:
                return
            if known is not None and _is_another(known, run):
                confirm()
                self._replace(known)
                known = None
            if known is None:
                confirm()
                known = self._create(run)
            confirm()
            self._complete(known, run)
            self._runs[run.key] = self._client.get_run(known.info.run_id)

    def _create(self, run: TrackedRun) -> Run:
        tags = {OF_STUDY: self._identity.study, KEY: run.key, "mlflow.user": _user()}
        if run.key != STUDY:
            tags["mlflow.parentRunId"] = self._runs[STUDY].info.run_id
        label = self._identity.experiment if run.key == STUDY else run.label
        begin = None if run.started is None else _milliseconds(run.started)
        return self._client.create_run(self._experiment, begin, tags, label)

    def _replace(self, known: Run) -> None:
        """Put a run out of sight (MLflow's trash) whose training started over."""
        self._client.set_tag(known.info.run_id, KEY, f"{known.data.tags[KEY]} (replaced)")
        self._client.delete_run(known.info.run_id)

    def _complete(self, known: Run, run: TrackedRun) -> None:
        run_id = known.info.run_id
        for batch in _batches(self._new_metrics(known, run), METRICS_AT_ONCE):
            self._client.log_batch(run_id, metrics=batch)
        for batch in _batches(_new_parameters(known, run), PARAMETERS_AT_ONCE):
            self._client.log_batch(run_id, params=batch)
        for artefact in run.artefacts:
            if artefact.path.exists():
                self._client.log_artifact(run_id, str(artefact.path), artefact.folder or None)
        self._set_status(run_id, run)
        # The digest last: it says that all of it is there.
        for key, text in _tags(run).items():
            if known.data.tags.get(key) != text:
                self._client.set_tag(run_id, key, text)

    def _new_metrics(self, known: Run, run: TrackedRun) -> list[Any]:
        """What MLflow does not have yet of curves and scores."""
        from mlflow.entities import Metric

        run_id = known.info.run_id
        reached: dict[str, int] = {}
        for name in known.data.metrics:
            history = self._client.get_metric_history(run_id, name)
            reached[name] = max((metric.step for metric in history), default=-1)
        found = [
            Metric(name, value, _milliseconds(point.time), point.step)
            for point in run.curve
            for name, value in point.values.items()
            if point.step > reached.get(name, -1)
        ]
        last = run.curve[-1].step if run.curve else 0
        date = run.ended or run.started or 0.0
        for name, value in run.scores.items():
            before = known.data.metrics.get(name)
            if before is None or not _same(before, value):
                # Of the study: the tables were made again.
                step = max(last, reached.get(name, -1) + 1)
                found.append(Metric(name, value, _milliseconds(date), step))
        return found

    def _set_status(self, run_id: str, run: TrackedRun) -> None:
        status = STATUS[run.status]
        if run.status in ("finished", "failed", "killed"):
            end = None if run.ended is None else _milliseconds(run.ended)
            self._client.set_terminated(run_id, status, end)
        else:
            self._client.update_run(run_id, status=status)

    def complete(self, keys: set[str], confirm: Callable[[], None]) -> None:
        """Mark runs that were deleted from the results: what was logged of them stays."""
        with _as_tracker_error(self.place):
            for key in self._runs.keys() - keys:
                known = self._runs[key]
                if known.data.tags.get(STATE) == "deleted":
                    continue
                confirm()
                if known.info.status in ("RUNNING", "SCHEDULED"):
                    self._client.set_terminated(known.info.run_id, "KILLED")
                self._client.set_tag(known.info.run_id, DIGEST, "")
                self._client.set_tag(known.info.run_id, STATE, "deleted")
                self._runs[key] = self._client.get_run(known.info.run_id)


def follow_a_move(folder: Path) -> None:
    """Let a store that was moved or copied find its artefacts: it has their absolute addresses."""
    store, now = folder / STORE, (folder / ARTEFACTS).as_uri()
    if not store.exists():
        return
    with closing(sqlite3.connect(store, timeout=30)) as connection, connection:
        found = connection.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?",
            (f"file:%/{FOLDER}/{ARTEFACTS}",),
        )
        for (before,) in [row for row in found if row[0] != now]:
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                connection.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (before, now)
                )


def _is_another(known: Run, run: TrackedRun) -> bool:
    """Whether what MLflow has is an earlier run of this name, which started over since."""
    had = json.loads(known.data.tags.get(ORIGIN, "{}"))
    now = run.origin
    if any(had[part] != now[part] for part in had.keys() & now.keys()):
        return True
    settings = {key: text[:LONGEST_VALUE] for key, text in run.settings.items()}
    both = known.data.params.keys() & settings.keys()
    # The study stays one run; its settings are those of its beginning.
    return run.key != STUDY and any(known.data.params[key] != settings[key] for key in both)


def _new_parameters(known: Run, run: TrackedRun) -> list[Any]:
    from mlflow.entities import Param

    new = {key: text for key, text in run.settings.items() if key not in known.data.params}
    return [Param(_usable(key), text[:LONGEST_VALUE]) for key, text in new.items()]


def _tags(run: TrackedRun) -> dict[str, str]:
    tags = {"kind": run.kind, STATE: run.state, **run.tags}
    if run.note:
        # MLflow shows it as the description.
        tags["mlflow.note.content"] = run.note[:5000]
    tags[ORIGIN] = json.dumps(run.origin)
    return {**tags, DIGEST: run.digest}


def _usable(key: str) -> str:
    """A name with the characters that MLflow takes."""
    return "".join(one if one.isalnum() or one in "_-. :/" else "_" for one in key)[:250]


def _batches(content: list[Any], size: int) -> Iterator[list[Any]]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


def _same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def _milliseconds(time: float) -> int:
    return round(1000 * time)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _address(study: Study) -> str:
    assert study.tracking.address is not None
    return study.tracking.address


@contextmanager
def _as_tracker_error(place: str) -> Iterator[None]:
    """Whatever MLflow, its database or the network raises, as one message."""
    from voxelsoup.common.errors import InputError, Stopped

    try:
        yield
    except (InputError, Stopped):
        raise
    except Exception as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise TrackerError(f"MLflow at {place}: {words[0][:500]}") from error
