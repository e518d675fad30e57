"""What Snakemake and its Slurm plugin lack, put into them where they run: all of it in this module.

Made for Snakemake 9.27.1, snakemake-executor-plugin-slurm 2.8.0 and
snakemake-interface-executor-plugins 9.4.0. tests/cluster/test_upstream_patches.py fails when the
code that is replaced here changes; docs/upstream/ has a report for each patch. One that a later
version contains is deleted here.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from typing import Any

# Snakemake's modules import each other: this one has to be the first.
import snakemake.api  # noqa: F401
import snakemake_executor_plugin_slurm as plugin
from snakemake import common, sourcecache, workflow
from snakemake.iocontainers import ResourceList
from snakemake.jobs import GroupJob
from snakemake.jobs import Job as SingleJob
from snakemake.logging import logger
from snakemake.rules import Rule
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from voxelsoup.cluster.slurm import ask
from voxelsoup.cluster.submissions import Submissions
from voxelsoup.common.errors import InputError

Job = Any
Note = Callable[[str, bool], None]
# The resource by which a job asks for a GPU model.
MODEL = "gpu_model"
# What Slurm calls a job that has not ended, when it is asked about one that was preempted.
OPEN = ("PENDING", "REQUEUED", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED")


def plan_quickly() -> None:
    """Take the names of scripts and the signatures of functions apart once.

    Snakemake does so several times for every job, with ten thousand jobs for seconds; they are the
    same each time. docs/upstream/repeated-parsing.md
    """
    sourcecache.parse_uri = cache(sourcecache.parse_uri)
    common.get_function_params = cache(common.get_function_params)


# Jobs that end with an error just now.
FAILED: set[Job] = set()


def keep_records_elsewhere(
    persistence: type, is_own: Callable[[Job], bool], has_ended_for_good: Callable[[Job], bool]
) -> None:
    """Let a class say which jobs are current, and others' jobs be judged as before.

    Snakemake chooses between two classes of its own, and compares dates of files before it asks
    them; it repeats jobs whatever they ended with, and reports failed jobs to the class as
    finished. docs/upstream/records-elsewhere.md
    """
    workflow.FilePersistence = persistence
    if hasattr(SingleJob, "judged_by"):
        # Several studies may be modules of one workflow.
        return
    SingleJob.judged_by = persistence
    dated, older = SingleJob.output_mintime, SingleJob.outputs_older_than_script_or_notebook

    async def date(job: Job) -> Any:
        return None if is_own(job) else await dated.fget(job)

    async def older_outputs(job: Job) -> AsyncIterator[Any]:
        if not is_own(job):
            async for output in older(job):
                yield output

    SingleJob.output_mintime = property(date)
    SingleJob.outputs_older_than_script_or_notebook = older_outputs
    SingleJob.postprocess = _noting_errors(SingleJob.postprocess)
    for kind in (SingleJob, GroupJob):
        kind.restart_times = property(_retries(kind.restart_times.fget, has_ended_for_good))


def _noting_errors(postprocess: Callable[..., Any]) -> Callable[..., Any]:
    async def noting(job: Job, *arguments: Any, error: bool = False, **options: Any) -> None:
        (FAILED.add if error else FAILED.discard)(job)
        await postprocess(job, *arguments, error=error, **options)

    return noting


def _retries(
    planned: Callable[[Job], int], has_ended_for_good: Callable[[Job], bool]
) -> Callable[[Job], int]:
    def retries(job: Job) -> int:
        jobs = job.jobs if job.is_group() else [job]
        return 0 if any(map(has_ended_for_good, jobs)) else planned(job)

    return retries


# Of each study whose jobs are submitted: several may be modules of one workflow.
NOTES: list[Note] = []


def patch_slurm_plugin(note: Note | None = None) -> None:
    """Put right how jobs are submitted and looked at, before Snakemake makes its executor.

    ``note`` is called with what its status should say (see ``Submissions``).
    """
    if note is not None:
        NOTES.append(note)
    _patch_slurm_plugin_once()


@cache
def _patch_slurm_plugin_once() -> None:
    remember_job_age()
    name_runs_in_comments()
    take_hyphens_in_gres()
    report_errors_of_groups()
    survive_refused_submissions()
    keep_jobs_in_sight()


def _note(text: str, ends: bool) -> None:
    for note in NOTES:
        note(text, ends)


def remember_job_age() -> None:
    """Let `squeue` report ended jobs also after the controller was away.

    The plugin asks for MinJobAge before every round of status queries. Where the controller does
    not answer just then, it asks `sacct` for the whole round, in vain where there is no
    accounting. docs/upstream/jobs-out-of-sight.md
    """
    age = plugin.get_min_job_age()
    if age is not None:
        plugin.get_min_job_age = lambda: age


def name_runs_in_comments() -> None:
    """Let a submission's comment say which runs it trains, for `voxelsoup status`.

    The plugin writes the rule and its wildcards there, and for a group of jobs only the names of
    the rules: a pending one could be any trial's. docs/upstream/comments-of-groups.md
    """
    submit_command = plugin.get_submit_command

    def with_runs(job: Job, params: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        jobs = job.jobs if job.is_group() else [job]
        runs = [run for one in jobs for run in _run_of(one)]
        comment = " ".join([params["comment_str"], *sorted(runs)])
        return submit_command(job, params | {"comment_str": comment}, *arguments, **options)

    plugin.get_submit_command = with_runs


def _run_of(job: Job) -> list[str]:
    """The run that a job trains, by the name that the status gives it.

    By where its states lie, for a workflow may call the rules otherwise; behind the name of the
    configuration that it is of, if that is not the study's first one.
    """
    states = str(getattr(job.params, "states", ""))
    place = states.rpartition("/.state/")[2].replace("/trials/", "/")
    configuration = CONFIGURATION_OF.get(job.rule.name)
    name = place if configuration is None else f"{configuration}/{place}"
    return [name] if states else []


GRES = re.compile(r"[\w.-]+(:[\w.-]+)?(:\d+[TGM]?)?")
MODEL_NAME = re.compile(r"[\w.-]+")


def take_hyphens_in_gres() -> None:
    """Take GPU models such as `nvidia_a100-sxm4-80gb`, as Slurm's NVML detection names them.

    The plugin allows letters, digits, underscores and dots. docs/upstream/hyphens-in-gres.md
    """
    plugin.set_gres_string = gres_options


def gres_options(job: Job) -> str:
    """The options of `sbatch` for a job's generic resources and GPUs.

    Raises:
        WorkflowError: if `sbatch` would misread one of them.
    """
    gres, model = job.resources.get("gres"), job.resources.get("gpu_model")
    if gres and not GRES.fullmatch(gres):
        raise WorkflowError(f"Invalid GRES format: {gres} (expected, for example, gpu:a100:2)")
    if model and not MODEL_NAME.fullmatch(model):
        raise WorkflowError(f"Invalid GPU model format: {model} (expected, for example, a100)")
    options = f" --gres={gres}" if gres else ""
    if model:
        return f"{options} --gpus={model}:{job.resources.get('gpu', 1)}"
    gpus = job.resources.get("gpu")
    return f"{options} --gpus={gpus}" if gpus else options


def report_errors_of_groups() -> None:
    """Print why a group of jobs failed: Snakemake prints only which.

    docs/upstream/errors-of-groups.md
    """
    log_error = GroupJob.log_error

    def with_reason(self: GroupJob, msg: str | None = None, *rest: Any, **options: Any) -> None:
        if msg:
            logger.error(msg)
        log_error(self, msg, *rest, **options)

    GroupJob.log_error = with_reason


def agree_on_models_of_groups(largest: Callable[[list[str]], str]) -> None:
    """Let all jobs of a group have the largest GPU model that one of them asks for.

    Snakemake refuses groups whose jobs ask for different ones, or some for none: after one of
    several trainings ran out of memory, only its own job asks. docs/upstream/models-of-groups.md
    """
    if hasattr(GroupJob, "largest_model"):
        # As above.
        return
    GroupJob.largest_model = staticmethod(largest)
    resources = GroupJob.resources.fget

    def agreed(self: GroupJob) -> Any:
        if self._resources is None:
            agree_on_model(list(self.jobs), largest)
        return resources(self)

    GroupJob.resources = property(agreed)


def agree_on_model(jobs: list[Job], largest: Callable[[list[str]], str]) -> None:
    """Give jobs the largest GPU model that one of them asks for, if they do not agree."""
    asked = {job.resources.get(MODEL) for job in jobs if MODEL in job.rule.resources}
    if len(asked) < 2:
        return
    model = largest(sorted(asked - {None}))
    for job in jobs:
        job._resources = ResourceList(fromdict=dict(job.resources.items()) | {MODEL: model})


class _HeldBack:
    """A logger that keeps what it is given until it is known whether anybody should see it."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda *line, **options: self._lines.append((level, line, options))

    def release(self, log: logging.Logger) -> None:
        """Log all of it."""
        for level, line, options in self._lines:
            getattr(log, level)(*line, **options)


