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
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

# Snakemake's modules import each other: this one has to be the first.
import snakemake.api  # noqa: F401
from snakemake.exceptions import WorkflowError
from snakemake.io import is_flagged
from snakemake.persistence.file import FilePersistence

from voxelsoup.cluster import upstream_patches
from voxelsoup.common.errors import FINAL, NO_LARGER_CARD, CardTooSmall
from voxelsoup.common.files import sha256
from voxelsoup.common.logs import read_error, rename_error
from voxelsoup.common.text import counted
from voxelsoup.runs.origins import (
    Origin,
    changed_code,
    code_of_plug_ins,
    code_of_rule,
    path_of_origin,
    placed,
    read_origin,
    sizes,
    why_outdated,
    write_origin,
)
from voxelsoup.runs.plan_table import FOLLOWS, Planned, plan_table
from voxelsoup.runs.record import read_saved
from voxelsoup.study.plug_ins import code_of_training

OnCodeChange = Literal["keep", "redo"]
NAMED_AT_ONCE = 5


class StudyError(WorkflowError):
    """What the user has to change: Snakemake prints the message alone, without places in the code.

    It takes the places from the traceback, which this error does not show.
    """

    __traceback__ = property(lambda self: None, lambda self, frames: None)


@dataclass
class Records:
    """What is told here of one study of a workflow, which may use several as modules.

    Attributes:
        results: their folder, as jobs name it.
        network: name of the network.
        places: folders -> what they are called in origins.
        on_code_change: what is done with results of other code; None: the user is asked.
        rules: name of a rule in the workflow -> the project's name of it.
        plan_is_made: called with the jobs that are to run, if there are any, before Snakemake
            lists or starts them; jobs of configurations are among those of their study.
        may_get_larger_card: whether the next attempt of a job may get a GPU with more memory.
        part_of: results of the study that this is a configuration of, if it is one.
        undecided: output -> why it is not known whether it is current.
    """

    results: str
    network: str
    places: dict[str, str]
    on_code_change: OnCodeChange | None
    rules: dict[str, str]
    plan_is_made: Callable[[list[Any]], None]
    may_get_larger_card: Callable[[Any], bool]
    part_of: str | None = None
    undecided: dict[str, str] = field(default_factory=dict)


class Reason:
    """Why a job runs again, in words; true as Snakemake's own changes of parameters are."""

    def __init__(self, words: str) -> None:
        """``words`` are shown behind Snakemake's "Params have changed since last execution"."""
        self.words = words

    def __str__(self) -> str:
        return self.words


# Name of a rule in the workflow -> the study that it is of. Other rules of a workflow that uses
# this one as a module stay Snakemake's.
STUDIES: dict[str, Records] = {}


def keep_records_with_results(records: Records) -> None:
    """Let Snakemake decide by the origins of results from now on.

    A workflow that uses this one as a module reads it once more for each rule that it changes:
    these are rules of the same study.
    """
    same = (study for study in STUDIES.values() if study.results == records.results)
    study = next(same, records)
    study.rules.update(records.rules)
    STUDIES.update(dict.fromkeys(records.rules, study))
    upstream_patches.keep_records_elsewhere(Persistence, _is_of_study, _ended_for_good)


def _is_of_study(job: Any) -> bool:
    return job.rule.name in STUDIES


def _ended_for_good(job: Any) -> bool:
    """Whether a job ended with an error that another attempt would end with too."""
    error = read_error(job.log[0]) if _is_of_study(job) and job.log else None
    if error is None:
        return False
    if error.kind == CardTooSmall.__name__ and not STUDIES[job.rule.name].may_get_larger_card(job):
        rename_error(job.log[0], NO_LARGER_CARD)
        said = f"No further attempt, for no larger GPU can be had: {error.message}"
        print(f"{said}\n  fix: {error.fix}", file=sys.stderr, flush=True)
        return True
    return error.kind in FINAL


