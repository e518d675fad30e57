"""The command `voxelsoup submit`: a study that runs on a cluster while nobody is logged in."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from voxelsoup.cluster.head_job import sbatch_command, state_of, submit_head
from voxelsoup.common import provenance
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import make_folder
from voxelsoup.common.installation import LIBRARY, snakemake_command
from voxelsoup.runs.lease import is_alive, look_at, server_time
from voxelsoup.runs.submission import (
    LOG,
    Submission,
    copy_study,
    read_submission,
    write_submission,
)
from voxelsoup.study.study import Study

HELP = "run a study on a cluster, its Snakemake in a job of its own, which outlives your session"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command; what it does not know is for Snakemake."""
    parser.usage = (
        "voxelsoup submit STUDY [--profile NAME] [--runtime MINUTES] "
        "[any option or target of Snakemake]"
    )
    parser.add_argument("study", type=Path, metavar="STUDY", help="study file, before all else")
    parser.add_argument(
        "--profile",
        type=Path,
        default=Path("slurm"),
        metavar="NAME",
        help="profile of the cluster, by name or folder (default: %(default)s, as it is shipped)",
    )
    parser.add_argument(
        "--runtime",
        type=int,
        metavar="MINUTES",
        help="time limit of the head job, before which it hands over to its successor (default: "
        "the partition's)",
    )
    # What this parser does not know (``run.split``, ``cli.main``).
    parser.set_defaults(for_snakemake=[])


def submit(asked: argparse.Namespace, study: Study) -> int:
    """Submit the head job of a study that was checked.

    Raises:
        InputError: if the cluster does not take the study or the job.
    """
    if asked.runtime is not None and asked.runtime < 1:
        raise InputError("--runtime", f"`{asked.runtime}`", "1 or more", "such as --runtime 1440")
    # Importing Snakemake's Slurm plugin asks the cluster for its settings.
    from voxelsoup.cluster.associations import refuse_too_long
    from voxelsoup.cluster.head_placement import MEM_MB, place_head
    from voxelsoup.cluster.job_resources import RULES
    from voxelsoup.cluster.partitions import refuse_unservable
    from voxelsoup.cluster.profile import read_site
    from voxelsoup.cluster.submitting_nodes import partitions_of, refuse_excluded_nodes

    site = read_site(asked.profile)
    refuse_unservable(study, site, RULES)
    refuse_too_long(study, site, RULES)
    placement = place_head(site, asked.runtime)
    refuse_excluded_nodes(placement.partition, partitions_of(study, site))
    results, log = Path(study.results), Path(study.results, LOG).absolute()
    make_folder(log.parent)
    content = study.model_dump(mode="json", exclude_unset=True)
    copy = copy_study(results, content, [asked.study])
    jobs = [] if placement.jobs is None else ["--jobs", str(placement.jobs)]
    # The lease of the study takes the place of Snakemake's lock, which a dead node would leave.
    options = [*asked.for_snakemake, *jobs, "--nolock", "--rerun-incomplete"]
    command = snakemake_command(copy.absolute(), [str(asked.profile)], options)
    sbatch = sbatch_command(
        job_name(asked.study),
        placement.partition,
        placement.minutes,
        MEM_MB,
        log,
        {
            "account": site.account,
            "qos": site.qos,
            "mail-user": study.notify.mail,
            "mail-type": "END,FAIL" if study.notify.mail else None,
        },
        site.extra,
    )
    job = submit_head(sbatch, script_of(results))
    write_submission(
        results,
        Submission(
            study=str(asked.study),
            job=job,
            submitted=provenance.now(),
            folder=str(Path.cwd()),
            log=str(log),
            snakemake=command,
            sbatch=sbatch,
            lease_seconds=study.recovery.lease_seconds,
            notify=study.notify.command,
        ),
    )
    print(f"submitted: head job {job} in partition {placement.partition}, {placement.minutes} min")
    print(f"see it:    voxelsoup status {asked.study}")
    print(f"follow it: tail -F {os.path.relpath(log)}")
    print(f"stop it:   voxelsoup stop {asked.study}")
    return 0


def refuse_a_second(file: Path, study: Study) -> None:
    """Make sure that nobody runs this study, or another one in its results folder.

    Raises:
        InputError: naming who does.
    """
    submission = read_submission(Path(study.results))
    if submission is not None and submission.end is None:
        state = state_of(submission.job)
        if state is not None and state.is_open:
            raise InputError(
                file,
                f"is running already: head job {submission.job} ({state.state}) of "
                f"{submission.study}",
                "one submission at a time of a results folder",
                f"`voxelsoup status {file}` shows it, `voxelsoup stop {file}` ends it",
            )
    folder = Path(study.results, ".state")
    lease = look_at(folder)
    if is_alive(lease, server_time(folder), study.recovery.lease_seconds):
        raise InputError(
            file,
            f"is running already: {(lease and lease.owner) or 'Snakemake'}",
            "one Snakemake at a time on a results folder",
            "end it first (Ctrl-C in its terminal)",
        )


def job_name(study: Path) -> str:
    """What Slurm calls the head job."""
    return f"voxelsoup-{re.sub(r'[^A-Za-z0-9_.-]', '_', study.stem)}"


def script_of(results: Path) -> str:
    """The batch script: the shell becomes the process that Slurm's signals are for."""
    program = [sys.executable, "-m", "voxelsoup.commands.head", str(results.absolute())]
    source = str(LIBRARY.parent)
    path = f"export PYTHONPATH={shlex.quote(source)}${{PYTHONPATH:+:$PYTHONPATH}}"
    return f"#!/bin/sh\n{path}\nexec {shlex.join(program)}\n"