class _Attempt(plugin.Executor):
    """The executor itself, its state and all, except that it holds back what it logs and reports.

    The plugin reports a refused submission as a failed job, with a traceback or, of a group, not
    at all (its handler asks for the rule of the group).
    """

    # Beside the state, which is that of the executor.
    __slots__ = ("held", "why")

    def __init__(self, executor: plugin.Executor) -> None:
        object.__setattr__(self, "__dict__", executor.__dict__)
        self.held = _HeldBack()
        self.why: str | None = None

    @property
    def logger(self) -> _HeldBack:
        return self.held

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        self.why = msg


class _SlurmGate:
    """Slurm behind the plugin's executor, as ``Submissions`` sees it."""

    def __init__(self, executor: plugin.Executor, run_job: Callable[..., None]) -> None:
        self._executor, self._run_job = executor, run_job

    @property
    def _scheduler(self) -> Any:
        # It is made after its executor.
        return self._executor.workflow.scheduler

    def submit(self, job: Job) -> str | None:
        attempt = _Attempt(self._executor)
        try:
            self._run_job(attempt, job)
        except Exception as error:
            # The plugin's own handler fails on a group; what it was to handle is the context.
            return str(error.__context__ or error)
        if attempt.why is None:
            attempt.held.release(self._executor.logger)
        return attempt.why and attempt.why.removeprefix("Job submission failed with exception: ")

    def fail(self, job: Job, why: str) -> None:
        self._executor.report_job_error(SubmittedJobInfo(job), msg=why)

    def drop(self, job: Job) -> None:
        for one in job.jobs if job.is_group() else [job]:
            one.rule.restart_times = 0
        self._scheduler.keepgoing = False
        self._scheduler.error_callback(job)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, self._in_turn, [action])
        timer.daemon = True
        timer.start()

    def _in_turn(self, action: Callable[[], None]) -> None:
        try:
            self._executor._job_submission_executor.submit(action)
        except RuntimeError:
            # Shut down: nothing is submitted any more.
            return

    def is_ending(self) -> bool:
        return self._scheduler._user_kill is not None