class Persistence(FilePersistence):
    """Snakemake's records of finished jobs, beside the results of each study."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stored: dict[str, Origin | None] = {}
        self.now = cache(self._now)
        self.content = cache(sha256)
        lock: Callable[[], Any] = vars(self).get("lock", super().lock)
        self.lock = self._with_plan(lock)

    def has_metadata(self, job: Any) -> bool:
        """Of studies, whatever is known is asked by ``params_changed``."""
        return job.rule.name in STUDIES or super().has_metadata(job)

    def has_outdated_metadata(self, job: Any) -> bool:
        """Likewise."""
        return job.rule.name not in STUDIES and super().has_outdated_metadata(job)

    def code_changed(self, job: Any, file: object = None) -> Any:
        """Likewise."""
        return [] if job.rule.name in STUDIES else super().code_changed(job, file)

    def input_changed(self, job: Any, file: object = None) -> Any:
        """Likewise."""
        return [] if job.rule.name in STUDIES else super().input_changed(job, file)

    def software_stack_changed(self, job: Any, file: object = None) -> Any:
        """Likewise."""
        return [] if job.rule.name in STUDIES else super().software_stack_changed(job, file)

    def params_changed(self, job: Any, file: object = None) -> Any:
        """Why a job whose outputs exist has to run again; false if it has not."""
        if job.rule.name not in STUDIES:
            return super().params_changed(job, file)
        missing = [path for path in job.output if not os.path.exists(path)]  # noqa: PTH110
        if missing:
            # Also where nothing that exists has to be made from them: a deleted trial comes again.
            self.dag.reason(job).missing_output.update(missing)
        if missing or not job.output:
            return False
        return self._why_again(job, STUDIES[job.rule.name])

    def _why_again(self, job: Any, study: Records) -> Reason | bool:
        before, now = self.stored(self.path_of(job)), self.now(job)
        assert now.code is not None
        if before is None:
            unknown = "nothing is written down of what it was made from"
        elif words := why_outdated(before, now, study.results):
            return Reason(words)
        elif not before.is_by(now.code):
            unknown = changed_code(before.code, now.code)
        else:
            return False
        if study.on_code_change == "redo":
            return Reason(unknown)
        if study.on_code_change is None:
            study.undecided[str(job.output[0])] = unknown
        return False

    def started(self, job: Any, external_jobid: str | None = None) -> None:
        """Before a job writes anything: what it leaves if it is killed may be of both kinds."""
        super().started(job, external_jobid)
        before = self.stored(self.path_of(job)) if self._has_origin(job) else None
        if before is not None:
            self._write(job, replace(before, finished=False))

    async def finished(self, job: Any) -> None:
        """Write down what a job's outputs were made from, in whichever process it ended."""
        await super().finished(job)
        if self._has_origin(job) and job not in upstream_patches.FAILED:
            self._write(job, replace(self._now(job), outputs=self._sizes(job)))

    def _adopt(self, study: Records) -> None:
        """Declare what exists current for this version of the code, as the user asked for."""
        # In the order in which they were made: each is known by what it was made from.
        for job in chain.from_iterable(self.dag.toposorted()):
            if STUDIES.get(job.rule.name) is not study or not job.output or self.dag.needrun(job):
                continue
            before, now = self.stored(self.path_of(job)), self.now(job)
            assert now.code is not None
            if before is None:
                before = replace(now, code=None, outputs=self._sizes(job))
            if not before.is_by(now.code):
                self._write(job, before.keeping(now.code))

    def path_of(self, job: Any) -> str:
        """Where the origin of a job lies."""
        return self._path_of(str(job.output[0]), STUDIES[job.rule.name])

    def stored(self, path: str) -> Origin | None:
        """An origin as it lies beside the results."""
        if path not in self._stored:
            self._stored[path] = read_origin(path)
        return self._stored[path]

    def _has_origin(self, job: Any) -> bool:
        return job.rule.name in STUDIES and bool(job.output)

    def _sizes(self, job: Any) -> dict[str, int]:
        return sizes([str(path) for path in job.output], STUDIES[job.rule.name].results)

    def _path_of(self, output: str, study: Records) -> str:
        return path_of_origin(study.results, placed(output, {study.results: ""}).lstrip("/"))

    def _write(self, job: Any, origin: Origin) -> None:
        write_origin(self.path_of(job), origin)
        self._stored[self.path_of(job)] = origin
        # Of what is made from it.
        self.now.cache_clear()

    def _now(self, job: Any) -> Origin:
        """What a job's outputs would be made from now."""
        study = STUDIES[job.rule.name]
        rule, settings = study.rules[job.rule.name], settings_of(job)
        if "run" in settings:
            # Epochs, and the settings that a run's result depends on.
            epochs, others = settings.pop("run")
            settings |= others
            section = "stem" if rule == "stem" else "training"
            settings[section] = {"epochs": epochs, **settings.get(section, {})}
        recipe = dict(job.wildcards.items()).get("recipe") if job.wildcards else None
        code = code_of_rule(rule) | code_of_plug_ins(rule, settings, study.network, recipe)
        return Origin(rule, placed(settings, study.places), self._inputs(job, study), code)

    def _inputs(self, job: Any, study: Records) -> dict[str, str]:
        made = {
            str(path): maker
            for maker, paths in self.dag.dependencies[job].items()
            for path in paths
            if self._has_origin(maker)
        }
        found = {}
        for path in map(str, (file for file in job.input if not is_flagged(file, "ancient"))):
            maker = made.get(path)
            name = placed(path, study.places)
            stored = None if maker is not None else self._stored_for(path, study)
            if maker is not None:
                found[name] = self._id(maker)
            elif stored is not None:
                found[name] = stored.id
            elif Path(path).is_file():
                found[name] = self.content(Path(path))
        return found

    def _stored_for(self, path: str, study: Records) -> Origin | None:
        """The origin of an input whose maker is not in the plan, as in a job of a cluster."""
        for rule in self.dag.workflow.rules:
            if rule.name in study.rules and rule.output and rule.is_producer(path):
                outputs, _ = rule.expand_output(rule.get_wildcards(path))
                return self.stored(self._path_of(str(outputs[0]), study))
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
                studies = list({id(study): study for study in STUDIES.values()}.values())
                to_run: dict[str, list[Any]] = {study.results: [] for study in studies}
                for study in studies:
                    jobs = self._jobs_to_run(study)
                    self._compare_states(jobs, study)
                    refuse_undecided(study)
                    to_run[study.part_of or study.results] += jobs
                for study in studies:
                    if to_run[study.results]:
                        study.plan_is_made(to_run[study.results])
                    if study.on_code_change == "keep" and not self.dag.workflow.dryrun:
                        self._adopt(study)
            with lock():
                yield

        return locked

    def _jobs_to_run(self, study: Records) -> list[Any]:
        """Those that do anything."""
        jobs = self.dag.needrun_jobs()
        return [job for job in jobs if STUDIES.get(job.rule.name) is study and not job.rule.norun]

    def _compare_states(self, jobs: list[Any], study: Records) -> None:
        """Runs that are to continue from a state of other code are undecided too."""
        if study.on_code_change is not None:
            return
        for job in (job for job in jobs if hasattr(job.params, "states")):
            # As the identity of a run has it, whichever rule trains it.
            loss = self.now(job).settings["training"]["loss"]
            code = code_of_rule("trial") | code_of_training(study.network, loss)
            saved = read_saved(job.params.states)
            if saved and saved.identity.get("code") != code:
                study.undecided[job.params.states] = changed_code(saved.identity.get("code"), code)


