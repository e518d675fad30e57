"""The index: every case found, checked and written down before anything is computed."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from voxelsoup.common.errors import PARTS, BadCases, InputError
from voxelsoup.common.files import read_tsv, write_tsv
from voxelsoup.common.machine import in_processes
from voxelsoup.data.case import Case, IndexedCase, Source, with_missing
from voxelsoup.data.index.check_cache import (
    CheckResult,
    append,
    appending,
    check_if_changed,
    files_of,
    hash_files,
    is_current,
    read_results,
    write_results,
)
from voxelsoup.data.index.checks import (
    Expected,
    Findings,
    find_duplicates,
    shared_scans,
    without_absent,
)
from voxelsoup.data.index.not_annotated import check_patterns, with_not_annotated
from voxelsoup.data.index.passed_over import (
    notes_on_passed_over,
    notes_on_strays,
    volumes_passed_over,
    with_passed_over,
)
from voxelsoup.data.index.patients import describe_patients, patient_finder
from voxelsoup.data.index.raters import KEY, groups_of_raters, with_raters
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.label_names import names_of_labels
from voxelsoup.data.volumes.volume import shape_text
from voxelsoup.study.sections.data import Accept, Dataset

log = logging.getLogger(__name__)

CHANNEL_PREFIX, ACCEPTED = "channel_", "accepted"
# Seconds between two lines of the log that say how far the index is.
PROGRESS_SECONDS = 10.0


def index_cases(
    dataset: Dataset,
    regions: dict[str, list[int]],
    root: Path,
    workers: int,
    kept: Path | None = None,
    test_sets: Sequence[str] = (),
) -> tuple[list[IndexedCase], dict[str, InputError]]:
    """Find and check all cases of a data set; `on_bad_case` says whether bad ones stop it.

    Args:
        dataset: the study's section.
        regions: region name -> label values.
        root: folder of the data set, which is only read.
        workers: processes that check cases.
        kept: where check results are kept: a case with unchanged files is not opened again.
        test_sets: folders whose cases `dataset.not_annotated` may name too.

    Returns:
        The usable cases by name, and case name -> what is wrong for the others.

    Raises:
        BadCases: naming all bad cases, if they are to stop the study or no usable case is left.
        InputError: if the folder holds no cases, a case's patient is not known, or
            `dataset.not_annotated` does not fit the cases.
    """
    cases = find_cases(dataset, root)
    patient_of = patient_finder(dataset)
    patients = {case.name: patient_of(case) for case in cases}
    labels = frozenset(label for values in regions.values() for label in values)
    background = _background(dataset, labels, root)
    accept = dataset.accept
    ignored, stripped = dataset.ignore_label, dataset.is_skull_stripped
    expected = Expected(labels, dataset.unlabelled, background, ignored, accept, stripped)
    if accept.missing_channels:
        cases = [without_absent(case) for case in cases]

    readable = [case for case in cases if case.problem is None]
    found = _results(readable, expected, root, workers, kept)
    rejected = {case.name: case.problem for case in cases if case.problem is not None}
    rejected |= {n: r.outcome for n, r in found.items() if isinstance(r.outcome, InputError)}
    voxels = {n: r.outcome.voxels for n, r in found.items() if isinstance(r.outcome, Findings)}
    checked = [case for case in readable if case.name in voxels]
    raters = groups_of_raters(checked, voxels, patients)
    rejected |= _duplicates(checked, voxels, raters, patients, accept)
    usable = [
        _indexed(case, patients[case.name], found[case.name], root)
        for case in cases
        if case.name not in rejected
    ]
    if accept.shared_scans:
        shared = shared_scans([one.name for one in usable], voxels)
        usable = [_sharing(one, shared.get(one.name, [])) for one in usable]
    if accept.raters is not None:
        usable = [_hashed(case, root) for case in with_raters(usable, raters, accept.raters)]
    usable = _with_notes_on_extras(usable, {case.name: case.extra for case in cases})
    unread = volumes_passed_over(cases)
    notes = notes_on_passed_over(cases, unread)
    usable = [replace(one, notes=(*one.notes, *notes.get(one.name, ()))) for one in usable]
    rejected = {n: with_passed_over(one, unread.get(n, ())) for n, one in rejected.items()}
    log.info("%d cases can be used, %d cannot", len(usable), len(rejected))
    for note in notes_on_strays(dataset, root, cases):
        log.info("%s", note)
    grouped = describe_patients(dataset, usable)
    if grouped is not None:
        log.info("patients: %s", grouped)
    if rejected and (dataset.on_bad_case == "stop" or not usable):
        raise BadCases(
            root,
            dict(sorted(rejected.items())),
            "or set `dataset.on_bad_case: skip` to continue without these cases",
        )
    names = [*(case.name for case in usable), *rejected]
    check_patterns(dataset.not_annotated, names, test_sets)
    usable = with_not_annotated(usable, dataset.not_annotated, regions)
    return usable, dict(sorted(rejected.items()))


def _duplicates(
    cases: Sequence[Case],
    voxels: Mapping[str, Mapping[str, str]],
    raters: Sequence[Sequence[str]],
    patients: Mapping[str, str],
    accept: Accept,
) -> dict[str, InputError]:
    """Copies among cases, but for labels of several raters, and scans that cases of one patient
    share, where these are accepted.
    """
    others = {name for names in raters for name in names[1:]}
    alike = patients if accept.shared_scans else None
    if accept.raters is not None:
        return find_duplicates([case for case in cases if case.name not in others], voxels, alike)
    found = find_duplicates(cases, voxels, alike)
    return {
        name: InputError(one.where, one.found, one.expected, one.fix + KEY)
        if name in others
        else one
        for name, one in found.items()
    }


def _sharing(case: IndexedCase, shared: list[str]) -> IndexedCase:
    """A case with what it shares with others of its patient, which a study has accepted."""
    if not shared:
        return case
    note = f"shares with other cases of its patient: {', '.join(shared)}"
    accepted = {**case.accepted, "shared_scans": shared}
    return replace(case, notes=(*case.notes, note), accepted=accepted)


def _hashed(case: IndexedCase, root: Path) -> IndexedCase:
    """A case with the hash over the label maps of all of its raters."""
    if case.consensus is None:
        return case
    return replace(case, sha256=hash_files(root / file for file in files_of(case)))


def _background(dataset: Dataset, labels: frozenset[int], root: Path) -> dict[int, str]:
    """Label values that count as background -> why: the declared ones, and those that the data
    set's own description names and no region does.
    """
    described = names_of_labels(dataset, root).named
    return {
        value: f"label value {value} ({name}) is background: no region names it"
        for value, name in described.items()
        if value not in labels
    } | {
        value: f"label value {value} is background, as `dataset.background` declares"
        for value in dataset.background
    }


def _results(
    cases: Sequence[Case], expected: Expected, root: Path, workers: int, kept: Path | None
) -> dict[str, CheckResult]:
    """Case name -> its result: the kept one, or else a new one, which is kept at once."""
    earlier = read_results(kept, root) if kept else {}
    todo = [c for c in cases if not is_current(earlier.get(c.name), c, expected, root)]
    log.info("%d cases, of which %d are new or changed", len(cases), len(todo))
    found = {case.name: earlier[case.name] for case in cases if case.name in earlier}
    check = partial(check_if_changed, expected=expected, root=root)
    checked = in_processes(check, workers, todo, [earlier.get(c.name) for c in todo])
    logged = time.monotonic()
    with appending(kept) if kept and todo else nullcontext() as stream:
        for number, result in enumerate(checked, 1):
            found[result.case] = result
            if stream is not None:
                append(stream, result, root)
            if time.monotonic() - logged > PROGRESS_SECONDS:
                logged = time.monotonic()
                log.info("%d of %d checked", number, len(todo))
    if kept:
        # Those of cases that are gone are dropped.
        write_results(kept, (found[name] for name in sorted(found)), root)
    return found


def _indexed(case: Case, patient: str, result: CheckResult, root: Path) -> IndexedCase:
    findings = result.outcome
    assert isinstance(findings, Findings)
    case = case.lacking(findings.accepted.get("missing_channels", []))
    return IndexedCase(
        name=case.name,
        patient=patient,
        channels={name: source.relative_to(root) for name, source in case.channels.items()},
        label=case.label.relative_to(root) if case.label else None,
        shape=findings.shape,
        spacing=findings.spacing,
        labels=findings.labels,
        sha256=result.sha256,
        notes=(*case.notes, *findings.notes),
        missing=case.missing,
        accepted=findings.accepted,
    )


def _with_notes_on_extras(
    cases: list[IndexedCase], extra: Mapping[str, tuple[str, ...]]
) -> list[IndexedCase]:
    """Note further volumes that only some of the cases have: there may be a channel to use."""
    counts = Counter(suffix for case in cases for suffix in extra[case.name])
    notes = {
        suffix: f"has {suffix} too, as {count} of {len(cases)} cases have"
        for suffix, count in counts.items()
        if count < len(cases)
    }
    return [
        replace(case, notes=(*case.notes, *(notes[s] for s in extra[case.name] if s in notes)))
        for case in cases
    ]


def write_cases(path: Path, cases: Sequence[IndexedCase]) -> None:
    """Write ``cases.tsv``: one row per usable case; what was accepted, if anything was, as JSON."""
    any_accepted = any(case.accepted for case in cases)
    rows = [
        {
            "case": case.name,
            "patient": case.patient,
            "label": case.label or "",
            **{
                CHANNEL_PREFIX + name: case.channels.get(name, "")
                for name in with_missing(case.channels, case.missing)
            },
            "shape": shape_text(case.shape),
            "spacing": "x".join(f"{size:g}" for size in case.spacing),
            "labels": ",".join(map(str, case.labels)),
            "sha256": case.sha256,
            "notes": "; ".join(case.notes),
            **({ACCEPTED: json.dumps(dict(case.accepted))} if any_accepted else {}),
        }
        for case in cases
    ]
    write_tsv(path, list(rows[0]), rows)


def read_cases(path: Path) -> list[IndexedCase]:
    """Read ``cases.tsv`` back."""
    return [_from_row(row) for row in read_tsv(path)]


def write_rejected(path: Path, rejected: dict[str, InputError]) -> None:
    """Write ``rejected.tsv``: the cases that are left out, and why."""
    rows = [{"case": case, **problem.as_record()} for case, problem in rejected.items()]
    write_tsv(path, ["case", *PARTS], rows)


def read_rejected(path: Path) -> dict[str, InputError]:
    """Read ``rejected.tsv`` back: case name -> what is wrong with it."""
    return {row["case"]: InputError.from_record(row) for row in read_tsv(path)}


def _from_row(row: dict[str, str]) -> IndexedCase:
    shape = tuple(int(side) for side in row["shape"].split("x"))
    spacing = tuple(float(size) for size in row["spacing"].split("x"))
    channels = {
        key.removeprefix(CHANNEL_PREFIX): value
        for key, value in row.items()
        if key.startswith(CHANNEL_PREFIX)
    }
    return IndexedCase(
        name=row["case"],
        patient=row["patient"],
        channels={name: Source.parse(value) for name, value in channels.items() if value},
        label=Source.parse(row["label"]) if row["label"] else None,
        shape=(shape[0], shape[1], shape[2]),
        spacing=(spacing[0], spacing[1], spacing[2]),
        labels=[int(value) for value in row["labels"].split(",") if value],
        sha256=row["sha256"],
        notes=tuple(note for note in row["notes"].split("; ") if note),
        missing={name: place for place, name in enumerate(channels) if not channels[name]},
        accepted=json.loads(row.get(ACCEPTED) or "{}"),
    )
