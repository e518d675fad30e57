"""The status of a study, read at every look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from voxelsoup.runs.divergence import DivergedTrial
from voxelsoup.runs.failures import SlurmJob
from voxelsoup.runs.invocation import read_submissions
from voxelsoup.runs.lease import server_time
from voxelsoup.runs.record import Attempt, RunRecord, read_result
from voxelsoup.runs.run_state import (
    AT_WORK,
    OVER,
    Circumstances,
    RunCondition,
    RunFacts,
    run_condition,
)
from voxelsoup.runs.rungs import diverged_at_rungs, dropped_trials
from voxelsoup.runs.snapshot import last_start
from voxelsoup.status.read_runs import (
    KnownRun,
    Scores,
    circumstances,
    read_choice,
    read_facts,
    read_losses,
    runs_of_configurations,
)
from voxelsoup.status.rows import RunRow, StudyStatus
from voxelsoup.status.slurm_jobs import head_job
from voxelsoup.study.configurations import FIRST
from voxelsoup.study.loading import read_with_configurations
from voxelsoup.study.study import Study
from voxelsoup.study.trials import differing_keys, parameters_of, trials


class StatusReader:
    """Looks at the runs of a study and disturbs none."""

    def __init__(self, study_file: Path) -> None:
        """Read the study; an ``InputError`` if it is not usable."""
        self.file, self.studies = study_file, read_with_configurations(study_file)
        self.study = self.studies[FIRST]
        self.runs = runs_of_configurations(self.studies)
        # Trials of different configurations may have the same ids, and then the same settings.
        found = [one for study in self.studies.values() for one in trials(study, str(study_file))]
        self._parameters = parameters_of(found)
        # Swept keys in which the trials differ.
        self.keys = differing_keys(trials(self.study, str(study_file)))
        self._scores = Scores(None if self.study.dataset.not_annotated else len(self.study.regions))

    def look(self, curves: bool = False) -> StudyStatus:
        """All runs as they are now, for ``curves`` with the losses of all epochs."""
        return self._look(self.runs, curves)[0]

    def look_at(self, run: KnownRun) -> tuple[StudyStatus, RunFacts, RunCondition, Circumstances]:
        """One run as it is now: a status of its row alone, and what that was concluded from."""
        status, facts, around = self._look([run], curves=True)
        return status, facts[0], run_condition(facts[0], around), around

    def _look(
        self, runs: Sequence[KnownRun], curves: bool
    ) -> tuple[StudyStatus, list[RunFacts], Circumstances]:
        folder = Path(self.study.results, ".state")
        before = server_time(folder)
        ends = {name: _EndsAtRungs(study) for name, study in self.studies.items()}
        facts = [read_facts(run, *ends[run.configuration or FIRST].of(run)) for run in runs]
        around = circumstances(self.study, facts, before)
        head, unknown = head_job(Path(self.study.results))
        # Between two starts of a head job no Snakemake lives, and yet failed runs are repeated.
        lives = around.snakemake_lives or (head is not None and head.is_open)
        around = replace(around, snakemake_lives=lives)
        rows = [self._row(run, fact, around, curves) for run, fact in zip(runs, facts, strict=True)]
        now = datetime.now(UTC).astimezone()
        gpus_per_run = max(1, self.study.resources.training.gpu)
        refused = read_submissions(folder, around.snakemake_lives)
        note = "; ".join(filter(None, (refused, around.queue.note or unknown, self._edited())))
        if not Path(self.study.results).is_dir():
            note = f"there is no folder {self.study.results} here yet"
        status = StudyStatus(
            study=str(self.file),
            results=self.study.results,
            at=now,
            rows=rows,
            gpu_hours=gpus_per_run * sum(r.hours for r in rows if r.gpu not in (None, "cpu")),
            hours=sum(row.hours for row in rows),
            estimated_end=_end_of_study(rows, now),
            note=note,
            head=head,
        )
        return status, facts, around

    def _edited(self) -> str:
        """That the study was changed after its last start, whose jobs go by what it was."""
        start, file = last_start(Path(self.study.results)), str(self.file.absolute())
        if start is None or file not in start.files or not start.edited_since():
            return ""
        began = datetime.fromisoformat(start.time).astimezone()
        return (
            f"{self.file.name} was changed after the start of {began:%d %b, %H:%M}, whose "
            "jobs go by the study as it was"
        )

    def _row(self, run: KnownRun, facts: RunFacts, around: Circumstances, curves: bool) -> RunRow:
        condition = run_condition(facts, around)
        parameters = self._parameters.get(run.run, {})
        choice, remark = read_choice(run) if run.recipe and facts.done else (None, "")
        score = self._scores.best(run) or (choice, None)
        return RunRow(
            fold=run.fold,
            run=run.run,
            parameters={key: parameters[key] for key in self.keys} if run.trial else {},
            state=condition.state,
            detail=condition.detail or remark,
            fix=condition.failure.fix if condition.failure else "",
            epochs=run.epochs,
            selection_score=score[0],
            selection_loss=score[1],
            losses=read_losses(run) if curves else (),
            configuration=run.configuration,
            **_of_job(around.queue.latest.get(run.name), condition),
            **(
                _of_record(facts.record, run, condition)
                if facts.record and facts.last
                else _of_result(run, facts)
            ),
        )


class _EndsAtRungs:
    """Where the rungs of a study have ended trials."""

    def __init__(self, study: Study) -> None:
        self._dropped = dropped_trials(study)
        self._diverged = {(one.fold, one.trial): one for one in diverged_at_rungs(study)}

    def of(self, run: KnownRun) -> tuple[int | None, DivergedTrial | None]:
        """The rung after which a run was dropped, and where it diverged."""
        dropped = self._dropped.get(run.fold, {}).get(run.run)
        return dropped, self._diverged.get((run.fold, run.run))


def _of_record(record: RunRecord, run: KnownRun, condition: RunCondition) -> dict[str, Any]:

    last: Attempt = record.attempts[-1]
    speed = record.seconds_per_epoch
    works = condition.state in AT_WORK
    updated = datetime.fromisoformat(record.updated)
    since = max(0.0, (datetime.now(UTC) - updated).total_seconds()) if works else 0.0
    end = None
    if works and speed:
        end = updated + timedelta(seconds=(run.epochs - record.epoch) * speed)
        end = max(end, datetime.now(UTC)).astimezone()
    shown = {
        "epoch": record.epoch,
        "training_loss": record.training_loss,
        "epochs_per_hour": 3600 / speed if speed else None,
        "estimated_end": end,
        "gpu": last.gpu,
        "attempt": len(record.attempts),
        "started": datetime.fromisoformat(record.attempts[0].started).astimezone(),
        "hours": (record.seconds + since) / 3600,
    }
    if condition.state == "queued":
        return shown
    return shown | {"host": last.owner.host, "job": last.owner.job, "partition": last.partition}


def _of_job(job: SlurmJob | None, condition: RunCondition) -> dict[str, Any]:
    """What a row shows of a submission that has not trained yet."""
    if job is None or condition.state != "queued":
        return {}
    return {"job": job.id, "partition": job.partition}


def _of_result(run: KnownRun, facts: RunFacts) -> dict[str, Any]:
    """What a row shows of results whose record was deleted, or never written."""
    if not facts.done:
        return {}
    result = read_result(run.folder)
    losses = read_losses(run)
    began, ended = (datetime.fromisoformat(result[key]) for key in ("started", "ended"))
    return {
        "epoch": facts.diverged.epoch - 1 if facts.diverged else run.epochs,
        "training_loss": losses[-1] if losses else None,
        "gpu": result.get("device"),
        "host": result.get("machine", {}).get("host"),
        "attempt": len(result.get("attempts", [])) or 1,
        "started": began.astimezone(),
        "hours": (ended - began).total_seconds() / 3600,
    }


def _end_of_study(rows: Sequence[RunRow], now: datetime) -> datetime | None:
    """When all runs will be done if as many as now keep working at the pace seen so far."""
    works = sum(row.state in AT_WORK for row in rows)
    paces = [1 / row.epochs_per_hour for row in rows if row.epochs_per_hour]
    if not works or not paces:
        return None
    usual = sum(paces) / len(paces)
    hours = 0.0
    for row in rows:
        if row.state not in OVER:
            own = 1 / row.epochs_per_hour if row.epochs_per_hour else usual
            hours += (row.epochs - row.epoch) * own
    ends = [row.estimated_end for row in rows if row.estimated_end is not None]
    return max([now + timedelta(hours=hours / works), *ends])