def refuse_undecided(study: Records) -> None:
    """Ask about results of which it is not known whether they are current.

    Raises:
        StudyError: naming them, and both answers.
    """
    reasons: dict[str, list[str]] = {}
    for output, why in study.undecided.items():
        reasons.setdefault(why, []).append(output)
    if not reasons:
        return
    lines = []
    for reason, outputs in reasons.items():
        more = len(outputs) - NAMED_AT_ONCE
        shown = ", ".join(outputs[:NAMED_AT_ONCE]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"  - {reason}: {shown}\n")
    raise StudyError(
        f"{study.results}: {counted(len(study.undecided), 'result')} may not be what this version "
        f"of the code computes\n{''.join(lines)}"
        "  expected: results of this version of the code, or a decision\n"
        "  fix: --config on_code_change=keep takes them as they are, "
        "--config on_code_change=redo makes them again"
    )


def own_name(job: Any) -> str:
    """The project's own name of the rule of a job."""
    return STUDIES[job.rule.name].rules[job.rule.name]


def settings_of(job: Any) -> dict[str, Any]:
    """The named parameters of a job, without those that are derived from its files."""
    derived = _derived(job.rule)
    return {name: value for name, value in job.params.items() if name not in derived}


@cache
def _derived(rule: Any) -> set[str]:
    items = rule.params._allitems()
    return {name for name, item in items if callable(item) and rule._is_deriving_function(item)}


def print_plan(jobs: list[Any]) -> None:
    """Print what the jobs of a study will do and why."""
    planned = [Planned(own_name(job), why(job)) for job in jobs]
    # Apart from what programs read.
    print(f"\n{plan_table(planned)}\n", file=sys.stderr, flush=True)


def why(job: Any) -> str:
    """Why a job runs, in the words of the study."""
    dag = job.dag
    reason = dag.reason(job)
    if reason.forced:
        return "forced"
    if isinstance(reason.params_changed, Reason):
        return str(reason.params_changed)
    if reason.missing_output:
        stored = dag.workflow.persistence.stored(dag.workflow.persistence.path_of(job))
        return "new" if stored is None else "files missing"
    return FOLLOWS if reason.updated_input_run or not str(reason) else "incomplete"
