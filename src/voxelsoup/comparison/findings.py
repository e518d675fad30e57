"""What a study may conclude: the comparisons that it makes by default, with their uncertainty.

One of them is the primary question, which is tested by itself. All others over the same folds are
secondary: corrected for each other by Holm's method, their intervals are those of the level that it
tests them at, so that interval and decision agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxelsoup.comparison.conclusions import conclusion, confidence
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import (
    BEST_MODEL,
    BEST_SINGLE,
    ENSEMBLE,
    FINISHED,
    FINISHED_BEST,
    LONG_RUN,
    in_a_sentence,
    protocol_mark,
)
from voxelsoup.comparison.overview import COST
from voxelsoup.comparison.statistics import (
    SIGNIFICANT,
    Difference,
    effects_of,
    holm,
    holm_levels,
    model_difference,
)
from voxelsoup.comparison.tables import UNKNOWN, shown_difference, shown_p, write_table

# Trial id -> swept dotted key -> value.
Parameters = Mapping[str, Mapping[str, Any]]
SCHEDULE = "optimizer.schedule"
SCHEDULE_FREE = "schedule-free"
RECIPE_QUESTION = "Is the recipe better than the best single model?"
FINISH_QUESTION = "Is it the soup that gains, or the finish alone?"
LONG_RUN_QUESTION = "Is the model better than one long run?"
ENSEMBLE_QUESTION = "Is the ensemble better than the soup that replaces it?"
SCHEDULE_QUESTION = "Is the schedule-free optimizer better than a scheduled one?"
OTHER_QUESTION = "Is the first model better than the second?"
PRIMARY, SECONDARY, ALL_FOLDS = "primary", "secondary", "all"
DIFFERENCE = "difference in Dice points [interval]"


@dataclass(frozen=True)
class Finding:
    """One comparison of mean Dice on the test cases.

    Attributes:
        first, second: names of the two sides; the difference is first minus second.
        fold: number of the fold, or None for all folds together.
        primary: whether it is the question of the study; all others are secondary.
        difference: with the interval of the level.
        level: that it is tested at: 0.05, or what Holm's procedure leaves it.
        p: smallest level at which the interval leaves out 0; of a secondary comparison, adjusted
            by Holm over the others of the same folds.
        cost: networks that run for one prediction, on either side.
    """

    question: str
    first: str
    second: str
    fold: int | None
    primary: bool
    difference: Difference
    level: float
    p: float
    cost: str
    sentence: str


@dataclass(frozen=True)
class _Comparison:
    question: str
    first: str
    second: str
    # Both over some of the folds; the difference is first minus second, with an interval of a
    # confidence.
    cost: Callable[[Sequence[FoldComparison]], str]
    difference: Callable[[Sequence[FoldComparison], float], Difference]


def find(
    comparisons: Sequence[FoldComparison], parameters: Parameters, primary: tuple[str, str]
) -> list[Finding]:
    """Make all comparisons: over all folds first, of which the primary one is first, then per fold.

    ``primary``: titles of the two models that the study is about.
    """
    plan = [*_of_models(comparisons, primary), *_of_schedules(comparisons, parameters)]
    single = [c for c in comparisons if len(comparisons) > 1]
    return _judge(plan, None, comparisons) + [
        finding for c in single for finding in _judge(plan, c.fold, [c])
    ]


def _judge(
    plan: Sequence[_Comparison], fold: int | None, comparisons: Sequence[FoldComparison]
) -> list[Finding]:
    """The comparisons over some folds; those of one of several folds are all secondary."""
    usual = [c.difference(comparisons, 1 - SIGNIFICANT) for c in plan]
    alone = 1 if fold is None else 0
    p_values = [difference.p_interval for difference in usual]
    levels = [SIGNIFICANT] * alone + holm_levels(p_values[alone:])
    adjusted = p_values[:alone] + holm(p_values[alone:])
    findings = []
    for place, (c, level, p) in enumerate(zip(plan, levels, adjusted, strict=True)):
        at_95 = usual[place]
        difference = at_95 if level == SIGNIFICANT else c.difference(comparisons, 1 - level)
        findings.append(
            Finding(
                c.question,
                c.first,
                c.second,
                fold,
                place < alone,
                difference,
                level,
                p,
                c.cost(comparisons),
                conclusion(c.first, c.second, difference, p, level, at_95),
            )
        )
    return findings


def _of_models(
    comparisons: Sequence[FoldComparison], primary: tuple[str, str]
) -> list[_Comparison]:
    """The primary comparison, and those of the study's models with what they have to beat."""
    soups = [title for title in comparisons[0].rows if title != BEST_MODEL]
    asked = [(soup, BEST_MODEL) for soup in soups]
    questions = dict.fromkeys(asked, RECIPE_QUESTION)
    for control, question in ((FINISHED_BEST, FINISH_QUESTION), (LONG_RUN, LONG_RUN_QUESTION)):
        if control in soups:
            models = [title for title in (primary[0], FINISHED) if title in soups]
            questions |= {(title, control): question for title in models if title != control}
    if ENSEMBLE in soups:
        # What an ensemble has to beat to be worth its cost.
        no_rivals = (ENSEMBLE, BEST_SINGLE, FINISHED_BEST, LONG_RUN)
        rivals = [soup for soup in soups if soup not in no_rivals]
        questions |= {(ENSEMBLE, soup): ENSEMBLE_QUESTION for soup in rivals}
    # Two models are compared once, whichever of them is first.
    own = questions.get(primary) or questions.get(primary[::-1], OTHER_QUESTION)
    others = {pair: question for pair, question in questions.items() if {*pair} != {*primary}}
    return [
        _Comparison(
            question,
            in_a_sentence(first),
            in_a_sentence(second),
            partial(_costs, first, second),
            partial(difference_of, first, second),
        )
        for (first, second), question in {primary: own, **others}.items()
    ]


