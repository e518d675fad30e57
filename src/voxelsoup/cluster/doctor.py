"""Whether a study will run on a cluster, before anything is submitted.

Every check says what it looked at, and the problem if there is one.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age
from snakemake_executor_plugin_slurm.partitions import Partition
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra
from snakemake_interface_common.exceptions import WorkflowError

from voxelsoup.cluster import node_probe
from voxelsoup.cluster.acceptance import check_acceptance, gpu_option, options_of
from voxelsoup.cluster.associations import check_associations
from voxelsoup.cluster.gpu_memory import check_gpu_memory
from voxelsoup.cluster.memory_probe import check_measured_memory
from voxelsoup.cluster.partitions import (
    Check,
    Submission,
    check_partitions,
    check_requests,
    choose,
    submissions,
)
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import ask, no_commands, read_nodes
from voxelsoup.cluster.submission_errors import EXTRA
from voxelsoup.cluster.submitting_nodes import check_submitting
from voxelsoup.common.errors import InputError
from voxelsoup.study.study import Study
from voxelsoup.study.trials import trials

COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel")


def examine(
    study: Study,
    site: Site,
    results: Path,
    seconds: float,
    jobs: bool = True,
    probe: bool = False,
) -> Iterator[Check]:
    """All checks, cheap ones first; ends where the following ones would make no sense.

    With ``jobs``, a small job runs on each partition that the study uses, and waits so many
    ``seconds`` for a free node. With ``probe``, the largest training is measured on those with
    GPUs, and Slurm is asked from a node whether it takes jobs of it.
    """
    commands = check_commands()
    yield commands
    if commands.problem is not None:
        return
    try:
        nodes = read_nodes()
        partitions = {partition.name: partition for partition in site.partitions()}
        planned = submissions(study, site)
    except InputError as error:
        yield Check("the cluster, the partitions file and the groups can be read", error)
        return
    yield Check(f"the controller answers: {len({node.name for node in nodes})} nodes")
    yield check_status_command(site)
    if site.extra:
        yield check_extra(site)
    yield from check_associations(site, planned)
    yield from check_partitions(site, nodes)
    yield from check_requests(study, site, nodes)
    yield from check_gpu_memory(study, trials(study), site)
    for rule in sorted(site.overridden):
        yield Check(f"{rule}: not judged, the profile sets its resources itself")
    first = _first_served(planned, list(partitions.values()))
    used = {name: first[name] for name in first if any(node.partition == name for node in nodes)}
    for name, submission in used.items():
        yield check_acceptance(site, name, submission)
        if jobs:
            yield from check_node(site, name, submission, results, seconds)
        if probe and submission.resources["gpu"]:
            options = [*options_of(site, name), *gpu_option(submission, 1)]
            yield from check_measured_memory(
                study, trials(study), name, submission, options, results, seconds
            )
    yield from check_submitting(site, used, seconds if jobs or probe else None, probe)


def check_commands() -> Check:
    """Whether Slurm's client commands are here."""
    what = f"Slurm's commands are here: {', '.join(COMMANDS)}"
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    return Check(what, no_commands("PATH", f"there is no {', '.join(absent)}") if absent else None)


def check_status_command(site: Site) -> Check:
    """Whether Snakemake will see a job end: `sacct` needs accounting, `squeue` a long MinJobAge."""
    command = site.status_command or ("sacct" if shutil.which("sacct") else "squeue")
    what = f"the end of a job is seen with {command}"
    if command == "sacct":
        try:
            answer = ask("sacct", "--noheader", "--allocations")
        except InputError as error:
            return Check(what, error)
        if answer.returncode == 0:
            return Check(what)
        problem = InputError(
            "slurm-status-command",
            f"sacct does not work here: {answer.stderr.strip()}",
            "Slurm's accounting, or squeue instead: no job would ever be seen to end",
            "add `slurm-status-command: squeue` to the profile",
        )
        return Check(what, problem)
    age, wanted = get_min_job_age(), 3 * site.first_look_s
    if age is None or age >= wanted:
        return Check(what)
    problem = InputError(
        "slurm-status-command",
        f"squeue forgets ended jobs after {age} s (MinJobAge)",
        f"at least {wanted} s, three times slurm-init-seconds-before-status-checks",
        f"set slurm-init-seconds-before-status-checks to {max(1, age // 3)} or less, or use sacct",
    )
    return Check(what, problem)


