"""Regions that nobody annotated in some cases, as a study says: checked, noted and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted, did_you_mean, listed
from voxelsoup.data.case import IndexedCase
from voxelsoup.study.sections.data import regions_not_annotated

KEY = "dataset.not_annotated"
# Name or pattern of a case -> regions.
Patterns = Mapping[str, Sequence[str]]
Regions = Mapping[str, Sequence[int]]


def check_patterns(patterns: Patterns, cases: Iterable[str], test_sets: Iterable[str] = ()) -> None:
    """Raise an InputError if a name or pattern fits no case: it would do nothing.

    ``cases`` are those of the data set; ``test_sets`` are folders with further ones.
    """
    names = list(cases)
    for pattern, regions in patterns.items():
        if any(regions_not_annotated({pattern: regions}, name) for name in names):
            continue
        if not any(_names_a_file(pattern, folder) for folder in test_sets):
            raise InputError(
                KEY,
                f"names `{pattern}`, which no case of the data set is called"
                + did_you_mean(pattern, names),
                f"the name of a case ({listed([*names[:2], '...'])}), or a shell pattern of names, "
                "of the data set or a test set",
                "correct it, or leave it out",
            )


def _names_a_file(pattern: str, folder: str) -> bool:
    """Whether a file or folder of a test set is called so, in front of an ending or a channel.

    How the test set is read is known only to the job that predicts it.
    """
    names = {path.name for path in Path(folder).rglob("*")}
    return any(fnmatchcase(name, pattern + end) for name in names for end in ("", "[._-]*"))


def with_not_annotated(
    cases: Sequence[IndexedCase], patterns: Patterns, regions: Regions
) -> list[IndexedCase]:
    """Usable cases with a note on the regions that nobody annotated in them.

    Raises:
        InputError: if a labelled case has no other region, or a region is annotated in no case.
    """
    labelled = [case for case in cases if case.label is not None]
    hidden = {case.name: regions_not_annotated(patterns, case.name) for case in labelled}
    empty = [name for name, of_case in hidden.items() if len(of_case) == len(regions)]
    if empty:
        raise InputError(
            KEY,
            f"leaves no region of {listed(empty[:3])}"
            + (f" and {len(empty) - 3} more" if len(empty) > 3 else ""),
            "at least one annotated region in every labelled case",
            "take the cases out of the data set, or the annotated region out of the list",
        )
    for region, names in annotated_cases(labelled, patterns, regions).items():
        if not names:
            raise InputError(
                KEY,
                f"says of region {region} that it is annotated in no case",
                "some cases to train and to score each region on",
                f"take {region} out of `regions`, or correct the list",
            )
    return [
        replace(case, notes=(*case.notes, *_notes(case, hidden.get(case.name, ()), regions)))
        for case in cases
    ]


def _notes(case: IndexedCase, hidden: Iterable[str], regions: Regions) -> list[str]:
    notes = []
    for region in (name for name in regions if name in set(hidden)):
        inner = [values for values in regions.values() if set(values) < set(regions[region])]
        own = set(regions[region]).difference(*inner) & set(case.labels)
        but = f", though its label map holds {listed(sorted(own))}" if own else ""
        notes.append(f"{region} is not annotated{but}")
    return notes


def annotated_cases(
    cases: Sequence[IndexedCase], patterns: Patterns, regions: Regions
) -> dict[str, list[str]]:
    """Region -> the labelled cases in which it is annotated, of regions that are not in all."""
    hidden = {
        case.name: regions_not_annotated(patterns, case.name)
        for case in cases
        if case.label is not None
    }
    annotated = {r: [name for name, of in hidden.items() if r not in of] for r in regions}
    return {region: names for region, names in annotated.items() if len(names) < len(hidden)}


def not_annotated_in_words(
    cases: Sequence[IndexedCase], patterns: Patterns, regions: Regions
) -> list[str]:
    """``ET in 4 of 24 cases``, a text per region that is not annotated in all labelled cases."""
    labelled = sum(case.label is not None for case in cases)
    return [
        f"{region} in {labelled - len(names)} of {counted(labelled, 'case')}"
        for region, names in annotated_cases(cases, patterns, regions).items()
    ]
