"""Cases that are labels of several raters on one scan: which of them counts, or all together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.common.text import listed
from voxelsoup.data.case import FUSIONS, Case, IndexedCase

KEY = (
    "; if they are labels of several raters, say which counts: `dataset.accept: {raters: "
    "majority}`, `staple`, or how the names of a rater's cases end"
)


def groups_of_raters(
    cases: Sequence[Case], voxels: Mapping[str, Mapping[str, str]], patients: Mapping[str, str]
) -> list[list[str]]:
    """Names of labelled cases of one patient that hold the very same scans, and other labels.

    ``voxels``: case name -> channel name -> hash of its voxels.
    """
    groups: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.name):
        if case.label is not None:
            groups[(patients[case.name], *sorted(voxels[case.name].items()))].append(case.name)
    labels = {case.name: case.label.file for case in cases if case.label is not None}
    return [names for names in groups.values() if _differ([labels[name] for name in names])]


def _differ(files: Sequence[Path]) -> bool:
    """Whether there are several files, no two of them the same: copies are no raters."""
    return len(files) > 1 and len({sha256(file) for file in files}) == len(files)


def with_raters(
    cases: Sequence[IndexedCase], groups: Iterable[Sequence[str]], choice: str
) -> list[IndexedCase]:
    """Cases with one for each group: the one of the rater who counts, or the first for all.

    ``choice`` is one of ``FUSIONS``, or how the names of one rater's cases end. The hash over the
    files is that of the case alone.

    Raises InputError if not exactly one case of a group ends so.
    """
    by_name = {case.name: case for case in cases}
    for names in groups:
        kept, others = _chosen(names, choice)
        case = by_name[kept]
        labels = [str(by_name[name].label) for name in others]
        if choice in FUSIONS:
            values = sorted({value for name in names for value in by_name[name].labels})
            note = f"labels of {listed(names)}, raters of one scan: {choice}"
            found = [choice, *labels]
        else:
            values, note = case.labels, f"labels of {kept}; those of {listed(others)} are left out"
            found = [f"labels of {kept}", *(f"not {name}" for name in others)]
        by_name[kept] = IndexedCase(
            **{
                **vars(case),
                "labels": values,
                "notes": (*case.notes, note),
                "accepted": {**case.accepted, "raters": found},
            }
        )
        for name in others:
            del by_name[name]
    return list(by_name.values())


def _chosen(names: Sequence[str], choice: str) -> tuple[str, list[str]]:
    if choice in FUSIONS:
        return names[0], list(names[1:])
    ending = [name for name in names if name.endswith(choice)]
    if len(ending) != 1:
        raise InputError(
            "dataset.accept.raters",
            f"is `{choice}`, with which {len(ending)} of {listed(names)} end",
            f"{', '.join(FUSIONS)}, or the end of the name of one of the cases of each scan",
            "correct the key",
        )
    return ending[0], [name for name in names if name != ending[0]]