def difference_of(
    first: str,
    second: str,
    comparisons: Sequence[FoldComparison],
    confidence: float = 1 - SIGNIFICANT,
) -> Difference:
    """The difference in mean Dice of two of the compared models, first minus second."""
    folds = {c.fold: scores_of_model(c, first) - scores_of_model(c, second) for c in comparisons}
    arrays = {fold: np.asarray(scores, dtype=np.float64) for fold, scores in folds.items()}
    return difference_by_patients(comparisons, confidence, arrays)


def difference_by_patients(
    comparisons: Sequence[FoldComparison],
    confidence: float,
    folds: Mapping[int, NDArray[np.float64]],
) -> Difference:
    """A difference of those of all test cases of some folds, in the order of ``case_scores``."""
    of_fold = {c.fold: c for c in comparisons}
    patients = [
        of_fold[fold].patients_of(of_fold[fold].case_scores[of_fold[fold].best_trial].index)
        for fold in folds
    ]
    return model_difference(list(folds.values()), confidence, patients)


def scores_of_model(comparison: FoldComparison, title: str) -> pd.Series:
    """Test case -> mean Dice of one of the compared models."""
    name = comparison.best_trial if title == BEST_MODEL else title
    return comparison.case_scores[name]


def _costs(first: str, second: str, comparisons: Sequence[FoldComparison]) -> str:
    return f"{_cost(comparisons, first)} against {_cost(comparisons, second)}"


def _cost(comparisons: Sequence[FoldComparison], title: str) -> str:
    counts = [c.models_per_prediction[title] for c in comparisons]
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _of_schedules(
    comparisons: Sequence[FoldComparison], parameters: Parameters
) -> list[_Comparison]:
    """Schedule-free against each other schedule of the sweep, over trials alike in the rest."""
    schedules = [str(values[SCHEDULE]) for values in parameters.values() if SCHEDULE in values]
    if SCHEDULE_FREE not in schedules:
        return []
    return [
        _Comparison(
            SCHEDULE_QUESTION,
            SCHEDULE_FREE,
            schedule,
            lambda comparisons: "1 against 1",
            partial(_difference_of_schedules, schedule, parameters),
        )
        for schedule in dict.fromkeys(schedules)
        if schedule != SCHEDULE_FREE
    ]


def _difference_of_schedules(
    schedule: str,
    parameters: Parameters,
    comparisons: Sequence[FoldComparison],
    confidence: float,
) -> Difference:
    measure = partial(difference_by_patients, comparisons, confidence)
    effects = effects_of(SCHEDULE, schedule, trial_scores(comparisons), parameters, measure)
    (effect,) = [effect for effect in effects if effect.value == SCHEDULE_FREE]
    # No two trials alike in the rest: nothing to compare.
    return effect.difference or model_difference([])


