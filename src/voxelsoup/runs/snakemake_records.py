"""Snakemake asks here what is current, in place of dates of files and its own folder.

Snakemake (9.27.1) keeps what it knows of finished jobs in the working directory, by the names of
files, and compares dates: copied results, or a removed ``.snakemake``, look finished whatever the
study says by now. Here it reads what lies beside the results (``origins``) instead. It calls the
class below at the very moments at which it would read and write its own records.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from snakemake import jobs as snakemake_jobs
from snakemake import workflow as snakemake_workflow
from snakemake.exceptions import WorkflowError
from snakemake.io import is_flagged
from snakemake.persistence.file import FilePersistence
from snakemake.settings.enums import RerunTrigger

from voxelsoup.common.files import sha256
from voxelsoup.common.text import counted
from voxelsoup.runs.origins import (
    Origin,
    changed_code,
    code_of,
    path_of_origin,
    placed,
    read_origin,
    sizes,
    why_outdated,
    write_origin,
)
from voxelsoup.runs.plan_table import FOLLOWS, Planned, plan_table

OnCodeChange = Literal["keep", "redo"]
NAMED_AT_ONCE = 5


@dataclass
class Records:
    """What the class below is told of the study.

    Attributes:
        results: their folder, as jobs name it.
        places: folders -> what they are called in origins.
        on_code_change: what is done with results of other code; None: the user is asked.
        name_of_rule: the project's name of a rule, which a module may have under another one.
        plan_is_made: called with Snakemake's plan before anything is listed or started.
        undecided: output -> why it is not known whether it is current.
    """

    results: str
    places: dict[str, str]
    on_code_change: OnCodeChange | None
    name_of_rule: Callable[[str], str]
    plan_is_made: Callable[[Any], None]
    undecided: dict[str, str] = field(default_factory=dict)


class Reason:
    """Why a job runs again, in words; true as Snakemake's own changes of parameters are."""

    def __init__(self, words: str) -> None:
        """``words`` are shown behind Snakemake's "Params have changed since last execution"."""
        self.words = words

    def __str__(self) -> str:
        return self.words


def keep_records_with_results(records: Records) -> None:
    """Let Snakemake decide by the origins of results from now on."""

    class Persistence(_Persistence):
        pass

    Persistence.records = records
    snakemake_workflow.FilePersistence = Persistence
    # Dates say when something was copied.
    snakemake_jobs.Job.output_mintime = property(_no_date)


async def _no_date(job: Any) -> None:
    return None


