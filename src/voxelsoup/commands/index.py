"""`voxelsoup index`: what a data set holds, what is odd, and what cannot be used."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.common.machine import usable_cores
from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.common.text import counted
from voxelsoup.data.balance import kinds_of_cases
from voxelsoup.data.case import Case
from voxelsoup.data.folds import make_folds
from voxelsoup.data.index.index import IndexedCase, index_cases
from voxelsoup.data.index.not_annotated import annotated_cases
from voxelsoup.data.index.passed_over import notes_on_strays
from voxelsoup.data.index.patients import describe_patients
from voxelsoup.data.layouts.detect import LAYOUTS, Guess, guess
from voxelsoup.data.volumes.volume import shape_text
from voxelsoup.planning.fingerprint import (
    CaseFingerprint,
    Fingerprint,
    read_header,
    take_fingerprint,
)
from voxelsoup.planning.label_meaning import Meaning, meaning_of
from voxelsoup.planning.proposal import propose_data
from voxelsoup.planning.study_yaml import study_text
from voxelsoup.report.cases import accepted_in_words
from voxelsoup.study.loading import read
from voxelsoup.study.sections.data import Accept, Dataset
from voxelsoup.study.study import Study

STUDY_FILES = (".yaml", ".yml")
ACCEPTABLE = Accept(nan="background", raters="majority")
ANY_LABEL = {"any": list(range(1, 256))}
NAMED = 3
MOST_NOTES = 12


@dataclass(frozen=True)
class Listing:
    """A data set that was looked at.

    Attributes:
        dataset: the study's section, or a guessed one.
        usable: cases that passed all checks.
        headers: of the usable cases, in their order.
        bad: case name -> what is wrong.
        label_names: label value -> its name, or the regions that hold it.
        guess: where no study was given.
        folds: why the study's folds cannot be made of these cases.
        strays: notes on volumes of no case.
    """

    dataset: Dataset
    root: Path
    usable: list[IndexedCase]
    headers: list[CaseFingerprint]
    bad: dict[str, InputError]
    label_names: dict[int, str]
    guess: Guess | None
    folds: InputError | None = None
    strays: list[str] = field(default_factory=list)

    @property
    def cases(self) -> list[Case]:
        """The usable cases, with files that can be opened from here."""
        return [_openable(case, self.root) for case in self.usable]

    @property
    def patients(self) -> str | None:
        """Which cases are one patient's, and by what; None if each is a patient of its own."""
        return describe_patients(self.dataset, self.usable)

    @property
    def meaning(self) -> Meaning | None:
        """What the label values mean, where no study says it and some occur."""
        labelled = [case for case in self.usable if case.label is not None]
        values = sorted({value for case in labelled for value in case.labels} - {0})
        if self.guess is None or not values:
            return None
        holders = {v: [case.name for case in labelled if v in case.labels] for v in values}
        return meaning_of(self.guess, [case.name for case in labelled], holders)

    @property
    def remarks(self) -> list[str]:
        """What is good to know of the data set as a whole."""
        found = self.meaning
        guessed = [*(self.guess.remarks if self.guess else ()), *(found.remarks if found else ())]
        return [*guessed, *self.strays]

    @property
    def values(self) -> dict[int, int]:
        """Label value, also 0 -> number of cases that hold it."""
        counts = Counter(value for case in self.usable for value in case.labels)
        return dict(sorted(counts.items()))


def list_index(path: Path, layout: str | None = None, channels: Sequence[str] = ()) -> Listing:
    """Find and check all cases of a data set: of a folder, or of a study.

    Args:
        layout, channels: of a folder, as for ``detect.guess``.

    Raises:
        InputError: if nothing is found there, or the study cannot be read.
    """
    if path.suffix.lower() in STUDY_FILES:
        if layout is not None:
            raise InputError(
                "--layout",
                f"is given for the study {path}, which names its layout",
                "a data set without a study",
                "leave it out, or correct `dataset.layout`",
            )
        study = read(path)
        root = Path(study.dataset.root or "")
        if study.dataset.layout == "phantom":
            root = Path(study.results) / "phantom"
            _check_phantom(root)
        labels_of = _regions_of_labels(study.regions)
        listing = _listing(study.dataset, study.regions, root, labels_of, None)
        return replace(listing, folds=_problem_with_folds(study, listing))
    found = guess(path, layout, channels)
    # Shown as usable, with the keys that make them so: no study has refused them yet.
    dataset = found.dataset.model_copy(update={"accept": ACCEPTABLE})
    return _listing(dataset, ANY_LABEL, found.root, found.labels.named, found)


