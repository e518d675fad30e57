"""One scan under two names, which would stand in training and test cases at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from segsoup.cases.case import Case
from segsoup.errors import InputError


def find_duplicates(
    cases: Iterable[Case], voxels: Mapping[str, Mapping[str, str]]
) -> dict[str, InputError]:
    """Cases that hold a scan of another case, all but the first of them by name.

    A labelled case stands before an unlabelled one, so that a copy without labels never takes the
    place of the case to train on.

    Args:
        cases: the usable cases.
        voxels: case name -> channel name -> hash of its voxels.

    Returns:
        Case name -> what is wrong with it.
    """
    first: dict[str, tuple[str, str]] = {}
    problems: dict[str, InputError] = {}
    for case in sorted(cases, key=lambda case: (case.label is None, case.name)):
        own = voxels[case.name]
        known = {channel: first[digest] for channel, digest in own.items() if digest in first}
        if known:
            problems[case.name] = _problem(case, known)
        else:
            first |= {digest: (case.name, channel) for channel, digest in own.items()}
    return dict(sorted(problems.items()))


def _problem(case: Case, known: Mapping[str, tuple[str, str]]) -> InputError:
    """What is wrong with a case whose ``known`` channels are (case, channel) of earlier ones."""
    channel, (other, theirs) = next(iter(known.items()))
    more = len(known) - 1
    also = f" (and {more} more channel{'s' if more > 1 else ''} like it)" if more else ""
    found = (
        f"holds the same {channel} as {other}"
        if channel == theirs
        else f"holds as {channel} the voxels that {other} holds as {theirs}"
    )
    return InputError(
        case.channels[channel].file,
        found + also,
        "every scan once: under two names it would stand in training and test cases at once",
        f"remove {case.name} or {other}, or put the right scan in its place",
    )
