"""Studies beside each other: their compared models pair by pair, as a table and as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.common_ground import Block, CommonGround
from voxelsoup.comparison.families import (
    ENDS,
    JudgedPair,
    judge,
    outcome,
    pair_rows,
    shown_level,
    shown_pairs,
)
from voxelsoup.comparison.names import in_a_sentence, protocol_mark
from voxelsoup.comparison.scored_study import ScoredModel, ScoredStudy
from voxelsoup.comparison.tables import shown_difference, shown_interval, shown_p

# What of each study is compared.
MODELS, SINGLES = "models that the studies are about", "best single models"
SIDES = ("first", "second")
WITHOUT, WITH = "without", "with"
POSTPROCESSED = "Dice after post-processing, difference [95 %]"


@dataclass(frozen=True)
class Family:
    """One kind of model of every study, compared pair by pair; corrected within the family.

    Attributes:
        kind: ``MODELS`` or ``SINGLES``.
        models: study -> its model of the kind.
        blocks: per-case scores, by study.
        postprocessed: the same after post-processing; empty where they cannot be compared.
        pairs: by mean Dice over the regions, in the order of the studies.
    """

    kind: str
    models: dict[str, ScoredModel]
    blocks: list[Block]
    postprocessed: list[Block]
    pairs: list[JudgedPair]

    def called(self, study: str) -> str:
        """``greedy soup of first``."""
        return self.models[study].called


def compare_studies(studies: Sequence[ScoredStudy], ground: CommonGround) -> list[Family]:
    """Compare the models that the studies are about, and their best single models.

    A model that several have is there once: an ensemble of configurations has the best single model
    of the best one.
    """
    both = [_family(kind, place, studies, ground) for place, kind in enumerate((MODELS, SINGLES))]
    return [family for family in both if family.pairs]


def _family(kind: str, place: int, studies: Sequence[ScoredStudy], ground: CommonGround) -> Family:
    models = {study.name: study.models[place] for study in studies}
    blocks = ground.blocks_of({name: one.rows for name, one in models.items()})
    after = (
        ground.blocks_of({name: one.after for name, one in models.items()})
        if ground.postprocessing
        else []
    )
    named = {study: one.called for study, one in models.items()}
    block = "combined fold" if ground.tested_in_others else "fold"
    once = {one.model.place: study for study, one in reversed(models.items())}
    different = [study for study in models if study in once.values()]
    pairs = judge(list(combinations(different, 2)), blocks, named, block)
    return Family(kind, models, blocks, after, pairs)


def comparison_frame(
    families: Sequence[Family], ground: CommonGround, protocol: str
) -> pd.DataFrame:
    """All comparisons with every digit: a row per pair, metric and region.

    Returns:
        ``compared`` (the kind of models), ``first`` and ``second`` (studies, with the configuration
        of each one's model), ``first_model`` and ``second_model``, ``first_configuration`` and
        ``second_configuration`` (empty in a study without any), ``postprocessing``, what
        ``pair_rows`` has, ``protocol``.
    """
    rows = []
    for family in families:
        for blocks, processed in ((family.blocks, WITHOUT), (family.postprocessed, WITH)):
            for row in pair_rows(
                family.pairs if blocks else [],
                blocks,
                ground.metrics,
                ground.regions,
                tested=processed == WITHOUT,
            ):
                kind = {"compared": family.kind, **_sides(family, row), "postprocessing": processed}
                numbers = {name: row[name] for name in row if name not in SIDES}
                rows.append({**kind, **numbers, "protocol": protocol_mark(protocol)})
    return pd.DataFrame(rows).set_index("compared")


def _sides(family: Family, row: Mapping[str, Any]) -> dict[str, str]:
    """Which models a row compares."""
    models = {side: family.models[str(row[side])] for side in SIDES}
    return {
        **{side: one.label for side, one in models.items()},
        **{f"{side}_model": one.model.title for side, one in models.items()},
        **{f"{side}_configuration": one.model.configuration for side, one in models.items()},
    }


def shown_comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """The table for readers: a row per pair of models and region, Dice first."""
    parts = []
    for _, of_kind in frame.groupby(level=0, sort=False):
        plain = of_kind[of_kind["postprocessing"] == WITHOUT]
        shown = shown_pairs(plain)
        dice = plain[plain["metric"] == "dice"]
        shown.insert(0, "models", [_models(row) for row in dice.to_dict("records")])
        after = of_kind[(of_kind["postprocessing"] == WITH) & (of_kind["metric"] == "dice")]
        if len(after):
            shown[POSTPROCESSED] = [
                shown_interval(*ends) for ends in zip(*(after[end] for end in ENDS), strict=True)
            ]
        parts.append(shown)
    return pd.concat(parts)


def _models(row: Mapping[Any, Any]) -> str:
    first, second = (in_a_sentence(str(row[f"{side}_model"])) for side in SIDES)
    return first if first == second else f"{first} – {second}"


def sentences_of(families: Sequence[Family]) -> list[str]:
    """What may be concluded of each pair, the models that the studies are about first."""
    found = [pair.sentence for family in families for pair in family.pairs]
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in found]


def caption_of(
    studies: Sequence[ScoredStudy], ground: CommonGround, families: Sequence[Family]
) -> str:
    """What the table is, what is corrected, and what is not compared."""
    moved = ground.tested_in_others
    within = "the folds that tested them in each study, combined" if moved else "their fold"
    text = (
        f"{listed(study.name for study in studies)} on {counted(len(ground.cases), 'test case')} "
        f"of {counted(len({ground.patients[c] for c in ground.cases}), 'patient')}: the first "
        "study minus the second, paired by case, without post-processing unless a column says so. "
        "Dice: mean over the cases. Interval: percentile bootstrap widened by Student's t, "
        "patients resampled within "
        f"{within}. The mean Dice over the regions is what is tested: "
        + _correction(families)
        + " All other intervals are 95 % intervals and not corrected. No interval: fewer than six "
        "patients differ."
    )
    if "nsd" in ground.metrics:
        text += f" Surface Dice: at {studies[0].study.metrics.surface_tolerance:g} mm."
    return text


def _correction(families: Sequence[Family]) -> str:
    singles = any(family.kind == SINGLES for family in families)
    if all(len(family.pairs) == 1 for family in families):
        best = ", and their best single models at 5 %" if singles else ""
        return (
            f"the models that the studies are about at 5 %{best}; "
            "p is the smallest level at which the interval leaves out 0."
        )
    best = ", and apart from them for all pairs of the best single models" if singles else ""
    return (
        f"p (Holm) is adjusted for all pairs of the models that the studies are about{best}; "
        "the interval is that of the level that "
        "Holm's method tests a pair at, and leaves out 0 where p (Holm) is below 0.05."
    )


def notes_on_code(studies: Sequence[ScoredStudy]) -> list[str]:
    """Where scores were computed by different versions of the code, or by unknown ones."""
    known = {study.name: study.code for study in studies if study.code is not None}
    unknown = [study.name for study in studies if study.code is None]
    notes = []
    if unknown:
        notes.append(
            f"{listed(unknown)} {'was' if len(unknown) == 1 else 'were'} scored by a version of "
            "voxelsoup that did not write down its code: whether it measured alike is not known."
        )
    modules = sorted({name for code in known.values() for name in code})
    changed = [
        name.rpartition(".")[2]
        for name in modules
        if len({code.get(name) for code in known.values()}) > 1
    ]
    if changed:
        notes.append(
            f"{listed(known)} were scored by different versions of the code "
            f"({listed(changed)}): CHANGELOG.md says whether what they measure has changed."
        )
    return notes


def terminal_rows(families: Sequence[Family]) -> list[list[str]]:
    """A row per pair: models, difference, interval, p, and what is shown."""
    rows = []
    for family in families:
        for pair in family.pairs:
            both = f"{family.called(pair.first)} – {family.called(pair.second)}"
            level = shown_level(pair.difference.low, pair.level)
            shown = [shown_difference(pair.difference), level, shown_p(pair.p)]
            rows.append([both, *shown, outcome(pair.difference)])
    return rows


def facts_of(studies: Sequence[ScoredStudy]) -> dict[str, str]:
    """Study -> where its results lie and which models are compared."""
    return {study.name: f"{study.entry.results}: {_fact_of(study)}" for study in studies}


def _fact_of(study: ScoredStudy) -> str:
    about, best = study.models
    model = in_a_sentence(about.model.title)
    single = f"{in_a_sentence(best.model.title)} of each fold"
    if not study.entry.names:
        return f"{model}, which the study is about (comparison.primary), and {single}."
    by = ", the best of the study by its selection cases" if study.entry.chosen else ""
    if study.entry.is_ensemble:
        parts = listed(study.entry.names)
        single += f" of {best.model.configuration}, the best configuration alone"
        return f"{model} of the configurations {parts}{by}, and {single}."
    return (
        f"{model}, which its configuration {about.model.configuration} is about{by}, and {single}."
    )
