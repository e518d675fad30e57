"""An account of the cases for the report's first page: how many, and what became of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted, listed
from voxelsoup.data.case import IndexedCase

# More of a kind are only counted here: the tables have all.
LONGEST_LIST = 10


def account(
    cases: Sequence[IndexedCase],
    rejected: Mapping[str, InputError],
    not_annotated: Sequence[str] = (),
) -> str:
    """The cases in words, as reStructuredText: one sentence, and lists where something is noted.

    ``rejected``: case name -> why it was left out; ``cases``: those that are usable;
    ``not_annotated``: regions that are not annotated in all of these (``not_annotated_in_words``).
    """
    labelled = [case for case in cases if case.label is not None]
    patients = len({case.patient for case in labelled})
    text = f"{counted(len(labelled), 'labelled case')} of {counted(patients, 'patient')}"
    if len(labelled) < len(cases):
        text += f", and {counted(len(cases) - len(labelled), 'case')} for prediction only"
    if rejected:
        text += f"; {counted(len(rejected), 'case')} left out"
    if not_annotated:
        text += f". Not annotated, and neither trained nor scored there: {listed(not_annotated)}"
    reasons = {name: f"{problem.where}: {problem.found}" for name, problem in rejected.items()}
    notes = {case.name: "; ".join(case.notes) for case in labelled if case.notes}
    accepted = dict(line.split(": ", 1) for line in accepted_in_words(cases))
    return (
        f"{text[0].upper()}{text[1:]}.\n"
        + _list("Left out", reasons, "rejected.tsv")
        + _list("Accepted", accepted, "cases.tsv")
        + _list("Noted", notes, "cases.tsv")
    )


def accepted_in_words(cases: Sequence[IndexedCase]) -> list[str]:
    """What the study has accepted (``dataset.accept``), a line per finding with its cases."""
    found: dict[str, dict[str, list[str]]] = {}
    for case in cases:
        for finding, concerned in case.accepted.items():
            found.setdefault(finding, {})[case.name] = concerned
    lines = []
    for finding, of_cases in found.items():
        names = [f"{name} ({', '.join(what)})" for name, what in of_cases.items()]
        more = f" and {len(names) - LONGEST_LIST:,} more" if len(names) > LONGEST_LIST else ""
        which = ", ".join(names[:LONGEST_LIST]) + more
        lines.append(f"{finding} in {counted(len(names), 'case')}: {which}")
    return lines


def _list(title: str, entries: Mapping[str, str], table: str) -> str:
    if not entries:
        return ""
    shown = list(entries.items())[:LONGEST_LIST]
    lines = [f"- {_literal(name)}: {_literal(text)}" for name, text in shown]
    if len(shown) < len(entries):
        lines.append(f"- {len(entries) - len(shown):,} more, see ``{table}``")
    return f"\n{title}:\n\n" + "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    """Text in which no mark of reStructuredText means anything: names and values are as given."""
    return f"``{' '.join(text.replace('`', chr(39)).split())}``"