def survive_refused_submissions() -> None:
    """Wait for what Slurm refuses for now, and end the study on what it can never accept.

    The plugin takes both for failed jobs, and forgets a group whose submission raised an error, so
    that Snakemake waits for ever. docs/upstream/refused-submissions.md
    """
    begin, run_one = plugin.Executor.__post_init__, plugin.Executor.run_job
    cancel = plugin.Executor.cancel

    def begin_with_submissions(self: plugin.Executor, *arguments: Any) -> None:
        begin(self, *arguments)
        self.submissions = Submissions(_SlurmGate(self, run_one), self.logger, _note)

    def run_job(self: plugin.Executor, job: Job) -> None:
        try:
            self.submissions.submit(job)
        except Exception as error:
            # In a thread whose errors nobody sees.
            self.workflow.scheduler.executor_error_callback(error)

    def cancel_all(self: plugin.Executor) -> None:
        # What is being submitted just now would outlive the jobs that are cancelled.
        self.submissions.stop()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        cancel(self)

    plugin.Executor.__post_init__ = begin_with_submissions
    plugin.Executor.run_job = run_job
    plugin.Executor.cancel = cancel_all


class _Look:
    """What the last query of the jobs' states has brought."""

    def __init__(self) -> None:
        self.answered = True
        self.preempted: set[str] = set()