class _Persistence(FilePersistence):
    """Snakemake's records of finished jobs."""

    records: Records

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # All else that Snakemake would look at belongs to its own records.
        self.dag.workflow.dag_settings.rerun_triggers = frozenset({RerunTrigger.PARAMS})
        self._stored: dict[str, Origin | None] = {}
        self.now = cache(self._now)
        self.content = cache(sha256)
        lock: Callable[[], Any] = vars(self).get("lock", super().lock)
        self.lock = self._with_plan(lock)

    def has_metadata(self, job: Any) -> bool:
        """Whatever is known is asked by ``params_changed``."""
        return True

    def has_outdated_metadata(self, job: Any) -> bool:
        """Likewise."""
        return False

    def params_changed(self, job: Any, file: object = None) -> Reason | bool:
        """Why a job whose outputs exist has to run again; false if it has not."""
        missing = [path for path in job.output if not os.path.exists(path)]  # noqa: PTH110
        if missing:
            # Also where nothing that exists has to be made from them: a deleted trial comes again.
            self.dag.reason(job).missing_output.update(missing)
        if missing or not job.output:
            return False
        before, now = self.stored(self.path_of(job)), self.now(job)
        if before is not None:
            words = why_outdated(before, now, self.records.results)
            if words is not None:
                return Reason(words)
        assert now.code is not None
        if before is None:
            unknown = "nothing is written down of what it was made from"
        elif not before.is_by(now.code):
            unknown = changed_code(before.code, now.code)
        else:
            return False
        if self.records.on_code_change == "redo":
            return Reason(unknown)
        if self.records.on_code_change is None:
            self.records.undecided[str(job.output[0])] = unknown
        return False

    def started(self, job: Any, external_jobid: str | None = None) -> None:
        """Before a job writes anything: what it leaves if it is killed may be of both kinds."""
        super().started(job, external_jobid)
        before = self.stored(self.path_of(job)) if job.output else None
        if before is not None:
            self._write(job, Origin(**{**vars_of(before), "finished": False}))

    async def finished(self, job: Any) -> None:
        """Write down what a job's outputs were made from, in whichever process it ended."""
        await super().finished(job)
        if job.output:
            now = self._now(job)
            outputs = sizes([str(path) for path in job.output], self.records.results)
            self._write(job, Origin(now.rule, now.settings, now.inputs, now.code, outputs))

    def _adopt(self) -> None:
        """Declare what exists current for this version of the code, as the user asked for."""
        for job in self.dag.jobs:
            if not job.output or self.dag.needrun(job):
                continue
            before, now = self.stored(self.path_of(job)), self.now(job)
            assert now.code is not None
            if before is None:
                outputs = sizes([str(path) for path in job.output], self.records.results)
                before = Origin(now.rule, now.settings, now.inputs, None, outputs)
            if not before.is_by(now.code):
                self._write(job, before.keeping(now.code))

    def path_of(self, job: Any) -> str:
        """Where the origin of a job lies."""
        return self._path_of(str(job.output[0]))

    def _path_of(self, output: str) -> str:
        name = placed(output, {self.records.results: ""}).lstrip("/")
        return path_of_origin(self.records.results, name)

    def _write(self, job: Any, origin: Origin) -> None:
        write_origin(self.path_of(job), origin)
        self._stored[self.path_of(job)] = origin
        # Of what is made from it.
        self.now.cache_clear()

    def stored(self, path: str) -> Origin | None:
        """An origin as it lies beside the results."""
        if path not in self._stored:
            self._stored[path] = read_origin(path)
        return self._stored[path]

    def _now(self, job: Any) -> Origin:
        """What a job's outputs would be made from now."""
        rule = self.records.name_of_rule(job.rule.name)
        settings = settings_of(job)
        if "run" in settings:
            # Epochs, and the settings that a run's result depends on.
            epochs, others = settings.pop("run")
            settings |= others
            section = "stem" if rule == "stem" else "training"
            settings[section] = {"epochs": epochs, **settings.get(section, {})}
        settings = placed(settings, self.records.places)
        return Origin(rule, settings, self._inputs(job), dict(code_of(rule)))

    def _inputs(self, job: Any) -> dict[str, str]:
        made = {
            str(path): maker
            for maker, paths in self.dag.dependencies[job].items()
            for path in paths
        }
        found = {}
        for path in map(str, (file for file in job.input if not is_flagged(file, "ancient"))):
            maker = made.get(path)
            name = placed(path, self.records.places)
            stored = None if maker is not None else self._stored_for(path)
            if maker is not None:
                found[name] = self._id(maker)
            elif stored is not None:
                found[name] = stored.id
            elif Path(path).is_file():
                found[name] = self.content(Path(path))
        return found

    def _stored_for(self, path: str) -> Origin | None:
        """The origin of an input whose maker is not in the plan, as in a job of a cluster."""
        for rule in self.dag.workflow.rules:
            if rule.output and rule.is_producer(path):
                outputs, _ = rule.expand_output(rule.get_wildcards(path))
                return self.stored(self._path_of(str(outputs[0])))
        return None

    def _id(self, job: Any) -> str:
        """That of the origin which the outputs of a job have, or would have now."""
        stored = self.stored(self.path_of(job))
        return (stored if stored is not None and stored.finished else self.now(job)).id

    def _with_plan(self, lock: Callable[[], Any]) -> Callable[[], Any]:
        """Snakemake locks once its plan is made, and before it lists or starts anything."""

        @contextmanager
        def locked() -> Iterator[None]:
            if self.dag.workflow.is_main_process:
                self._refuse_undecided()
                self.records.plan_is_made(self.dag)
                if self.records.on_code_change == "keep" and not self.dag.workflow.dryrun:
                    self._adopt()
            with lock():
                yield

        return locked

    def _refuse_undecided(self) -> None:
        """Ask about results of which it is not known whether they are current."""
        undecided = self.records.undecided
        if not undecided:
            return
        reasons: dict[str, list[str]] = {}
        for output, why in undecided.items():
            reasons.setdefault(why, []).append(output)
        lines = []
        for why, outputs in reasons.items():
            shown = ", ".join(outputs[:NAMED_AT_ONCE])
            more = (
                f" and {len(outputs) - NAMED_AT_ONCE} more" if len(outputs) > NAMED_AT_ONCE else ""
            )
            lines.append(f"  - {why}: {shown}{more}")
        raise WorkflowError(
            f"{self.records.results}: {counted(len(undecided), 'result')} may not be what this "
            "version of the code computes\n"
            + "\n".join(lines)
            + "\n  expected: results of this version of the code, or a decision\n"
            "  fix: --config on_code_change=keep takes them as they are, "
            "--config on_code_change=redo makes them again"
        )


def vars_of(origin: Origin) -> dict[str, Any]:
    """The fields of an origin."""
    return {name: getattr(origin, name) for name in origin.__dataclass_fields__}


def settings_of(job: Any) -> dict[str, Any]:
    """The named parameters of a job, without those that are derived from its files."""
    derived = _derived(job.rule)
    return {name: value for name, value in job.params.items() if name not in derived}


@cache
def _derived(rule: Any) -> set[str]:
    items = rule.params._allitems()
    return {name for name, item in items if callable(item) and rule._is_deriving_function(item)}


def print_plan(dag: Any) -> None:
    """Print what a start will do and why."""
    jobs = [job for job in dag.needrun_jobs() if not job.rule.norun]
    table = plan_table(Planned(job.rule.name, why(job, dag)) for job in jobs)
    if table:
        # Apart from what programs read.
        print(f"\n{table}\n", file=sys.stderr, flush=True)


def why(job: Any, dag: Any) -> str:
    """Why a job runs, in the words of the study."""
    reason = dag.reason(job)
    if reason.forced:
        return "forced"
    if isinstance(reason.params_changed, Reason):
        return str(reason.params_changed)
    if reason.missing_output:
        stored = dag.workflow.persistence.stored(dag.workflow.persistence.path_of(job))
        return "new" if stored is None else "files missing"
    if reason.updated_input_run:
        return FOLLOWS
    return "incomplete" if reason._incomplete_output else str(reason) or FOLLOWS