def _regions_of_labels(regions: dict[str, list[int]]) -> dict[int, str]:
    """Label value -> the regions that hold it."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for region, labels in regions.items():
        for label in labels:
            names[label].append(region)
    return {label: ", ".join(held) for label, held in names.items()}


def _listing(
    dataset: Dataset,
    regions: dict[str, list[int]],
    root: Path,
    label_names: dict[int, str],
    guessed: Guess | None,
) -> Listing:
    # All bad cases are shown beside the others, whatever the study would do about them.
    skipping = dataset.model_copy(update={"on_bad_case": "skip"})
    try:
        usable, bad = index_cases(skipping, regions, root, usable_cores())
    except BadCases as error:
        usable, bad = [], error.problems
    headers = [read_header(_openable(case, root)) for case in usable]
    strays = notes_on_strays(dataset, root)
    return Listing(dataset, root, usable, headers, bad, label_names, guessed, strays=strays)


def _problem_with_folds(study: Study, listing: Listing) -> InputError | None:
    """What the workflow would say once all cases were checked."""
    if not listing.usable:
        return None
    patients = {case.name: case.patient for case in listing.usable if case.label is not None}
    unlabelled = [case.name for case in listing.usable if case.label is None]
    dataset, regions, folds = study.dataset, study.regions, study.folds
    annotated = annotated_cases(listing.usable, dataset.not_annotated, regions)
    try:
        kinds = kinds_of_cases(dataset, regions, folds, listing.root, listing.usable)
        protocol = study.evaluation.protocol
        make_folds(patients, folds, protocol, listing.bad, unlabelled, kinds, annotated)
    except InputError as problem:
        return problem
    return None


def _openable(case: IndexedCase, root: Path) -> Case:
    files = {name: replace(one, file=root / one.file) for name, one in case.channels.items()}
    label = replace(case.label, file=root / case.label.file) if case.label else None
    return Case(case.name, files, label, case.patient)


def _check_phantom(root: Path) -> None:
    if not root.is_dir():
        raise InputError(
            root,
            "no such folder: the phantom is not generated yet",
            "the phantom's cases",
            f"run `snakemake --cores all {root}`, or name a study with scans of its own",
        )


def print_index(
    path: Path, as_json: bool, layout: str | None = None, channels: Sequence[str] = ()
) -> int:
    """Show what the data set of a folder or a study file holds; returns the exit code.

    Raises:
        InputError: as ``list_index``.
    """
    listing = list_index(path, layout, channels)
    if as_json:
        fingerprint = take_fingerprint(listing.cases, usable_cores())
        print(json.dumps(_json(listing, fingerprint), indent=2))
    else:
        _print(listing, path)
    return 1 if listing.bad or listing.folds or not listing.usable else 0


def _print(listing: Listing, path: Path) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        # For programs that read it, and for logs: no line is broken.
        console = Console(highlight=False, width=10_000)
    layout = listing.dataset.layout
    form = f" ({LAYOUTS[layout]})" if layout in LAYOUTS else ""
    console.print(Text.assemble((str(listing.root), "bold"), f": layout {layout}{form}\n"))
    console.print(_overview(listing))
    if listing.bad:
        console.print(f"\n[bold red]{counted(len(listing.bad), 'case')} cannot be used[/]")
    for name, problem in listing.bad.items():
        _print_problem(console, Text.assemble((name, "bold"), ": "), problem)
    if listing.folds is not None:
        console.print("\n[bold red]The folds cannot be made[/]")
        _print_problem(console, Text(), listing.folds)
    console.print()
    _print_next(console, listing, path)


def _overview(listing: Listing) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, lines in _facts(listing).items():
        for number, line in enumerate(lines):
            grid.add_row("" if number else name, Text(line))
    return grid


def _facts(listing: Listing) -> dict[str, list[str]]:
    """Name of a fact -> its lines."""
    usable, headers = listing.usable, listing.headers
    labelled = sum(case.label is not None for case in usable)
    patients = len({case.patient for case in usable})
    facts = {
        "cases": [
            f"{len(usable)} usable ({labelled} labelled, {len(usable) - labelled} unlabelled) of "
            f"{counted(patients, 'patient')}; {len(listing.bad)} bad"
        ],
        "channels": [", ".join(listing.dataset.channels)],
    }
    if not usable:
        return facts | ({"notes": listing.remarks} if listing.remarks else {})
    if listing.patients is not None:
        facts["patients"] = [listing.patients]
    return facts | {
        "labels": [
            f"{value} {f'({name}) ' if (name := listing.label_names.get(value)) else ''}"
            f"in {counted(count, 'case')}"
            for value, count in listing.values.items()
            if value
        ],
        "shape": [_shapes(headers)],
        "spacing": _most(_mm(case) for case in headers),
        "voxel type": _most(case.voxel_type for case in headers),
        "orientation": _most(case.orientation for case in headers),
        "notes": _notes(listing),
    }


def _shapes(headers: Sequence[CaseFingerprint]) -> str:
    """The smallest, median and largest case by its number of voxels, turned to RAS."""
    ordered = sorted((case.shape for case in headers), key=lambda s: s[0] * s[1] * s[2])
    if ordered[0] == ordered[-1]:
        return f"{shape_text(ordered[0])} in all cases"
    smallest, middle, largest = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    return (
        f"{shape_text(smallest)} (smallest), {shape_text(middle)} (median), "
        f"{shape_text(largest)} (largest)"
    )


def _mm(case: CaseFingerprint) -> str:
    return " x ".join(f"{side:.3g}" for side in case.spacing) + " mm"


def _most(values: Iterable[str]) -> list[str]:
    """The commonest values with their counts, then how many others there are."""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return [f"{counts[0][0]} in all cases"]
    lines = [f"{value} in {counted(count, 'case')}" for value, count in counts[:NAMED]]
    if len(counts) > NAMED:
        rest = sum(count for _, count in counts[NAMED:])
        lines.append(f"{counted(len(counts) - NAMED, 'other')} in {counted(rest, 'case')}")
    return lines


def _notes(listing: Listing) -> list[str]:
    cases = defaultdict(list)
    for case in listing.usable:
        for note in case.notes:
            cases[note].append(case.name)
    ordered = sorted(cases.items(), key=lambda item: -len(item[1]))
    lines = [f"{note}: {_named(names)}" for note, names in ordered[:MOST_NOTES]]
    if len(ordered) > MOST_NOTES:
        lines.append(f"{len(ordered) - MOST_NOTES:,} more kinds: --json shows the notes of all")
    return [*listing.remarks, *lines]


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _print_problem(console: Console, beginning: Text, problem: InputError) -> None:
    text = beginning.append(f"{problem.where}: {problem.found}")
    console.print(Padding(text, (0, 0, 0, 2), expand=False))
    advice = f"expected: {problem.expected}\nfix: {problem.fix}"
    console.print(Padding(Text(advice, "dim"), (0, 0, 0, 6), expand=False))


def _print_next(console: Console, listing: Listing, path: Path) -> None:
    if listing.guess is None:
        return
    unlabelled = sum(case.label is None for case in listing.usable)
    meaning = listing.meaning
    if meaning is not None:
        sections, reasons = propose_data(listing.guess, meaning, unlabelled)
        _add_accepted(sections, reasons, listing)
        console.print("[bold]In a study:[/]")
        # As it stands: a broken line would be another YAML.
        console.print(
            indent(study_text(sections, reasons).rstrip(), "  "), markup=False, soft_wrap=True
        )
        console.print()
    first = "" if meaning else "Once a case with labels can be used, "
    named = listing.dataset.layout if is_plug_in("layouts", listing.dataset.layout) else None
    options = f" --layout {named} --channels {','.join(listing.dataset.channels)}" if named else ""
    console.print(
        f"{first}voxelsoup init {escape(str(path))}{options} proposes a complete study.",
        soft_wrap=True,
    )


def _add_accepted(sections: dict[str, Any], reasons: dict[str, str], listing: Listing) -> None:
    """What a study has to accept for these cases to be usable, and why."""
    needed = {finding for case in listing.usable for finding in case.accepted}
    accept = {k: v for k, v in ACCEPTABLE.model_dump(exclude_defaults=True).items() if k in needed}
    if accept:
        sections["dataset"]["accept"] = accept
        reasons["dataset.accept"] = (
            "Needed by these cases: "
            + "; ".join(accepted_in_words(listing.usable))
            + (
                ". Raters: `majority`, `staple`, or how the names of one rater's cases end."
                if "raters" in accept
                else "."
            )
        )


def _json(listing: Listing, fingerprint: Fingerprint) -> dict[str, Any]:
    prints = {case.name: case for case in fingerprint.cases}
    return {
        "root": str(listing.root),
        "dataset": listing.dataset.model_dump(mode="json", exclude_defaults=True),
        "label_names": {str(value): name for value, name in listing.label_names.items()},
        "labels": {str(value): count for value, count in listing.values.items()},
        "cases": [
            {
                "name": case.name,
                "patient": case.patient,
                "label": str(case.label) if case.label else None,
                "channels": {name: str(source) for name, source in case.channels.items()},
                "labels": case.labels,
                "notes": list(case.notes),
                "sha256": case.sha256,
                "fingerprint": asdict(prints[case.name]) if case.name in prints else None,
            }
            for case in listing.usable
        ],
        "patients": listing.patients,
        "bad": {name: problem.as_record() for name, problem in listing.bad.items()},
        "folds": None if listing.folds is None else listing.folds.as_record(),
        "remarks": listing.remarks,
    }
