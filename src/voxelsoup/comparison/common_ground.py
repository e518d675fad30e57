"""What studies have in common that are set beside each other, and what they do not.

Scores are comparable where the cases, their ground truth, the regions and the definitions of the
metrics are the same. What differs is named; what is left is the ground that they are compared on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.scored_study import ScoredStudy
from voxelsoup.data.preprocessing.store import load_ground_truth
from voxelsoup.data.regions import label_table, to_regions
from voxelsoup.evaluation.metrics import METRICS
from voxelsoup.evaluation.own_metrics import register

NAMED = 5
# Metric -> settings of `metrics` that decide what it is.
DEFINED_BY = {
    "hd95": ("penalty_distance",),
    "nsd": ("surface_tolerance",),
    "lesion_dice": ("lesion_dilation", "lesion_smallest"),
    "lesion_hd95": ("lesion_dilation", "lesion_smallest", "penalty_distance"),
}
ONLY_COMMON = "--common"


@dataclass(frozen=True)
class Block:
    """Test cases that each study has tested in one of its folds.

    Attributes:
        rows: name of a study -> per-case scores.
        patients: case -> patient.
    """

    rows: Mapping[str, pd.DataFrame]
    patients: Mapping[str, str]

    def patients_of(self, cases: Iterable[str]) -> list[str]:
        """The patient of each of some cases."""
        return [self.patients[case] for case in cases]


@dataclass(frozen=True)
class CommonGround:
    """What all studies were scored on.

    Attributes:
        cases: by name.
        metrics: Dice and those that are defined alike.
        postprocessing: whether scores after post-processing can be compared too.
        patients: case -> patient; cases that any study takes for one patient's have the same.
        blocks: case -> its fold in each study.
        annotated: the (case, region) that all studies have scores of.
        differ: what the studies do not have in common, in words.
    """

    cases: list[str]
    regions: list[str]
    metrics: list[str]
    postprocessing: bool
    patients: Mapping[str, str]
    blocks: Mapping[str, tuple[int, ...]]
    annotated: frozenset[tuple[str, str]]
    differ: list[str] = field(default_factory=list)

    @property
    def tested_in_others(self) -> bool:
        """Whether some cases were tested in folds of other numbers in other studies."""
        return any(len({*folds}) > 1 for folds in self.blocks.values())

    def blocks_of(self, rows: Mapping[str, pd.DataFrame]) -> list[Block]:
        """Per-case scores of one model of each study, on what is common, block by block."""
        shared = {name: self._shared(table) for name, table in rows.items()}
        groups: dict[tuple[int, ...], list[str]] = {}
        for case in self.cases:
            groups.setdefault(self.blocks[case], []).append(case)
        return [
            Block(
                {name: table[table["case"].isin(cases)] for name, table in shared.items()},
                self.patients,
            )
            for cases in groups.values()
        ]

    def _shared(self, table: pd.DataFrame) -> pd.DataFrame:
        pairs = zip(table["case"], table["region"], strict=True)
        return table[[pair in self.annotated for pair in pairs]]


def common_ground(studies: Sequence[ScoredStudy]) -> CommonGround:
    """What studies have in common.

    Raises:
        InputError: if they have nothing in common, or some are of the protocol `published` and
            others are not: then no part of them can be compared.
    """
    _check_protocols(studies)
    regions, of_regions = _regions(studies)
    tested, of_cases = _cases(studies)
    same, of_truth = _same_truth(studies, tested, regions)
    patients, of_patients = _patients(studies, same)
    metrics, of_metrics = _metrics(studies)
    postprocessing, of_postprocessing = _postprocessing(studies)
    annotated, of_annotation = _annotated(studies, same, regions)
    blocks = {case: tuple(study.tested_in[case] for study in studies) for case in same}
    cases = [case for case in same if any((case, region) in annotated for region in regions)]
    blocks = {case: blocks[case] for case in cases}
    differ = [
        *of_cases,
        *_of_folds(studies, blocks),
        *of_truth,
        *of_regions,
        *of_annotation,
        *of_patients,
        *of_metrics,
        *of_postprocessing,
    ]
    if not cases:
        raise _nothing_in_common(studies, differ)
    return CommonGround(
        cases, regions, metrics, postprocessing, patients, blocks, annotated, differ
    )


def refuse_differences(studies: Sequence[ScoredStudy], ground: CommonGround) -> None:
    """Raise an InputError that names all that the studies do not have in common."""
    if ground.differ:
        raise InputError(
            listed(study.name for study in studies),
            "were not scored on the same ground" + _lines(ground.differ),
            "studies with the same test cases in the same folds, regions, metrics and "
            "post-processing",
            f"compare what they have in common, {counted(len(ground.cases), 'case')}, with "
            f"{ONLY_COMMON}; or make the studies alike",
        )


def _lines(found: Sequence[str]) -> str:
    return "".join(f"\n  - {line}" for line in found)


def _nothing_in_common(studies: Sequence[ScoredStudy], differ: Sequence[str]) -> InputError:
    return InputError(
        listed(study.name for study in studies),
        "have no case and region in common" + _lines(differ),
        "studies that were tested on the same cases, by the same names, with a region in common",
        "name other studies",
    )


def _check_protocols(studies: Sequence[ScoredStudy]) -> None:
    of = _by_value({study.name: study.protocol for study in studies})
    if len(of) > 1:
        raise InputError(
            listed(study.name for study in studies),
            f"are of several protocols: {_shown_values(of)}",
            f"one protocol: scores of `published` are {OPTIMISTIC}",
            "leave those of one protocol out, or run them again by the other",
        )


def _by_value(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Value, as text -> the studies that have it."""
    found: dict[str, list[str]] = {}
    for study, value in values.items():
        found.setdefault(str(value), []).append(study)
    return found


