"""What label values mean: by a data set's description, by names of cases, or by the user's choice.

Where two meanings are possible, none is taken: regions are left open, with the choices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted, did_you_mean, listed
from voxelsoup.data.layouts.channel_names import clean_names
from voxelsoup.data.layouts.detect import BRATS_CHANNELS, Guess
from voxelsoup.planning.brats_labels import NUMBERINGS, UP_TO_2021, Numbering, Regions, fitting

# Rows of tables have these names.
NOT_REGIONS = ("avg", "loss", "mean")
# The choice of one region per label value.
PER_VALUE = "values"
NAMED = 3
# Names that say nothing: label_1, 2, class 3.
NUMBER = re.compile(r"((label|class|region|value|structure)[ _-]*)?[0-9]+", re.IGNORECASE)
ENHANCING = re.compile(r"(gd[ _-]?)?(enhanc|et\b|at\b)", re.IGNORECASE)
# A value without a name that this share of the cases hold, or one case alone, may be a slip.
RARE = 0.05

# Label value above 0 -> the cases that hold it.
Holders = Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class Meaning:
    """What the label values of a data set mean.

    Attributes:
        regions: region -> label values; empty where the meaning is open.
        reason: by what the meaning is known, or why it is not.
        choices: where it is open: key for ``--labels`` -> what the values would mean.
        order: region -> the value it writes into a label map, where regions do not say it.
        about_order: where the order is from.
        unnamed: label values that occur and nothing names -> the cases that hold them.
        notes: what else is to be known of the label values, in words.
    """

    regions: Regions
    reason: str
    choices: dict[str, Meaning] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    about_order: str = ""
    unnamed: Holders = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """What has to be known of the label values, those that nothing names first, in words."""
        unnamed = [
            f"label value {value}, which the data set's description does not name, in "
            f"{counted(len(cases), 'case')}: {_some(cases)}"
            for value, cases in self.unnamed.items()
        ]
        return [*unnamed, *self.notes]

    @property
    def comment(self) -> str:
        """The reason, and what is left to do, for a study file; a line per choice."""
        text = self.reason
        for note in self.notes:
            text += f" {note[0].upper()}{note[1:]}."
        if self.unnamed:
            values = sorted(self.unnamed)
            text += (
                f" No region has {listed(f'{v} (in {_some(self.unnamed[v])})' for v in values)}: "
                "nothing names it. Add it to a region, or declare it background "
                f"(dataset.background: {values}); until then its cases are refused."
            )
        if self.choices:
            text += " Put one of these in place of {}, or run init with --labels and its name:"
        for key, choice in self.choices.items():
            text += f"\n- {key}: {choice.reason}\n    regions: {_flow(choice.regions)}"
            if choice.order:
                text += f"\n    predict: {{label_order: {_flow(choice.order)}}}"
        return text


def meaning_of(
    guess: Guess, names: Sequence[str], holders: Holders, choice: str | None = None
) -> Meaning:
    """Find out what label values mean.

    Args:
        names: of the labelled cases.
        holders: label value above 0 -> the cases that hold it, as far as they were read.
        choice: the key of a numbering (``brats_labels``) or ``values``, which overrules all else.

    Raises:
        InputError: if there is no such choice.
    """
    if choice is not None:
        meaning = _chosen(choice, guess, holders)
    elif guess.labels.regions:
        clean = clean_names(guess.labels.regions, NOT_REGIONS)
        regions = dict(zip(clean, guess.labels.regions.values(), strict=True))
        # An order is one of all regions, or there is none.
        order = dict(zip(clean, guess.labels.order.values(), strict=False))
        about = "`regions_class_order` of dataset.json." if order else ""
        meaning = Meaning(regions, "The regions of dataset.json.", order=order, about_order=about)
    elif any(not NUMBER.fullmatch(name) for name in guess.labels.values.values()):
        meaning = _per_value(guess.labels.values, "named as in dataset.json")
        meaning = replace(meaning, notes=_contradictions(guess.labels.values, names))
    else:
        meaning = _by_names(guess, names, holders)
    if meaning.choices:
        return meaning
    covered = {value for labels in meaning.regions.values() for value in labels}
    unnamed = sorted(set(holders) - covered - {guess.labels.ignored})
    return replace(meaning, unnamed={value: holders[value] for value in unnamed})


def _by_names(guess: Guess, names: Sequence[str], holders: Holders) -> Meaning:
    channels = set(guess.dataset.channels)
    usual = [called for called in BRATS_CHANNELS if set(called) <= channels]
    found, named = fitting(names, holders)
    if not named and not usual:
        if guess.labels.values:
            return _per_value(guess.labels.values, "named as in dataset.json")
        meaning = _per_value(_numbered(holders), "the data do not name them")
        return replace(meaning, notes=_rare(holders, len(names)))
    old = usual and "flair" in channels
    if not named and old and 4 in holders and 3 not in holders:
        by = f"by the files' names ({', '.join(usual[0])}) and label 4 without 3."
        return _as_numbered(UP_TO_2021, holders, by)
    if named and len(found) == 1:
        return _as_numbered(found[0], holders, f"by the names of the cases, such as {names[0]}.")
    if not named:
        why = "no description names the label values, and the names of the cases are not BraTS's"
    elif any(all(map(n.names, names)) for n in found):
        why = f"names of cases such as {names[0]} do not say which of these data sets it is"
    else:
        why = "the names of the cases are those of data sets with different label values"
    choices = {n.key: _as_numbered(n, holders) for n in found}
    per_value = _per_value(_numbered(holders), "")
    choices[PER_VALUE] = replace(per_value, reason="one region per label value")
    seen = listed(sorted(holders))
    reason = (
        f"The meaning of the label values ({seen}) is open: {why}. The study is refused until it "
        "is chosen."
    )
    return Meaning({}, reason, choices)


def _contradictions(values: Mapping[int, str], names: Sequence[str]) -> tuple[str, ...]:
    """Where a description gives the enhancing tumour another value than BraTS, by case names."""
    found, named = fitting(names, values)
    theirs = {v for v, name in values.items() if ENHANCING.match(name)}
    if not named or len(theirs) != 1 or any([*theirs] == n.regions.get("ET") for n in found):
        return ()
    (value,) = theirs
    titles = listed(f"{n.title} it is {n.regions['ET'][0]}" for n in found if "ET" in n.regions)
    return (
        f"dataset.json, which is followed, calls {value} {values[value]}, and in {titles}, by the "
        f"names of the cases, such as {names[0]}",
    )


def _rare(holders: Holders, count: int) -> tuple[str, ...]:
    """Values without a name that hardly a case holds: they may be slips."""
    return tuple(
        f"label value {value} is in {counted(len(cases), 'case')} of {count} only "
        f"({_some(cases)}): if it is a slip, declare it background (dataset.background: [{value}]) "
        "or correct the label map"
        for value, cases in holders.items()
        if len(holders) > 1 and len(cases) <= max(1, count * RARE)
    )


def _chosen(choice: str, guess: Guess, holders: Holders) -> Meaning:
    if choice == PER_VALUE:
        return _per_value(_numbered(holders) | guess.labels.values, "as chosen")
    numbering = next((n for n in NUMBERINGS if n.key == choice), None)
    if numbering is None:
        keys = [*(n.key for n in NUMBERINGS), PER_VALUE]
        raise InputError(
            "--labels",
            f"is `{choice}`{did_you_mean(choice, keys)}",
            f"one of {', '.join(keys)}",
            "take one of these, or name the regions in the study file",
        )
    return _as_numbered(numbering, holders, "as chosen.")


def _as_numbered(numbering: Numbering, holders: Holders, why: str = "") -> Meaning:
    """The meaning by a numbering; as a choice where nothing says why it would be this one."""
    reason = f"{numbering.title} ({numbering.explain(holders)})"
    if why:
        reason += f", {why}"
        if "TC" in numbering.regions:
            reason += " Tumour core, whole tumour, enhancing tumour."
    alone = [f"{region} {numbering.meaning[v]}" for region, v in numbering.order.items()]
    about = "What a voxel of a region is written as that lies in no smaller one"
    return Meaning(
        numbering.regions_of(holders),
        reason,
        order=numbering.order,
        about_order=f"{about}: {listed(alone)}." if alone else "",
    )


def _numbered(holders: Holders) -> dict[int, str]:
    return {value: f"label_{value}" for value in sorted(holders)}


def _per_value(named: Mapping[int, str], origin: str) -> Meaning:
    ordered = dict(sorted(named.items()))
    names = clean_names(ordered.values(), NOT_REGIONS)
    regions = {name: [value] for name, value in zip(names, ordered, strict=True)}
    reason = f"One per label value, {origin}; regions may also overlap, such as whole: [1, 2]."
    return Meaning(regions, reason)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _flow(regions: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(regions), default_flow_style=True, sort_keys=False, width=10**9)
    return text.strip()