def keep_jobs_in_sight() -> None:
    """Submit preempted jobs again, and forget no job while Slurm does not answer.

    The plugin leaves a preempted job to Slurm, also where Slurm has cancelled it, and drops all
    jobs of a round of queries that brought no answer: Snakemake would wait for ever for both.
    docs/upstream/jobs-out-of-sight.md
    """
    look = _Look()
    query, check = plugin.query_job_status, plugin.Executor.check_active_jobs

    async def query_and_remember(command: str, log: logging.Logger) -> Any:
        states, seconds = await query(command, log)
        if look.answered != (states is not None):
            look.answered = states is not None
            log.warning(_ANSWERS if look.answered else _DOES_NOT_ANSWER.format(command.split()[0]))
        if states is None:
            return states, seconds
        look.preempted = {number for number, state in states.items() if state == "PREEMPTED"}
        # The plugin would say that Slurm resumes them; whether it does is found out below.
        return states | dict.fromkeys(look.preempted, "REQUEUED"), seconds

    async def check_active_jobs(
        self: plugin.Executor, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncIterator[SubmittedJobInfo]:
        look.preempted = set()
        async for job in check(self, active_jobs):
            if job.external_jobid in look.preempted and _has_ended(job.external_jobid):
                _submit_again(self, job)
            else:
                yield job
        if active_jobs and not look.answered:
            for job in active_jobs:
                yield job

    plugin.query_job_status = query_and_remember
    plugin.Executor.check_active_jobs = check_active_jobs


_DOES_NOT_ANSWER = "Slurm does not answer ({}); it is asked again until it does."
_ANSWERS = "Slurm answers again."


def _has_ended(number: str) -> bool:
    """Whether Slurm has cancelled a preempted job, and not put it back into the queue."""
    try:
        answer = ask("squeue", "--noheader", "--states=all", "--jobs", number, "--format=%T")
    except InputError:
        return False
    if answer.returncode != 0:
        return "Invalid job id" in answer.stderr
    return answer.stdout.strip() not in OPEN


def _submit_again(executor: plugin.Executor, job: SubmittedJobInfo) -> None:
    """Submit a preempted job as it was: it did not fail, so that it uses up no attempt."""
    executor.logger.warning(
        f"Slurm job {job.external_jobid} was preempted by another job and cancelled. Trying to "
        f"restart job {executor.workflow.dag.jobid(job.job)} (no attempt is used up)."
    )
    executor._job_submission_executor.submit(executor.run_job, job.job)


# Name of a rule in the workflow -> the name by which a profile knows it.
IN_PROFILE: dict[str, str] = {}
# Name of a rule in the workflow -> the configuration that it is of.
CONFIGURATION_OF: dict[str, str] = {}
_group_of_rule = Rule.group


def place_configuration(workflow: Any, configuration: str, rules: Mapping[str, str]) -> None:
    """Group and place the rules of a configuration as a profile says of its study's.

    ``rules`` are name in the workflow -> name in the profile. docs/upstream/groups-of-modules.md
    """
    placed = workflow.resource_settings
    for key in ("overwrite_resources", "overwrite_threads"):
        said = dict(getattr(placed, key))
        copies = {rule: said[name] for rule, name in rules.items() if name in said}
        setattr(placed, key, said | copies)
    # What the profile says of groups is not known yet where rules are read.
    IN_PROFILE.update(rules)
    CONFIGURATION_OF.update(dict.fromkeys(rules, configuration))
    Rule.group = property(_group, _group_of_rule.fset)


def _group(rule: Any) -> str | None:
    group: str | None = _group_of_rule.fget(rule)
    if group is not None or rule.name not in IN_PROFILE:
        return group
    if not rule.workflow.non_local_exec_or_dryrun:
        return None
    named = rule.workflow.group_settings.overwrite_groups
    found: str | None = named.get(IN_PROFILE[rule.name])
    return found
