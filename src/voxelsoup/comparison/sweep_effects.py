"""What the swept settings do, and how much the seed alone does: tables of the sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from voxelsoup.comparison.findings import (
    Parameters,
    difference_by_patients,
    difference_of,
    trial_scores,
)
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import POINTS, in_a_sentence, protocol_mark
from voxelsoup.comparison.statistics import (
    SIGNIFICANT,
    Effect,
    SeedSpread,
    holm,
    marginal_effects,
    seed_spread,
)
from voxelsoup.comparison.tables import shown_difference, shown_p, write_table

SEED = "training.seed"
EFFECT_COLUMNS = ["key", "value", "trials", "mean", "pairs", "difference", "low", "high", "p"]
EFFECT_COLUMNS += ["p_holm", "protocol"]


def effects(comparisons: Sequence[FoldComparison], parameters: Parameters) -> list[Effect]:
    """What each value of each hyperparameter does; a seed is none and has a table of its own."""
    measure = partial(difference_by_patients, comparisons, 1 - SIGNIFICANT)
    found = marginal_effects(trial_scores(comparisons), parameters, measure)
    return [effect for effect in found if effect.key != SEED]


def write_effects(effects: Sequence[Effect], protocol: str, stem: Path, left_out: str = "") -> None:
    """Write what each value of each swept key does, beside the first value of the same key.

    ``left_out`` is a sentence about the trials that diverged.
    """
    adjusted = iter(holm([effect.difference.p_interval for effect in effects if effect.difference]))
    frame = pd.DataFrame(
        [
            {
                "key": effect.key,
                "value": json.dumps(effect.value),
                "trials": effect.trials,
                "mean": effect.mean,
                "pairs": effect.pairs,
                "difference": getattr(effect.difference, "mean", math.nan),
                "low": getattr(effect.difference, "low", math.nan),
                "high": getattr(effect.difference, "high", math.nan),
                "p": getattr(effect.difference, "p_interval", math.nan),
                "p_holm": next(adjusted) if effect.difference else math.nan,
                "protocol": protocol_mark(protocol),
            }
            for effect in effects
        ],
        columns=EFFECT_COLUMNS,
    ).set_index("key")
    shown = frame[["value", "trials", "pairs"]].astype(str)
    shown["value"] = [value_text(effect.value) for effect in effects]
    shown.insert(2, "mean Dice", [f"{mean:.4f}" for mean in frame["mean"]])
    shown["difference in Dice points [95 %]"] = [
        shown_difference(effect.difference) for effect in effects
    ]
    shown["p"], shown["p (Holm)"] = frame["p"].map(shown_p), frame["p_holm"].map(shown_p)
    caption = (
        "Marginal effects on the mean Dice on the test cases: each value of a swept key against "
        "the key's first value, over pairs of trials that agree in all other keys, paired by case. "
        "Interval: 95 %, patients resampled within their fold; p: the smallest level at which it "
        "leaves out 0; p (Holm): adjusted for all rows."
    )
    if not effects:
        caption = "No hyperparameter is swept."
    caption += f" {left_out}" if left_out else ""
    write_table(frame, shown, stem, caption, protocol == "published")


def value_text(value: object) -> str:
    """A swept value in its shortest form."""
    return value if isinstance(value, str) else json.dumps(value)


def seed_spreads(
    comparisons: Sequence[FoldComparison], parameters: Parameters
) -> dict[int | None, SeedSpread]:
    """Fold, or None for all -> how much the seed alone moves the mean test Dice.

    Empty where no setting runs under several seeds.
    """
    groups: dict[tuple[int, str], dict[int, float]] = {}
    for comparison in comparisons:
        for trial, values in parameters.items():
            # Halving keeps other trials in each fold.
            if SEED in values and trial in comparison.case_scores:
                rest = json.dumps({k: v for k, v in values.items() if k != SEED}, sort_keys=True)
                score = float(comparison.case_scores[trial].mean())
                groups.setdefault((comparison.fold, rest), {})[int(values[SEED])] = score
    scopes: list[int | None] = [None, *(comparison.fold for comparison in comparisons)]
    found = {}
    for scope in scopes:
        spread = seed_spread({k: v for k, v in groups.items() if scope in (None, k[0])})
        if spread is not None:
            found[scope] = spread
    return found


def write_seeds(
    spreads: Mapping[int | None, SeedSpread],
    comparisons: Sequence[FoldComparison],
    primary: tuple[str, str],
    stem: Path,
) -> None:
    """Write how large the seed's spread is beside the gain that the study is about.

    All folds first, then each; ``primary``: titles of the two models.
    """
    protocol = comparisons[0].protocol
    first, second = map(in_a_sentence, primary)
    rows = []
    for scope, spread in spreads.items():
        of_scope = [c for c in comparisons if scope in (None, c.fold)]
        rows.append(
            {
                "fold": "all" if scope is None else scope,
                "settings": spread.settings,
                "seeds": spread.seeds,
                "seed_deviation": spread.deviation,
                "seed_largest_range": spread.largest_range,
                "gain": difference_of(*primary, of_scope).mean,
                "protocol": protocol_mark(protocol),
            }
        )
    points = ["seed_deviation", "seed_largest_range", "gain"]
    columns = ["fold", "settings", "seeds", *points, "protocol"]
    frame = pd.DataFrame(rows, columns=columns).set_index("fold")
    shown = frame[["settings", "seeds"]].astype(str)
    for name in points:
        sign = "+" if name == "gain" else ""
        heading = f"{name.replace('_', ' ')} (Dice points)"
        shown[heading] = [f"{POINTS * value:{sign}.2f}" for value in frame[name]]
    caption = (
        f"How much the seed alone moves the mean Dice on the test cases, compared with the gain "
        f"of the {first} over the {second}. Seed deviation: standard "
        "deviation between the seeds of trials that agree in everything else, pooled over "
        "their settings."
        if rows
        else "No setting runs under several seeds."
    )
    write_table(frame, shown, stem, caption, protocol == "published")