def trial_scores(
    comparisons: Sequence[FoldComparison],
) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Fold -> trial -> case scores, the cases in one order; each trial's own model alone."""
    return {
        c.fold: {trial: c.case_scores[trial].to_numpy() for trial in c.trials if "/" not in trial}
        for c in comparisons
    }


def write_findings(findings: Sequence[Finding], protocol: str, stem: Path) -> None:
    """Write all comparisons as a table: a row each, over all folds first."""
    frame = pd.DataFrame(
        [
            {
                "question": finding.question,
                "role": PRIMARY if finding.primary else SECONDARY,
                "first": finding.first,
                "second": finding.second,
                "folds": ALL_FOLDS if finding.fold is None else str(finding.fold),
                "cases": finding.difference.cases,
                "patients": finding.difference.patients,
                "unequal": finding.difference.unequal,
                "difference": finding.difference.mean,
                "low": finding.difference.low,
                "high": finding.difference.high,
                "level": finding.level,
                "p": finding.difference.p_interval,
                "p_holm": finding.p,
                "p_signed_rank": finding.difference.p,
                COST: finding.cost,
                "conclusion": finding.sentence,
                "protocol": protocol_mark(protocol),
            }
            for finding in findings
        ]
    ).set_index("question")
    shown = frame[["role", "first", "second", "folds", "cases"]].astype(str)
    shown[DIFFERENCE] = [shown_difference(f.difference) for f in findings]
    shown["interval"] = [shown_level(finding) for finding in findings]
    for name, title in {"p": "p", "p_holm": "p (Holm)", "p_signed_rank": "p (signed rank)"}.items():
        shown[title] = [shown_p(value) for value in frame[name]]
    shown[COST.replace("_", " ")] = frame[COST]
    shown["conclusion"] = frame["conclusion"]
    caption = (
        "Differences in mean Dice over the regions, first minus second, paired by test case. "
        "Interval: percentile bootstrap widened by Student's t, patients resampled within their "
        "fold; p: the smallest level at "
        "which it leaves out 0. The primary comparison is tested by itself at 5 %. The others are "
        "secondary: p (Holm) is adjusted for those over the same folds, and the interval is that "
        "of the level that Holm's method tests a comparison at, so that it leaves out 0 where p "
        "(Holm) is below 0.05. p (signed rank), of the two-sided Wilcoxon test with patients "
        "ranked within their fold, decides nothing. No interval: fewer than six patients differ. "
        "Models per prediction: first against second."
    )
    write_table(frame, shown.astype(str), stem, caption, protocol == "published")


def shown_level(finding: Finding) -> str:
    """``95 %``, or a wider interval's; nothing where there is none."""
    missing = math.isnan(finding.difference.low)
    return UNKNOWN if missing else confidence(finding.level).removesuffix(" interval")


def read_findings(path: Path) -> list[Finding]:
    """Read the comparisons back that `write_findings` wrote, bit by bit.

    Empty if a version of voxelsoup wrote them that knew no primary question.
    """
    text = dict.fromkeys(("first", "second", "folds", COST, "conclusion", "protocol"), str)
    frame = pd.read_csv(path, dtype=text, float_precision="round_trip", keep_default_na=False)
    folds = max(1, len({*frame["folds"]} - {ALL_FOLDS}))
    return [_read(row, folds) for row in frame.to_dict("records")] if "role" in frame else []


def primary_answer(path: Path) -> str:
    """What the primary comparison of a comparisons.csv concludes, without a full stop.

    Empty if it has none (`read_findings`).
    """
    return next((finding.sentence for finding in read_findings(path) if finding.primary), "")


def _read(row: Mapping[Any, Any], folds: int) -> Finding:
    numbers = {name: float(row[name]) for name in ("difference", "low", "high", "level", "p")}
    counts = {name: int(row[name]) for name in ("cases", "patients", "unequal")}
    return Finding(
        question=row["question"],
        first=row["first"],
        second=row["second"],
        fold=None if row["folds"] == ALL_FOLDS else int(row["folds"]),
        primary=row["role"] == PRIMARY,
        difference=Difference(
            mean=numbers["difference"],
            low=numbers["low"],
            high=numbers["high"],
            p=float(row["p_signed_rank"]),
            p_interval=numbers["p"],
            folds=folds if row["folds"] == ALL_FOLDS else 1,
            **counts,
        ),
        level=numbers["level"],
        p=float(row["p_holm"]),
        cost=row[COST],
        sentence=row["conclusion"],
    )
