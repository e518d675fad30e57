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
from voxelsoup.comparison.names import BEST_MODEL, in_a_sentence, protocol_mark
from voxelsoup.comparison.scored_study import ScoredStudy
from voxelsoup.comparison.tables import shown_difference, shown_interval, shown_p

# What of each study is compared.
MODELS, SINGLES = "models that the studies are about", "best single models"
WITHOUT, WITH = "without", "with"
POSTPROCESSED = "Dice after post-processing, difference [95 %]"


@dataclass(frozen=True)
class Family:
    """One kind of model of every study, compared pair by pair; corrected within the family.

    Attributes:
        kind: ``MODELS`` or ``SINGLES``.
        models: study -> what its model is called (``Greedy Soup``).
        blocks: per-case scores, by study.
        postprocessed: the same after post-processing; empty where they cannot be compared.
        pairs: by mean Dice over the regions, in the order of the studies.
    """

    kind: str
    models: dict[str, str]
    blocks: list[Block]
    postprocessed: list[Block]
    pairs: list[JudgedPair]

    def called(self, study: str) -> str:
        """``greedy soup of first``."""
        return f"{in_a_sentence(self.models[study])} of {study}"


def compare_studies(studies: Sequence[ScoredStudy], ground: CommonGround) -> list[Family]:
    """Compare the models that the studies are about, and their best single models."""
    return [_family(kind, place, studies, ground) for place, kind in enumerate((MODELS, SINGLES))]


def _family(kind: str, place: int, studies: Sequence[ScoredStudy], ground: CommonGround) -> Family:
    models = {study.name: study.titles[place] for study in studies}
    blocks = ground.blocks_of({s.name: s.rows[models[s.name]] for s in studies})
    after = (
        ground.blocks_of({s.name: s.postprocessed[models[s.name]] for s in studies})
        if ground.postprocessing
        else []
    )
    named = {study: f"{in_a_sentence(title)} of {study}" for study, title in models.items()}
    block = "combined fold" if ground.tested_in_others else "fold"
    pairs = judge(list(combinations(models, 2)), blocks, named, block)
    return Family(kind, models, blocks, after, pairs)


def comparison_frame(
    families: Sequence[Family], ground: CommonGround, protocol: str
) -> pd.DataFrame:
    """All comparisons with every digit: a row per pair, metric and region.

    Returns:
        ``compared`` (the kind of models), ``first`` and ``second`` (studies), ``first_model`` and
        ``second_model``, ``postprocessing``, what ``pair_rows`` has, ``protocol``.
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
                pair = {"compared": family.kind, "first": row["first"], "second": row["second"]}
                models = {
                    f"{side}_model": family.models[str(row[side])] for side in ("first", "second")
                }
                kind = {**pair, **models, "postprocessing": processed}
                rows.append({**kind, **row, "protocol": protocol_mark(protocol)})
    return pd.DataFrame(rows).set_index("compared")


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
    first, second = (in_a_sentence(str(row[f"{side}_model"])) for side in ("first", "second"))
    return first if first == second else f"{first} – {second}"


def sentences_of(families: Sequence[Family]) -> list[str]:
    """What may be concluded of each pair, the models that the studies are about first."""
    found = [pair.sentence for family in families for pair in family.pairs]
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in found]


def caption_of(studies: Sequence[ScoredStudy], ground: CommonGround) -> str:
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
        + _correction(len(studies))
        + " All other intervals are 95 % intervals and not corrected. No interval: fewer than six "
        "patients differ."
    )
    if "nsd" in ground.metrics:
        text += f" Surface Dice: at {studies[0].study.metrics.surface_tolerance:g} mm."
    return text


def _correction(studies: int) -> str:
    if studies == 2:
        return (
            "the models that the studies are about at 5 %, and their best single models at 5 %; "
            "p is the smallest level at which the interval leaves out 0."
        )
    return (
        "p (Holm) is adjusted for all pairs of the models that the studies are about, and apart "
        "from them for all pairs of the best single models; the interval is that of the level that "
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
    return {
        study.name: f"{study.results}: {in_a_sentence(study.titles[0])}, which the study is about "
        f"(comparison.primary), and {in_a_sentence(BEST_MODEL)} of each fold."
        for study in studies
    }