def _shown_values(found: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} in {listed(studies)}" for value, studies in found.items())


def some(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return (", ".join(every[:NAMED]) + more) if more else listed(every)


def _cases(studies: Sequence[ScoredStudy]) -> tuple[list[str], list[str]]:
    """The cases that all studies have tested, and which of them tested others."""
    everywhere = set.intersection(*({*study.tested_in} for study in studies))
    differ = []
    for study in studies:
        others = sorted({*study.tested_in} - everywhere)
        if others:
            lacking = [other.name for other in studies if not {*others} <= {*other.tested_in}]
            differ.append(
                f"{counted(len(others), 'case')} that {study.name} has tested and "
                f"{listed(lacking, 'or')} has not: {some(others)}"
            )
    return sorted(everywhere), differ


def _of_folds(studies: Sequence[ScoredStudy], blocks: Mapping[str, tuple[int, ...]]) -> list[str]:
    moved = [case for case, folds in blocks.items() if len({*folds}) > 1]
    if not moved:
        return []
    folds = [f"fold {n} of {s.name}" for n, s in zip(blocks[moved[0]], studies, strict=True)]
    return [
        f"{counted(len(moved), 'case')} tested in other folds, so that other cases trained the "
        f"models: {some(moved)} ({moved[0]} in {listed(folds)})"
    ]


def _regions(studies: Sequence[ScoredStudy]) -> tuple[list[str], list[str]]:
    """The regions that mean the same label values everywhere, and what is said of the others."""
    names = dict.fromkeys(chain(*(study.study.regions for study in studies)))
    common, differ = [], []
    for name in names:
        values = {
            study.name: sorted(study.study.regions[name]) if name in study.study.regions else None
            for study in studies
        }
        of = _by_value({s: "none" if v is None else f"label values {v}" for s, v in values.items()})
        if len(of) == 1:
            common.append(name)
        else:
            differ.append(f"region {name}: {_shown_values(of)}")
    return common, differ


def _annotated(
    studies: Sequence[ScoredStudy], cases: Sequence[str], regions: Sequence[str]
) -> tuple[frozenset[tuple[str, str]], list[str]]:
    """The (case, region) that all studies have a score of, and where only some have."""
    wanted, names = {*regions}, {*cases}
    found = []
    for study in studies:
        pairs = {
            pair
            for one in study.models
            for pair in zip(one.rows["case"], one.rows["region"], strict=True)
        }
        found.append({(c, r) for c, r in pairs if c in names and r in wanted})
    everywhere = set.intersection(*found)
    elsewhere = [f"{region} of {case}" for case, region in sorted(set.union(*found) - everywhere)]
    differ = [f"annotated in some studies alone: {some(elsewhere)}"] if elsewhere else []
    return frozenset(everywhere), differ


def _patients(
    studies: Sequence[ScoredStudy], cases: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Case -> patient; cases that any study takes for one patient's are of one."""
    joined = {case: case for case in cases}

    def first_of(case: str) -> str:
        while joined[case] != case:
            case = joined[case]
        return case

    groupings = []
    for study in studies:
        groups: dict[str, list[str]] = {}
        for case in cases:
            groups.setdefault(study.cases[case].patient, []).append(case)
        groupings.append({frozenset(group) for group in groups.values()})
        for group in groups.values():
            for case in group[1:]:
                joined[first_of(case)] = first_of(group[0])
    patients = {case: first_of(case) for case in cases}
    odd = sorted({*chain(*set.union(*groupings))} - {*chain(*set.intersection(*groupings))})
    if not odd:
        return patients, []
    return patients, [f"cases that not all studies take for the same patient's: {some(odd)}"]


def _metrics(studies: Sequence[ScoredStudy]) -> tuple[list[str], list[str]]:
    """Dice and the metrics that are defined alike, and what is said of the others."""
    common, differ = ["dice"], []
    scored = {study.name: study.study.scored_metrics for study in studies}
    register(name for metrics in scored.values() for name in metrics.names)
    for name in METRICS:
        has = {study: name in metrics.names for study, metrics in scored.items()}
        if name == "dice" or not any(has.values()):
            continue
        keys = DEFINED_BY.get(name, ())
        values = {
            study: ", ".join(f"{key} {getattr(metrics, key)}" for key in keys)
            for study, metrics in scored.items()
        }
        if not all(has.values()):
            differ.append(f"metric {name}: {_shown_values(_by_value(_scored_or_not(has)))}")
        elif len(of := _by_value(values)) > 1:
            differ.append(f"metric {name}: {_shown_values(of)}")
        else:
            common.append(name)
    return common, differ


def _scored_or_not(has: Mapping[str, bool]) -> dict[str, str]:
    return {study: "scored" if known else "not scored" for study, known in has.items()}


def _postprocessing(studies: Sequence[ScoredStudy]) -> tuple[bool, list[str]]:
    """Whether all studies search the same post-processing, which makes its scores comparable."""
    sections = {study.name: study.study.postprocessing for study in studies}
    dumped = {name: section.model_dump(mode="json") for name, section in sections.items()}
    keys = next(iter(dumped.values()))
    differ = []
    for key in keys:
        of = _by_value({name: values[key] for name, values in dumped.items()})
        if len(of) > 1:
            differ.append(f"postprocessing.{key}: {_shown_values(of)}")
    searches = any(section.searches for section in sections.values())
    return searches and not differ, differ


def _same_truth(
    studies: Sequence[ScoredStudy], cases: Sequence[str], regions: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The cases whose ground truth is the same in all studies, and which of them it is not."""
    same: list[str] = []
    other: list[str] = []
    unknown: list[str] = []
    for case in cases:
        found = _is_same_truth(studies, case, regions)
        {True: same, False: other, None: unknown}[found].append(case)
    differ = []
    if other:
        differ.append(
            f"{counted(len(other), 'case')} of the same name with another ground truth: "
            f"{some(other)}"
        )
    if unknown:
        differ.append(
            f"{counted(len(unknown), 'case')} of the same name with other files, and no "
            f"preprocessed label map to compare the ground truth by: {some(unknown)}"
        )
    return same, differ


def _is_same_truth(
    studies: Sequence[ScoredStudy], case: str, regions: Sequence[str]
) -> bool | None:
    """Whether a case was scored against the same voxels in all studies; None: not known."""
    if len({_content(study, case) for study in studies}) == 1:
        return True
    digests = [_truth_digest(study, case, regions) for study in studies]
    return None if None in digests else len({*digests}) == 1


def _content(study: ScoredStudy, case: str) -> tuple[object, ...]:
    """What the ground truth of a case is made of, by its files."""
    indexed = study.cases[case]
    component = indexed.label.component if indexed.label else None
    raters = str(indexed.accepted.get("raters"))
    return indexed.sha256, component, raters, study.study.dataset.ignore_label


def _truth_digest(study: ScoredStudy, case: str, regions: Sequence[str]) -> str | None:
    """A hash over the regions that a case was scored against, in the voxels of its scan.

    Independent of channels, crop and label values outside of the regions; None if the preprocessed
    case is gone.
    """
    folder = study.results / "preprocessed"
    try:
        geometry = read_json(folder / f"{case}.json")
        truth = load_ground_truth(folder, case)
        start = [begin for begin, _ in geometry["crop"]]
        grid = [*geometry["ras_shape"], *np.round(geometry["spacing_before"], 4).tolist()]
    except (InputError, OSError, ValueError, KeyError):
        return None
    table = label_table({name: study.study.regions[name] for name in regions})
    ignored = study.study.dataset.ignore_label
    layers = [*to_regions(truth, table)] if regions else []
    # Where the value does not occur, it makes no difference that one study knows it.
    if ignored is not None and (truth == ignored).any():
        layers.append(truth == ignored)
    digest = hashlib.sha256(str(grid).encode())
    for layer in layers:
        digest.update(_placed(layer, start))
    return digest.hexdigest()


def _placed(layer: NDArray[np.bool_], start: Sequence[int]) -> bytes:
    """A mask (x, y, z) as its box in the scan, which begins at ``start``, and its voxels in it."""
    sides = [np.flatnonzero(layer.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    if not len(sides[0]):
        return b"empty"
    box = [(int(side[0]), int(side[-1]) + 1) for side in sides]
    place = [(low + first, high + first) for (low, high), first in zip(box, start, strict=True)]
    inside = layer[tuple(slice(*ends) for ends in box)]
    return str(place).encode() + np.packbits(inside).tobytes()
