"""Which cases a fold trains on, chooses on and tests on."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted
from voxelsoup.data.balance import Kinds, choose, counts_of, deal
from voxelsoup.data.layouts.json_files import read_json
from voxelsoup.data.layouts.monai import describe, known_case
from voxelsoup.study.sections.data import Folds
from voxelsoup.study.sections.evaluation import Protocol

log = logging.getLogger(__name__)

# The fold of a datalist's entries that no fold tests on.
TRAINING_ONLY = -1
# No region that is annotated in some of the cases only.
EVERYWHERE: Mapping[str, Collection[str]] = MappingProxyType({})
FORMS = "a MONAI datalist (object with `training`) or nnU-Net's splits_final.json (list of folds)"


@dataclass(frozen=True)
class Split:
    """One fold before selection cases are taken from ``rest``, the cases to train and select on.

    ``training_only`` are those of ``rest`` that must never be selected on.
    """

    test: list[str]
    rest: list[str]
    training_only: set[str] = field(default_factory=set)


def make_folds(
    patients: dict[str, str],
    folds: Folds,
    protocol: Protocol,
    left_out: Collection[str] = (),
    unlabelled: Collection[str] = (),
    kinds: Kinds | None = None,
    annotated: Mapping[str, Collection[str]] = EVERYWHERE,
) -> dict[str, Any]:
    """Split cases into cross-validation folds, by patient.

    The result depends on the cases, their patients and the settings, not on the order of the cases.

    Args:
        patients: case name -> patient.
        protocol: under ``published``, selection and test cases are the same.
        left_out: cases that cannot be used; a given split may name them all the same.
        unlabelled: cases for prediction only, which no given split may name.
        kinds: what the folds are balanced by besides numbers of cases (``kinds_of_cases``).
        annotated: region -> the cases in which it is annotated, of the regions that are not in all.

    Returns:
        The content of folds.json: ``{"protocol": ..., "folds": {"0": {"training": [...],
        "selection": [...], "test": [...]}}}`` with sorted case names, for the folds to run.

    Raises:
        InputError: if there are too few patients, if a fold lacks training, selection or test
            cases, or any of these with annotations of a region, or if the file with the split is
            unusable.
    """
    if not patients:
        raise InputError(
            "dataset.root",
            "holds no labelled case",
            "cases with label maps to train on and to score",
            "add label maps, or correct `dataset.root`",
        )
    patients = dict(sorted(patients.items()))
    if folds.file is None:
        splits = _random_splits(patients, folds, kinds)
        where = "folds"
    else:
        splits = _given_splits(Path(folds.file), patients, folds, left_out, unlabelled)
        where = folds.file
    made = {
        str(number): _parts(split, number, patients, folds, protocol, where, kinds)
        for number, split in splits.items()
    }
    for number, parts in made.items():
        _check_annotated(number, parts, annotated, where)
    return {"protocol": protocol, "folds": made}


def _check_annotated(
    number: str,
    parts: Mapping[str, Sequence[str]],
    annotated: Mapping[str, Collection[str]],
    where: str,
) -> None:
    """Refuse a fold of which some part cannot train or score a region: means would lack it."""
    for region, cases in annotated.items():
        for part, names in parts.items():
            if not set(names) & set(cases):
                raise InputError(
                    where,
                    f"fold {number} has no {part} case in which region {region} is annotated: it "
                    f"is in {counted(len(cases), 'case')} alone (`dataset.not_annotated`)",
                    "training, selection and test cases with every region in every fold",
                    (
                        "balance the folds (`folds.balance: [regions]`), or change their number, "
                        "`folds.seed` or `folds.selection_share`"
                        if where == "folds"
                        else "change the split"
                    )
                    + ", or take the region out of `regions`",
                )


def _parts(
    split: Split,
    number: int,
    patients: dict[str, str],
    folds: Folds,
    protocol: Protocol,
    where: str,
    kinds: Kinds | None,
) -> dict[str, list[str]]:
    _check_apart(split, number, patients, where)
    training, test = set(split.rest), set(split.test)
    selection = test
    if protocol == "held-out":
        selection = _select(split, number, patients, folds, kinds)
        training -= selection
    parts = {"training": training, "selection": selection, "test": test}
    for part, cases in parts.items():
        if not cases:
            raise InputError(
                where,
                f"fold {number} has no {part} cases",
                "training, selection and test cases in every fold, each patient in one of them",
                "add patients, or change the split or `folds.run`",
            )
    return {part: sorted(cases) for part, cases in parts.items()}


def _select(
    split: Split, number: int, patients: dict[str, str], folds: Folds, kinds: Kinds | None
) -> set[str]:
    """Draw whole patients until the selection has its share of the cases, at least one."""
    by_patient = _by_patient(split.rest, patients)
    candidates = [
        patient for patient, cases in by_patient.items() if split.training_only.isdisjoint(cases)
    ]
    wanted = folds.selection_share * len(split.rest)
    selection: set[str] = set()
    random = np.random.default_rng([folds.seed, number])
    order = random.permutation(len(candidates)).tolist()
    if kinds is not None and candidates:
        cases_of = {patient: by_patient[patient] for patient in candidates}
        share = min(1.0, wanted / sum(map(len, cases_of.values())))
        chosen = choose(counts_of(cases_of, kinds), share, order)
        return {case for index in chosen for case in by_patient[candidates[index]]}
    for index in order:
        cases = by_patient[candidates[index]]
        # A patient is taken where that brings the number of cases nearer to the wanted one.
        nearer = abs(len(selection) + len(cases) - wanted) < abs(len(selection) - wanted)
        leaves_training = len(selection) + len(cases) < len(split.rest)
        if leaves_training and nearer:
            selection.update(cases)
    if not selection and len(by_patient) > 1 and candidates:
        # Every patient is larger than twice the share: the smallest misses it least.
        selection.update(by_patient[min(candidates, key=lambda p: len(by_patient[p]))])
    return selection


def _by_patient(cases: Iterable[str], patients: dict[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases):
        groups[patients[case]].append(case)
    return dict(sorted(groups.items()))


def _random_splits(patients: dict[str, str], folds: Folds, kinds: Kinds | None) -> dict[int, Split]:
    """Deal patients out, the ones with most cases first, each to the smallest fold.

    Where they are balanced by ``kinds``, as ``deal`` does it.
    """
    by_patient = _by_patient(patients, patients)
    if len(by_patient) < folds.count:
        raise InputError(
            "folds.count",
            f"{folds.count} folds, but the data set has {len(by_patient)} patient(s)",
            "at least as many patients as folds",
            f"set `folds.count` to at most {len(by_patient)}, or add cases",
        )
    names = list(by_patient)
    order = np.random.default_rng(folds.seed).permutation(len(names)).tolist()
    tests: list[list[str]] = [[] for _ in range(folds.count)]
    if kinds is not None:
        for test, dealt in zip(
            tests, deal(counts_of(by_patient, kinds), folds.count, order), strict=True
        ):
            test += [case for index in dealt for case in by_patient[names[index]]]
    else:
        shuffled = [names[index] for index in order]
        for patient in sorted(shuffled, key=lambda p: -len(by_patient[p])):
            min(tests, key=len).extend(by_patient[patient])
    return {
        number: Split(tests[number], sorted(set(patients) - set(tests[number])))
        for number in folds.numbers
    }


def _check_apart(split: Split, number: int, patients: dict[str, str], where: str) -> None:
    tested = {patients[case]: case for case in split.test}
    for case in split.rest:
        if patients[case] in tested:
            other = tested[patients[case]]
            raise InputError(
                where,
                f"fold {number} tests on case {other} and trains on case {case}, "
                f"both of patient {patients[case]}",
                "all cases of a patient on one side of the split",
                "move the cases to one side, or correct `dataset.patients` or "
                "`dataset.patient_pattern` if they are different patients (`none`: each case is a "
                "patient of its own)",
            )


def _given_splits(
    path: Path,
    patients: dict[str, str],
    folds: Folds,
    left_out: Collection[str],
    unlabelled: Collection[str],
) -> dict[int, Split]:
    content = read_json(path, "correct `folds.file`")
    known = {*patients, *left_out, *unlabelled}
    if isinstance(content, list):
        splits = _nnunet_splits(content, path, known, folds)
    elif isinstance(content, dict) and isinstance(content.get("training"), list):
        splits = _datalist_splits(content["training"], path, known, folds)
    else:
        raise InputError(
            path,
            f"is JSON of another form ({type(content).__name__})",
            FORMS,
            "correct the file or `folds.file`",
        )
    for number, split in splits.items():
        named = sorted({*split.test, *split.rest} & {*unlabelled})
        if named:
            raise InputError(
                path,
                f"fold {number} has case {named[0]}, which has no label map",
                "labelled cases only: the others are for prediction",
                "take it out of the file, or add its label map",
            )
    return {number: _without(split, left_out, path) for number, split in splits.items()}


def _without(split: Split, left_out: Collection[str], path: Path) -> Split:
    """A split without the cases that cannot be used, each of which is logged."""
    gone = sorted({*split.test, *split.rest} & {*left_out})
    for case in gone:
        log.info("%s: case %s is left out, see rejected.tsv", path, case)
    return Split(
        [case for case in split.test if case not in gone],
        [case for case in split.rest if case not in gone],
        split.training_only,
    )


def _nnunet_splits(
    content: list[Any], path: Path, known: Collection[str], folds: Folds
) -> dict[int, Split]:
    _check_numbers(folds, set(range(len(content))), path)
    splits = {}
    for number in folds.numbers:
        entry = content[number]
        sides = [entry.get(side) if isinstance(entry, dict) else None for side in ("train", "val")]
        if not all(isinstance(s, list) and all(isinstance(c, str) for c in s) for s in sides):
            raise InputError(
                path,
                f"fold {number} is not of nnU-Net's form",
                "`train` and `val`, each a list of case names",
                "correct the file or `folds.file`",
            )
        rest, test = (sorted(set(side or [])) for side in sides)
        _refuse_unknown([case for case in [*rest, *test] if case not in known], path)
        both = sorted(set(rest) & set(test))
        if both:
            raise InputError(
                path,
                f"fold {number} has case {both[0]} in both `train` and `val`",
                "each case on one side of the split",
                "take it out of one of them",
            )
        splits[number] = Split(test, rest)
    return splits


def _datalist_splits(
    entries: list[Any], path: Path, known: Collection[str], folds: Folds
) -> dict[int, Split]:
    numbers = _datalist_numbers(entries, path, known)
    _check_numbers(folds, {number for number in numbers.values() if number >= 0}, path)
    training_only = {case for case, number in numbers.items() if number < 0}
    return {
        fold: Split(
            test=[case for case, number in numbers.items() if number == fold],
            rest=[case for case, number in numbers.items() if number != fold],
            training_only=training_only,
        )
        for fold in folds.numbers
    }


def _datalist_numbers(entries: list[Any], path: Path, known: Collection[str]) -> dict[str, int]:
    """Case -> the number of the fold that tests on it, -1 for none."""
    found: list[tuple[str, int]] = []
    unknown: list[str] = []
    for position, entry in enumerate(entries):
        # As in MONAI, an entry without `fold` is one that every fold trains on.
        number = entry.get("fold", TRAINING_ONLY) if isinstance(entry, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < TRAINING_ONLY:
            raise InputError(
                path,
                f"entry {position} of `training` has no usable `fold` ({number!r})",
                "a fold counted from 0, or -1 or no `fold` at all for training only",
                "correct the entry",
            )
        case = known_case(entry, known)
        if case is None:
            unknown.append(describe(entry))
        else:
            found.append((case, number))
    _refuse_unknown(unknown, path)
    twice = [case for case, count in Counter(case for case, _ in found).items() if count > 1]
    if twice:
        raise InputError(
            path,
            f"several entries of `training` are for case {twice[0]}",
            "one entry per case",
            "take the others out, or name each entry's case in a field `case`",
        )
    return dict(sorted(found))


def _check_numbers(folds: Folds, available: set[int], path: Path) -> None:
    missing = [number for number in folds.numbers if number not in available]
    if missing:
        listed = ", ".join(map(str, sorted(available))) or "none"
        raise InputError(
            path,
            f"has no fold {missing[0]} (its folds: {listed})",
            f"the folds to run: {', '.join(map(str, folds.numbers))}",
            "set `folds.count` to the file's number of folds, or `folds.run` to some of them",
        )


def _refuse_unknown(unknown: list[str], path: Path) -> None:
    if not unknown:
        return
    listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    raise InputError(
        path,
        f"names {len(unknown)} case(s) that the data set does not have: {listed}",
        "cases of the data set that can be used",
        "take them out of the file, or correct `dataset.root` (cases left out are in rejected.tsv)",
    )
