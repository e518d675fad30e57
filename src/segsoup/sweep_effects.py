"""What the swept settings do, and how much the seed alone does: tables of the sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from segsoup.comparison import BEST_MODEL, FoldComparison, protocol_mark
from segsoup.findings import Parameters, difference_of, in_a_sentence, trial_scores
from segsoup.overview import published_columns
from segsoup.significance import Effect, SeedSpread, holm, marginal_effects, seed_spread
from segsoup.tables import POINTS, shown_difference, shown_p, write_table

SEED = "training.seed"
EFFECT_COLUMNS = ["key", "value", "trials", "mean", "pairs", "difference", "low", "high", "p"]
EFFECT_COLUMNS += ["p_holm", "protocol"]


def effects(comparisons: Sequence[FoldComparison], parameters: Parameters) -> list[Effect]:
    """What each value of each hyperparameter does; a seed is none and has a table of its own.

    Args:
        comparisons: the folds.
        parameters: trial id -> swept dotted key -> value.
    """
    found = marginal_effects(trial_scores(comparisons), parameters)
    return [effect for effect in found if effect.key != SEED]


def write_effects(effects: Sequence[Effect], protocol: str, stem: Path) -> None:
    """Write what each value of each swept key does, beside the first value of the same key."""
    adjusted = iter(holm([effect.difference.p for effect in effects if effect.difference]))
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
                "p": getattr(effect.difference, "p", math.nan),
                "p_holm": next(adjusted) if effect.difference else math.nan,
                "protocol": protocol_mark(protocol),
            }
            for effect in effects
        ],
        columns=EFFECT_COLUMNS,
    ).set_index("key")
    shown = frame[["value", "trials", "pairs"]].astype(str)
    shown.insert(2, "mean Dice", [f"{mean:.4f}" for mean in frame["mean"]])
    shown["difference in Dice points [95 %]"] = [
        shown_difference(effect.difference) for effect in effects
    ]
    shown["p"], shown["p holm"] = frame["p"].map(shown_p), frame["p_holm"].map(shown_p)
    caption = (
        "Marginal effects on the mean Dice on the test cases: each value of a swept key beside "
        "its first one, over pairs of trials that agree in all other keys, paired over the cases. "
        "p holm: adjusted for all rows."
    )
    if not effects:
        caption = "Nothing is swept."
    write_table(frame, shown, stem, caption, protocol == "published")


def seed_spreads(
    comparisons: Sequence[FoldComparison], parameters: Parameters
) -> dict[int, SeedSpread]:
    """Fold -> how much the seed alone moves the mean test Dice; empty where no seed is swept."""
    found = {}
    for comparison in comparisons:
        groups: dict[tuple[str, ...], dict[int, float]] = {}
        for trial, values in parameters.items():
            if SEED in values:
                rest = json.dumps({k: v for k, v in values.items() if k != SEED}, sort_keys=True)
                scores = comparison.case_scores[trial]
                groups.setdefault((rest,), {})[int(values[SEED])] = float(scores.mean())
        spread = seed_spread(groups)
        if spread is not None:
            found[comparison.fold] = spread
    return found


def write_seeds(
    spreads: Mapping[int, SeedSpread], comparisons: Sequence[FoldComparison], stem: Path
) -> None:
    """Write how large the seed's spread is beside the gain of the soup, per fold."""
    protocol = comparisons[0].protocol
    soup = list(published_columns(comparisons[0]))[-1]
    rows = []
    for comparison in comparisons:
        if comparison.fold not in spreads:
            continue
        spread = spreads[comparison.fold]
        rows.append(
            {
                "fold": comparison.fold,
                "settings": spread.settings,
                "seeds": spread.seeds,
                "seed_deviation": spread.deviation,
                "seed_largest_range": spread.largest_range,
                "gain": difference_of(soup, BEST_MODEL, [comparison]).mean,
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
        f"How much the seed alone moves the mean Dice on the test cases, beside the gain of the "
        f"{in_a_sentence(soup)} over the best single model. seed deviation: standard deviation "
        "over the seeds of trials that agree in all else, pooled over their settings."
        if rows
        else "No trial runs under several seeds."
    )
    write_table(frame, shown, stem, caption, protocol == "published")
