"""`voxelsoup init`: from a folder of scans to a study file to begin with."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_text
from voxelsoup.common.graphics_cards import Card
from voxelsoup.common.machine import usable_cores
from voxelsoup.data.index.passed_over import notes_on_strays
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.detect import Guess
from voxelsoup.planning.fingerprint import take_fingerprint
from voxelsoup.planning.label_meaning import Meaning, meaning_of
from voxelsoup.planning.proposal import propose
from voxelsoup.planning.propose_for_card import propose_for_card
from voxelsoup.planning.small_study import make_small
from voxelsoup.planning.study_yaml import schema_line, study_text
from voxelsoup.study.loading import load

# Chooses one of the meanings of label values, by its key; None leaves the choice open.
Ask = Callable[[Meaning], str | None]


def write_first_study(
    found: Guess,
    output: Path,
    force: bool,
    labels: str | None = None,
    ask: Ask | None = None,
    card: Card | None = None,
) -> list[str]:
    """Propose a study for a data set, and write it with the reasons.

    Args:
        labels: what the label values mean (``--labels``), which overrules all else.
        card: that the study is to be trained on; None: on CPUs alone.
        ask: asks where several meanings are possible; without it they are left open in the file.

    Returns:
        What needs attention before training, in words.

    Raises:
        InputError: if the file is there and ``force`` is not set, the data set has no cases,
            nothing is labelled, or ``labels`` is no meaning.
    """
    if output.exists() and not force:
        raise InputError(
            output,
            "is there already",
            "a new file",
            f"take another name, such as `--output {_free_name(output)}`, or replace the file with "
            "`--force`",
        )
    cases = find_cases(found.dataset, found.root)
    fingerprint = take_fingerprint(cases, usable_cores())
    names, holders = [case.name for case in fingerprint.labelled], fingerprint.holders
    meaning = meaning_of(found, names, holders, labels)
    if meaning.choices and ask is not None and (labels := ask(meaning)):
        meaning = meaning_of(found, names, holders, labels)
    stand_in = {"regions": {"open": [1]}} if meaning.choices else {}
    if card is None:
        proposal = propose(found, fingerprint, meaning)
        make_small(proposal, fingerprint, usable_cores())
    else:
        proposal = propose_for_card(found, fingerprint, meaning, card, stand_in)
    proposal.warnings += notes_on_strays(found.dataset, found.root, cases)
    heading = [
        *schema_line(output),
        f"Proposed by `voxelsoup init` for {len(cases)} cases in {found.root}, of which "
        f"{len(fingerprint.contents)} were read completely. Every key is explained in "
        "docs/configuration.md.",
    ]
    text = study_text(proposal.study, proposal.reasons, heading, proposal.choices)
    load(proposal.study | stand_in, f"the study proposed for {found.root}")
    write_text(output, text)
    if meaning.choices:
        keys = ", ".join(meaning.choices)
        choice = f"choose them in {output}, or run init again with --labels: {keys}"
        return [f"regions are left open, and the study is refused: {choice}", *proposal.warnings]
    return proposal.warnings


def _free_name(taken: Path) -> Path:
    """A name beside ``taken`` that no file has: ``study-2.yaml``, ``study-3.yaml``, ..."""
    names = (taken.with_stem(f"{taken.stem}-{number}") for number in itertools.count(2))
    return next(name for name in names if not name.exists())


def ask_on_terminal(meaning: Meaning) -> str | None:
    """Ask for one of the choices by number; nothing, or the end of the input, leaves them open."""
    print(meaning.reason)
    keys = list(meaning.choices)
    for number, choice in enumerate(meaning.choices.values(), 1):
        print(f"  {number}  {choice.reason}\n       regions: {choice.regions}")
    while True:
        try:
            answer = input(f"1 to {len(keys)}, or nothing to choose later in the file: ").strip()
        except EOFError:
            return None
        if not answer:
            return None
        if answer in keys:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(keys):
            return keys[int(answer) - 1]


def next_steps(output: Path, in_checkout: bool) -> dict[str, str]:
    """What to do with a study that was written: command -> what it is for.

    ``in_checkout``: whether the working directory has the workflow's own Snakefile.
    """
    configfile = "" if output == Path("config.yaml") else f" --configfile {output}"
    plan, run = f"voxelsoup run {output} -n", f"voxelsoup run {output}"
    if in_checkout:
        plan = f"snakemake -n{configfile}"
        run = f"snakemake --profile profiles/local{configfile}"
    return {
        f"voxelsoup index {output}": "check every case",
        f"voxelsoup check {output}": "check the study",
        plan: "see the plan",
        run: "run it",
    }


def print_first_study(
    found: Guess, output: Path, force: bool, labels: str | None = None, card: Card | None = None
) -> None:
    """Write a first study (``write_first_study``), and print what to do with it.

    On a terminal it asks for what is left open.
    """
    from rich.console import Console
    from rich.text import Text

    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    ask = ask_on_terminal if on_terminal else None
    warnings = write_first_study(found, output, force, labels, ask, card)
    console = Console(highlight=False, soft_wrap=True)
    said = f"{output} is written: a study of {found.root}, with the reasons in comments."
    console.print(Text(said))
    for warning in warnings:
        console.print(Text.assemble(("note: ", "yellow"), warning))
    steps = next_steps(output, in_checkout=Path("Snakefile").is_file())
    width = max(map(len, steps))
    console.print("Next:")
    for command, purpose in steps.items():
        console.print(Text.assemble("  ", (f"{command:{width}}", "bold"), f"  {purpose}"))