def check_extra(site: Site) -> Check:
    """Whether the plugin takes the profile's `slurm_extra`."""
    what = f"slurm_extra: {site.extra}"
    try:
        validate_slurm_extra(SimpleNamespace(resources=SimpleNamespace(slurm_extra=site.extra)))
    except WorkflowError as error:
        problem = InputError("slurm_extra", str(error), "options without settings", EXTRA)
        return Check(what, problem)
    return Check(what)


def _first_served(
    planned: list[list[Submission]], partitions: list[Partition]
) -> dict[str, Submission]:
    """Every partition that the study uses, with the first submission that goes there.

    A submission with GPUs is preferred: the node then has to show its GPU.
    """
    first: dict[str, Submission] = {}
    every = [attempt for attempts in planned for attempt in attempts]
    for submission in sorted(every, key=lambda asked: not asked.resources["gpu"]):
        name = choose(submission, partitions)
        if name is not None:
            first.setdefault(name, submission)
    return first


def check_node(
    site: Site, partition: str, submission: Submission, results: Path, seconds: float
) -> Iterator[Check]:
    """Run a small job on a partition: do files travel, does torch import, does it see a GPU."""
    what = f"partition {partition}: a node reads and writes {results}"
    new = not results.exists()
    folder = results / f".doctor-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        (folder / node_probe.FROM_HERE).write_text(folder.name)
        options = [*options_of(site, partition), *gpu_option(submission, 1)]
        answer = node_probe.ask_node(options, folder, seconds)
        travelled = node_probe.wait_for_file(folder / node_probe.FROM_NODE, site.latency_s)
    except OSError as error:
        problem = InputError(
            results,
            f"cannot be written here: {error.strerror}",
            "a folder that you may write to",
            "correct `results` in the study, or the folder's permissions",
        )
        yield Check(what, problem)
        return
    except InputError as error:
        problem = InputError(f"partition {partition}", error.found, error.expected, error.fix)
        yield Check(f"partition {partition}: a small job runs", problem)
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new and results.is_dir() and not any(results.iterdir()):
            results.rmdir()
    yield from _judge(answer, what, travelled and answer.read == folder.name, results, submission)


def _judge(
    answer: node_probe.Answer, what: str, travelled: bool, results: Path, submission: Submission
) -> Iterator[Check]:
    where, partition = f"node {answer.node}", what.split(":")[0]
    if not travelled:
        problem = InputError(
            where,
            answer.error or "what is written on one side does not appear on the other",
            f"the folder {results.absolute()} shared between here and the node",
            "put the study's working folder on a file system that the nodes share",
        )
        yield Check(what, problem)
        return
    yield Check(f"{what} ({answer.node})")
    imported = f"{partition}: {answer.node} imports torch {answer.torch or ''}".rstrip()
    if answer.error is not None:
        problem = InputError(
            where,
            answer.error,
            "the Python environment of this command, working on the node",
            "put the environment on a file system that the nodes share, or fix it",
        )
        yield Check(imported, problem)
        return
    yield Check(imported)
    if submission.resources["gpu"]:
        seen = f" ({', '.join(answer.gpus)})" if answer.gpus else ""
        absent = None if answer.gpus else _no_gpu(answer, where)
        yield Check(f"{partition}: torch sees the GPU{seen}", absent)


def _no_gpu(answer: node_probe.Answer, where: str) -> InputError:
    handed = f"Slurm handed out CUDA_VISIBLE_DEVICES={answer.visible}"
    if answer.cuda is None:
        return InputError(
            where,
            f"torch sees no GPU: torch {answer.torch} is a CPU build ({handed})",
            "a build of torch for GPUs",
            "install torch for CUDA into this environment",
        )
    if not answer.driver:
        return InputError(
            where,
            f"torch sees no GPU: the node has no GPU driver ({handed})",
            "a GPU node with its driver",
            "ask the cluster's administrators; `slurm-exclude-failed-nodes: NODE` in the profile "
            "avoids it",
        )
    return InputError(
        where,
        f"torch sees no GPU: {handed}; torch {answer.torch} is built for CUDA {answer.cuda}",
        "a driver that is new enough for torch's CUDA, and a GPU handed out",
        "compare `nvidia-smi` on the node with torch's CUDA version, and install a fitting torch",
    )
