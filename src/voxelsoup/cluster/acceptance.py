"""Whether the controller would take a job: asked of it without submitting anything."""

from __future__ import annotations

import shlex

from voxelsoup.cluster.partitions import Check, Submission
from voxelsoup.cluster.profile import Site
from voxelsoup.cluster.slurm import ask
from voxelsoup.common.errors import InputError


def options_of(site: Site, partition: str) -> list[str]:
    """Options of ``sbatch`` and ``srun`` by which the site takes jobs of a partition."""
    options = [f"--partition={partition}"]
    options += [f"--account={site.account}"] if site.account else []
    options += [f"--qos={site.qos}"] if site.qos else []
    return options + shlex.split(site.extra)


def gpu_option(submission: Submission, count: int) -> list[str]:
    """The option that asks for so many GPUs of the submission's model; none if it has none."""
    if not submission.resources["gpu"]:
        return []
    model = submission.resources.get("gpu_model")
    return [f"--gpus={model}:{count}" if model else f"--gpus={count}"]


def question(site: Site, partition: str, submission: Submission) -> list[str]:
    """The command that asks the controller whether it would take a submission."""
    asked = submission.resources
    options = [
        *options_of(site, partition),
        *(f"--mem={asked['mem_mb']}", f"--time={asked['runtime']}"),
        f"--cpus-per-task={submission.threads}",
        *gpu_option(submission, int(asked["gpu"])),
    ]
    return ["sbatch", "--test-only", *options, "--wrap=true"]


def check_acceptance(site: Site, partition: str, submission: Submission) -> Check:
    """Whether the controller itself would take a job, with this account and QOS."""
    what = f"partition {partition}: the controller would take {submission}"
    try:
        answer = ask(*question(site, partition, submission))
    except InputError as error:
        return Check(what, error)
    if answer.returncode == 0:
        return Check(what)
    problem = InputError(
        f"partition {partition}",
        f"sbatch would refuse {submission}: {answer.stderr.strip()}",
        "a job that the controller takes",
        "correct account and QOS in the profile, or ask the cluster's administrators",
    )
    return Check(what, problem)
