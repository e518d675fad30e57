"""The commands `voxelsoup run`, `demo` and `eject`: the workflow of this library, in any folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import atomic_folder, write_text
from voxelsoup.common.installation import snakemake_command, workflow_folder
from voxelsoup.common.workflow_files import copy_workflow
from voxelsoup.planning.study_yaml import MODELINE, schema_line
from voxelsoup.runs.invocation import recorded_studies

DEMO = Path("config.yaml")
SEPARATOR = "--"


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `run`."""
    parser.usage = "voxelsoup run STUDY [--profile NAME] [any option or target of Snakemake]"
    parser.add_argument("study", type=Path, metavar="STUDY", help="study file, before all else")
    _add_snakemake_options(parser)


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `demo`."""
    parser.usage = "voxelsoup demo [--profile NAME] [any option or target of Snakemake]"
    _add_snakemake_options(parser)


def add_eject_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `eject`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new or an empty folder")


def _add_snakemake_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help="local, slurm, or a profile of yours, by name or folder; none: no profile (default: "
        "$SNAKEMAKE_PROFILE, or local: all cores and GPUs of this machine)",
    )
    # What this parser does not know (``split``, ``main``).
    parser.set_defaults(for_snakemake=[])


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments before a bare `--`, and from it on those that are Snakemake's alone."""
    if SEPARATOR not in arguments or arguments[0] not in ("run", "demo", "submit"):
        return list(arguments), []
    place = list(arguments).index(SEPARATOR)
    return list(arguments[:place]), list(arguments[place:])


def run_command(asked: argparse.Namespace) -> NoReturn:
    """Become the Snakemake of a study, in this very process: exit code and signals are its own.

    Raises:
        InputError: if there is no such study.
    """
    if not asked.study.is_file():
        raise InputError(
            asked.study,
            "there is no such file",
            "a study file, before all options and targets of Snakemake",
            "name it first: voxelsoup run STUDY --cores 4",
        )
    _become(snakemake_command(asked.study, asked.profile, asked.for_snakemake))


def demo_command(asked: argparse.Namespace) -> NoReturn:
    """The study as shipped, in the working directory, which gets a copy of it as config.yaml.

    Raises:
        InputError: if another study is there.
    """
    _write_demo()
    _become(snakemake_command(DEMO, asked.profile, asked.for_snakemake))


def _write_demo() -> None:
    """Write the shipped study, or make sure that it is what is there."""
    shipped = (workflow_folder() / DEMO).read_text(encoding="utf-8")
    if DEMO.exists():
        if yaml.safe_load(DEMO.read_text(encoding="utf-8")) != yaml.safe_load(shipped):
            raise _other_study(DEMO, f"voxelsoup run {DEMO}")
        return
    results = Path(yaml.safe_load(shipped)["results"])
    if recorded_studies(results):
        raise _other_study(results, "voxelsoup run STUDY")
    first, _, rest = shipped.partition("\n")
    assert first.startswith(f"# {MODELINE}")
    write_text(DEMO, "\n".join([*(f"# {line}" for line in schema_line(DEMO)), rest]))


def _other_study(where: Path, command: str) -> InputError:
    return InputError(
        where,
        "is of another study than the demo",
        "a folder for the demo alone",
        f"change to an empty folder, or run the study that is here: {command}",
    )


def _become(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def eject_command(asked: argparse.Namespace) -> int:
    """Write the workflow into a folder, to be changed there.

    Raises:
        InputError: if something is in the folder, or it cannot be written.
    """
    folder: Path = asked.folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            folder,
            "is not empty" if folder.is_dir() else "is a file",
            "a new or an empty folder",
            "name another one: nothing is replaced",
        )
    with atomic_folder(folder) as temporary:
        copy_workflow(workflow_folder(), temporary)
    print(f"{folder}: the workflow is written; its library is the one that is installed. There:")
    print("  snakemake --profile profiles/local --configfile STUDY")
    return 0
