"""The methods of a study as a paper reports them, written from the study itself.

The words stand in ``templates/methods.md.j2``, what they are filled with here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from voxelsoup.common import text
from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.common.provenance import FORMER_NAME, NAME
from voxelsoup.comparison.names import in_a_sentence, primary_titles, soup_title
from voxelsoup.report.methods.words import CITED_VALUES, Citations, setting_name, value_name
from voxelsoup.study.halving import rung_epochs, share_of_epochs, trials_at_rungs
from voxelsoup.study.ingredients import ingredients_of, note_on_given
from voxelsoup.study.study import Study
from voxelsoup.study.sweepable import SEED
from voxelsoup.study.trials import blocks, swept_keys
from voxelsoup.study.trials import trials as trials_of
from voxelsoup.training.run import stem_optimizer

Cite = Callable[[str], str]
# More single combinations than these are counted instead of listed.
LISTED_COMBINATIONS = 6


@dataclass(frozen=True)
class FoldSize:
    """Cases of one fold."""

    training: int
    selection: int
    test: int


@dataclass(frozen=True)
class StudyFacts:
    """What the study alone does not say.

    Attributes:
        folds: number of the fold -> how many cases it has of each kind.
        parameter_count: trained weights of the network.
        not_annotated: regions that are not annotated in all cases, in words.
        diverged: a sentence about the runs that diverged; empty if none did.
        models: models of trials that were trained to their end; None if none diverged.
        answer: what the primary comparison concludes; empty if it is not known.
        plug_ins: what the study uses of other packages, in words.
    """

    cases: int
    patients: int
    folds: Mapping[int, FoldSize]
    parameter_count: int | None = None
    devices: Sequence[str] = ()
    sources: Sequence[str] = ()
    not_annotated: Sequence[str] = ()
    diverged: str = ""
    models: int | None = None
    answer: str = ""
    plug_ins: Sequence[str] = ()


@dataclass(frozen=True)
class Methods:
    """A methods section.

    Attributes:
        parts: heading -> text, in their order.
        references: the papers that the texts cite by their numbers, from 1.
    """

    parts: dict[str, str]
    references: list[str] = field(default_factory=list)

    @property
    def paragraph(self) -> str:
        """All of it as one paragraph."""
        return " ".join(self.parts.values())


@pass_context
def _value(context: Context, given: Any, key: str) -> str:
    """A value of a setting; a value with a paper of its own is cited."""
    name = value_name(key, given)
    return f"{name} {context['cite'](given)}".rstrip() if given in CITED_VALUES else name


@pass_context
def _settings(context: Context, values: Mapping[str, Any]) -> list[str]:
    return [f"{setting_name(key)} {_value(context, given, key)}" for key, given in values.items()]


@pass_context
def _rows(context: Context, together: Mapping[str, Sequence[Any]]) -> list[str]:
    """The points of an axis that moves several keys."""
    points = zip(*together.values(), strict=True)
    return [" with ".join(map(partial(_value, context), point, together)) for point in points]


TEMPLATES = Environment(
    loader=PackageLoader("voxelsoup.report.methods"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    **{name: getattr(text, name) for name in ("counted", "counted_range", "listed", "magnitude")},
    **{name: getattr(text, name) for name in ("percent", "plain", "times")},
    "setting": setting_name,
    "model": lambda recipe: in_a_sentence(soup_title(recipe)),
    "value": _value,
    "settings": _settings,
    "rows": _rows,
    "lines": lambda block: list(filter(None, map(str.strip, block.splitlines()))),
    "in_brackets": lambda inside: f"({inside})" if inside else "",
}


def methods(study: Study, versions: Mapping[str, str], facts: StudyFacts) -> Methods:
    """Report how a study was done, for a paper; ``versions`` are those that the runs recorded."""
    cite = Citations()
    # Runs that were trained before the project was renamed have recorded its former name.
    versions = {NAME: versions.get(FORMER_NAME, "unknown"), **versions}
    values = _values(study, facts, cite)
    page = TEMPLATES.get_template("methods.md.j2")
    written = page.render(values, versions=versions, facts=facts)
    parts = re.findall(r"^# (.+?)\n(.+?)(?=^# |\Z)", written, re.MULTILINE | re.DOTALL)
    return Methods({heading: _flowing(part) for heading, part in parts}, cite.references)


def trials_sentence(study: Study, facts: StudyFacts) -> str:
    """Report which trials there are and how many models they make, without citations."""
    page = TEMPLATES.get_template("trials.md.j2")
    return _flowing(page.render(_values(study, facts, lambda work: "")))


def _values(study: Study, facts: StudyFacts, cite: Cite) -> dict[str, Any]:
    """What both templates are filled with."""
    trials, halving, folds = trials_of(study), study.sweep.halving, len(facts.folds)
    values = {
        "study": study,
        "network_of_package": is_plug_in("networks", study.network.name),
        "cite": cite,
        "trials": trials,
        "swept": swept_keys(trials),
        "blocks": [block for _, block in blocks(study)],
        "own_settings": {k: v for k, v in trials[0].parameters.items() if k != SEED},
        "most_listed": LISTED_COMBINATIONS,
        "models": len(trials) * folds,
        "rungs": [],
        "candidates": sum(len(ingredients_of(trial)) for trial in trials),
        "stem_optimizer": stem_optimizer(study),
        "primary": [in_a_sentence(title) for title in primary_titles(study.primary)],
        "note_on_given": note_on_given(study),
        "tools": list(study.comparison.other_tools),
    }
    if halving is not None:
        ends = rung_epochs(halving, study.training.epochs)
        left = trials_at_rungs(halving, len(trials))
        values |= {
            "rungs": [{"epoch": e, "trials": n} for e, n in zip(ends, left, strict=True)],
            "models": left[-1] * folds,
            "share_of_epochs": share_of_epochs(halving, study.training.epochs, len(trials)),
        }
    if facts.models is not None:
        values["models"] = facts.models
    return values | {"diverged": facts.diverged}


def _flowing(written: str) -> str:
    """The text without the line breaks of its template, which are spaces."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"\s*\n\s*(?=[,.;:])", "", written)).strip()
