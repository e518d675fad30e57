"""What Slurm's accounting allows you: your account, your QOS and their limits."""

from __future__ import annotations

import getpass
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from voxelsoup.cluster.partitions import Check, Submission
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import ask, minutes_of
from voxelsoup.cluster.submission_errors import ACCOUNT, QOS, TIME
from voxelsoup.common.errors import InputError
from voxelsoup.common.text import did_you_mean

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
    names = {site.qos or one.default_qos or "".join(one.qos[:1]) for one in usable}
    limits = [one.limits for one in usable] + [_ask_qos(name) for name in sorted(names - {""})]
    yield from (_check_limits(one, site, planned) for one in dict.fromkeys(limits))


def _check_limits(limits: Limits, site: Site, planned: list[list[Submission]]) -> Check:
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
    attempts = [attempt for group in planned for attempt in group]
    longest = max(attempts, key=lambda one: int(one.resources["runtime"]), default=None)
    if longest is None or int(longest.resources["runtime"]) <= limits.runtime:
        return Check(what)
    problem = InputError(
        limits.of,
        f"{longest.name}, attempt {longest.attempt} asks for {longest.resources['runtime']} min",
        f"at most {limits.runtime:g} min",
        TIME,
    )
    return Check(what, problem)


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
    config = ask("scontrol", "show", "config").stdout
    return re.findall(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE)


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
