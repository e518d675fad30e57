"""`voxelsoup init`: from a folder of scans to a study file to begin with."""

from __future__ import annotations

import itertools
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_text
from voxelsoup.common.machine import usable_cores
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.detect import guess
from voxelsoup.planning.fingerprint import take_fingerprint
from voxelsoup.planning.proposal import propose
from voxelsoup.planning.study_yaml import schema_line, study_text
from voxelsoup.study.loading import load


def write_first_study(folder: Path, output: Path, force: bool) -> list[str]:
    """Propose a study for a data set, whose layout is guessed, and write it with the reasons.

    Returns:
        What needs attention before training, in words.

    Raises:
        InputError: if the file is there and ``force`` is not set, nothing is found in the folder,
            or nothing is labelled.
    """
    if output.exists() and not force:
        raise InputError(
            output,
            "is there already",
            "a new file",
            f"take another name, such as `--output {_free_name(output)}`, or replace the file with "
            "`--force`",
        )
    found = guess(folder)
    cases = find_cases(found.dataset, found.root)
    fingerprint = take_fingerprint(cases, usable_cores())
    proposal = propose(found, fingerprint)
    heading = [
        *schema_line(output),
        f"Proposed by `voxelsoup init` for {len(cases)} cases in {found.root}, of which "
        f"{len(fingerprint.contents)} were read completely. Every key is explained in "
        "docs/configuration.md.",
    ]
    text = study_text(proposal.study, proposal.reasons, heading)
    load(proposal.study, f"the study proposed for {folder}")
    write_text(output, text)
    return proposal.warnings


def _free_name(taken: Path) -> Path:
    """A name beside ``taken`` that no file has: ``study-2.yaml``, ``study-3.yaml``, ..."""
    names = (taken.with_stem(f"{taken.stem}-{number}") for number in itertools.count(2))
    return next(name for name in names if not name.exists())


def print_first_study(folder: Path, output: Path, force: bool) -> None:
    """Write a first study (``write_first_study``), and print what to do with it."""
    from rich.console import Console
    from rich.text import Text

    warnings = write_first_study(folder, output, force)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{output} is written: a study of {folder}, with the reasons in comments."))
    for warning in warnings:
        console.print(Text.assemble(("note: ", "yellow"), warning))
    configfile = "" if output == Path("config.yaml") else f" --configfile {output}"
    steps = {
        f"voxelsoup index {output}": "check every case",
        f"voxelsoup check {output}": "check the study",
        f"snakemake -n{configfile}": "see the plan",
        f"snakemake --profile profiles/local{configfile}": "run it",
    }
    width = max(map(len, steps))
    console.print("Next:")
    for command, purpose in steps.items():
        console.print(Text.assemble("  ", (f"{command:{width}}", "bold"), f"  {purpose}"))
