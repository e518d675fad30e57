"""What Slurm's accounting allows you: your account, your QOS and their limits."""

from __future__ import annotations

import getpass
import math
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from voxelsoup.cluster.partitions import Check, Submission, submissions
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import ask, minutes_of
from voxelsoup.cluster.submission_errors import ACCOUNT, QOS, TIME
from voxelsoup.common.errors import InputError
from voxelsoup.common.text import did_you_mean
from voxelsoup.study.study import Study

LIMITS = "MaxSubmitJobs,GrpSubmitJobs,MaxJobs,GrpJobs,MaxWall"
LIMITS_OF_QOS = "MaxSubmitJobsPerUser,GrpSubmitJobs,MaxJobsPerUser,GrpJobs,MaxWall"


@dataclass(frozen=True)
class Limits:
    """What an account or a QOS allows.

    Attributes:
        of: such as ``account test``.
        submitted: jobs that may wait or run at a time; infinite without a limit, like the others.
        running: jobs that may run at a time.
        runtime: longest run time of a job (minutes).
    """

    of: str
    submitted: float
    running: float
    runtime: float


@dataclass(frozen=True)
class Association:
    """An account that you may use, in one partition or in all (empty)."""

    account: str
    partition: str
    qos: tuple[str, ...]
    default_qos: str
    limits: Limits

    def qos_of_jobs(self, site: Site) -> tuple[str, ...]:
        """The QOS that jobs run under; several where it is not known which of them."""
        named = site.qos or self.default_qos
        return (named,) if named else self.qos


def check_associations(site: Site, planned: list[list[Submission]]) -> Iterator[Check]:
    """Whether account and QOS are yours, what they limit, and whether the study keeps to it.

    ``planned`` is all that the study submits, per group one entry per attempt.
    """
    user = getpass.getuser()
    what = f"the accounting knows what {user} may submit"
    try:
        found = _ask_associations(user)
        default = _ask_default_account(user) if found and site.account is None else None
    except InputError as error:
        yield Check(what, error)
        return
    if not found:
        # Not every cluster has accounting, and not every one that has it demands an association.
        yield Check("no association of yours in Slurm's accounting: no limits to compare with")
        return
    usable = [one for one in found if one.account == (site.account or default)]
    if not usable and site.account is not None:
        accounts = sorted({one.account for one in found})
        problem = InputError(
            "slurm_account",
            f"{site.account} is no account of {user}{did_you_mean(str(site.account), accounts)}",
            f"one of {', '.join(accounts)}",
            ACCOUNT,
        )
        yield Check(f"account {site.account} is yours", problem)
        return
    allowed = sorted({qos for one in usable for qos in one.qos})
    if site.qos is not None and site.qos not in allowed:
        problem = InputError(
            "slurm-qos",
            f"{user} may not use {site.qos}{did_you_mean(site.qos, allowed)}",
            f"one of {', '.join(allowed) or 'none'}",
            QOS,
        )
        yield Check(f"QOS {site.qos} is yours", problem)
        return
    qos = sorted({name for one in usable for name in one.qos_of_jobs(site)})
    limits = [one.limits for one in usable] + [_ask_qos(name) for name in qos]
    yield from (_check_limits(one, site) for one in dict.fromkeys(limits))
    if planned:
        yield _check_run_times(usable, site, planned)


def limits_of_jobs(site: Site) -> list[Limits]:
    """The limits that hold for all jobs of this site's account and QOS; none without accounting.

    Those of one among several QOS or partitions hold for some jobs only, and are left out.

    Raises:
        InputError: if the accounting does not answer.
    """
    user = getpass.getuser()
    found = _ask_associations(user) if _limits_are_enforced() else []
    account = site.account or (_ask_default_account(user) if found else None)
    usable = [one for one in found if one.account == account and not one.partition]
    names = {one.qos_of_jobs(site) for one in usable}
    known = [_ask_qos(qos[0]) for qos in sorted(names) if len(qos) == 1]
    return [*(one.limits for one in usable), *known]


def refuse_too_long(study: Study, site: Site, rules: Collection[str]) -> None:
    """Stop before the first submission if a job asks for more time than account and QOS allow.

    Slurm takes such a job, and lets it wait for ever. ``rules`` are those that have something to
    do. What cannot be found out now is left to Slurm.

    Raises:
        InputError: naming the job and the limit.
    """
    try:
        found = _ask_associations(getpass.getuser())
        account = site.account or (_ask_default_account(getpass.getuser()) if found else None)
        usable = [one for one in found if one.account == account]
        planned = submissions(study, site, rules)
        check = _check_run_times(usable, site, planned) if usable and planned else None
    except InputError:
        return
    if check is not None and check.problem is not None:
        raise check.problem


