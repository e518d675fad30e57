"""Labelled scans of any layout as cases to choose models on: checked and preprocessed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.common.machine import in_processes
from voxelsoup.data.case import Case, IndexedCase
from voxelsoup.data.index.check_cache import (
    CheckResult,
    append,
    appending,
    check_if_changed,
    read_results,
)
from voxelsoup.data.index.checks import Expected
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.prediction.ground_truth import GroundTruth
from voxelsoup.study.study import Study

CHECKS, MANIFEST = "checks.jsonl", "preprocessed.tsv"


def prepare_cases(
    truth: GroundTruth, study: Study, where: str, folder: Path, workers: int
) -> dict[str, str]:
    """Check and preprocess the cases of a data set, but for those that are done.

    Args:
        study: its regions are those of the ground truth's label values.
        where: what the user calls the data set.
        folder: where arrays and check results go.
        workers: processes.

    Returns:
        Case -> fingerprint of its arrays.

    Raises:
        BadCases: naming every case that cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = frozenset(study.labels)
    described = {value: name for name, values in truth.regions.items() for value in values}
    background = {
        value: f"label value {value} ({name}) is background: no region names it"
        for value, name in described.items()
        if value not in labels
    }
    background |= dict.fromkeys(study.dataset.background, "`dataset.background`")
    expected = Expected(
        labels, "refuse", background, study.dataset.ignore_label, study.dataset.accept
    )
    results = _checked(truth.cases, expected, folder / CHECKS, workers)
    problems = {case.name: case.problem for case in truth.cases if case.problem is not None}
    problems |= {n: r.outcome for n, r in results.items() if isinstance(r.outcome, InputError)}
    if problems:
        raise BadCases(where, problems, "or take these cases out, in a copy of the folder")
    preprocess_all(
        [_indexed(case, results[case.name]) for case in truth.cases],
        root=Path(),
        settings=study.preprocess,
        patch=study.training.patch,
        folder=folder,
        manifest=folder / MANIFEST,
        workers=workers,
        ignored=study.dataset.ignore_label,
        not_annotated={case.name: study.not_annotated_in(case.name) for case in truth.cases},
    )
    return read_manifest(folder / MANIFEST)


def _checked(
    cases: list[Case], expected: Expected, kept: Path, workers: int
) -> dict[str, CheckResult]:
    """Case -> its check result; files that have not changed since an earlier one are not read."""
    earlier = read_results(kept, Path())
    todo = [case for case in cases if case.problem is None]
    check = partial(check_if_changed, expected=expected, root=Path())
    found = {}
    with appending(kept) as stream:
        for result in in_processes(check, workers, todo, [earlier.get(c.name) for c in todo]):
            found[result.case] = result
            append(stream, result, Path())
    return found


def _indexed(case: Case, result: CheckResult) -> IndexedCase:
    findings = result.outcome
    assert not isinstance(findings, InputError)
    case = case.lacking(findings.accepted.get("missing_channels", []))
    return IndexedCase(
        name=case.name,
        patient=case.patient or case.name,
        channels=case.channels,
        label=case.label,
        shape=findings.shape,
        spacing=findings.spacing,
        labels=findings.labels,
        sha256=result.sha256,
        notes=findings.notes,
        missing=case.missing,
        accepted=findings.accepted,
    )