def _check_run_times(
    usable: list[Association], site: Site, planned: list[list[Submission]]
) -> Check:
    """Whether the longest job is short enough for the loosest limit that may hold for it."""
    attempts = [attempt for group in planned for attempt in group]
    longest = max(attempts, key=lambda one: int(one.resources["runtime"]))
    asked = int(longest.resources["runtime"])
    what = f"the longest job may take {asked} min ({longest.name}, attempt {longest.attempt})"
    limits = [_longest_allowed(one, site) for one in usable] if _limits_are_enforced() else []
    limit = max(limits, key=lambda one: one.runtime, default=None)
    if limit is None or asked <= limit.runtime:
        return Check(what)
    problem = InputError(
        limit.of,
        f"{longest.name}, attempt {longest.attempt} asks for {asked} min",
        f"at most {limit.runtime:g} min; a longer job waits for ever",
        TIME,
    )
    return Check(what, problem)


def _longest_allowed(association: Association, site: Site) -> Limits:
    """The loosest limit of run time: which one holds depends on the partition and on flags.

    The QOS of a partition comes first, then that of the job, then the association; those without
    a limit are passed over.
    """
    unlimited = Limits("", math.inf, math.inf, math.inf)
    names = association.qos_of_jobs(site)
    if len(names) > 1:
        return unlimited
    candidates = [_ask_qos(name) for name in sorted({*names, *_ask_qos_of_partitions()})]
    limits = [one for one in (association.limits, *candidates) if one.runtime < math.inf]
    return max(limits, key=lambda one: one.runtime, default=unlimited)


def _check_limits(limits: Limits, site: Site) -> Check:
    words = []
    if limits.submitted < math.inf:
        words.append(f"{limits.submitted:g} jobs may wait or run at a time")
        if site.jobs is None or site.jobs > limits.submitted:
            words[-1] += f" (`jobs` in the profile: {site.jobs or 'unlimited'}; the rest waits)"
    if limits.running < math.inf:
        words.append(f"{limits.running:g} jobs may run at a time")
    if limits.runtime < math.inf:
        words.append(f"a job may take {limits.runtime:g} min")
    what = f"{limits.of}: {', '.join(words) or 'no limit of jobs or run time'}"
    if limits.submitted == 0:
        problem = InputError(
            limits.of, "takes no jobs at all", "a limit of at least one job", ACCOUNT
        )
        return Check(what, problem)
    return Check(what)


def _ask_associations(user: str) -> list[Association]:
    layout = f"Account,Partition,QOS,DefaultQOS,{LIMITS}"
    # One accounting may serve several clusters.
    where = [f"user={user}", *(f"cluster={name}" for name in _ask_cluster())]
    rows = _ask_accounting("associations", where, layout)
    found = []
    for account, partition, qos, default, *limits in rows:
        place = f" in partition {partition}" if partition else ""
        names = tuple(filter(None, qos.split(",")))
        limited = _limits(f"account {account}{place}", limits)
        found.append(Association(account, partition, names, default, limited))
    return found


def _ask_cluster() -> list[str]:
    return _ask_config("ClusterName")


def _limits_are_enforced() -> bool:
    """Whether limits of accounting hold for jobs; they may be there and mean nothing."""
    (enforced,) = _ask_config("AccountingStorageEnforce") or [""]
    return not {"limits", "safe", "all"}.isdisjoint(enforced.lower().split(","))


def _ask_config(name: str) -> list[str]:
    config = ask("scontrol", "show", "config").stdout
    return re.findall(rf"^{name}\s*=\s*(\S+)", config, re.MULTILINE)


def _ask_qos_of_partitions() -> set[str]:
    shown = ask("scontrol", "show", "partition", "--oneliner").stdout
    return set(re.findall(r"\bQoS=(\S+)", shown)) - {"N/A"}


def _ask_default_account(user: str) -> str | None:
    rows = _ask_accounting("user", [f"name={user}"], "DefaultAccount")
    return rows[0][0] if rows else None


def _ask_qos(name: str) -> Limits:
    rows = _ask_accounting("qos", [f"name={name}"], LIMITS_OF_QOS)
    return _limits(f"QOS {name}", rows[0] if rows else [""] * 5)


def _ask_accounting(kind: str, which: list[str], layout: str) -> list[list[str]]:
    """Rows of cells; none on a cluster without accounting.

    Raises:
        InputError: if the accounting does not answer.
    """
    if shutil.which("sacctmgr") is None:
        return []
    answer = ask(
        *("sacctmgr", "--noheader", "--parsable2", "show", kind),
        *("where", *which, f"format={layout}"),
    )
    if answer.returncode == 0:
        return [line.split("|") for line in answer.stdout.splitlines()]
    said = answer.stderr.strip() or answer.stdout.strip()
    if "not running a supported accounting_storage plugin" in said:
        return []
    raise InputError(
        "sacctmgr",
        f"Slurm's accounting does not answer: {said}",
        "its answer",
        "try again later; if this persists, ask the cluster's administrators",
    )


def _limits(of: str, cells: list[str]) -> Limits:
    submitted, submitted_by_group, running, running_of_group, runtime = cells
    return Limits(
        of,
        min(_number(submitted), _number(submitted_by_group)),
        min(_number(running), _number(running_of_group)),
        minutes_of(runtime or "infinite"),
    )


def _number(cell: str) -> float:
    return float(cell) if cell else math.inf
