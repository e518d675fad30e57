"""Barriers between the models of every fold, in tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from voxelsoup.common.files import read_json
from voxelsoup.comparison.names import protocol_mark
from voxelsoup.comparison.tables import write_table
from voxelsoup.soups.barriers import Line, lines_of, others

# What an average has to gain for it to be worth a word: less is lost in the noise of the cases.
LEAST_LIFT = 0.001


@dataclass(frozen=True)
class Basin:
    """What a fold's files say.

    Attributes:
        record: content of its ``basin.json``.
        greedy: number of models in its greedy soup; None if the study makes none.
    """

    record: Mapping[str, Any]
    greedy: int | None

    @property
    def finding(self) -> str:
        """Whether the models share a basin, and why greedy kept one where it did."""
        record = self.record
        text = f"Fold {record['fold']}: {record['sentence']}"
        if record["lines"] and self.greedy == 1:
            text += f" {why_one(lines_of(record), record['best_score'], record['averaged'])}"
        return text


def why_one(lines: Sequence[Line], best_score: float, averaged: bool) -> str:
    """Why a greedy soup holds the best model alone.

    An average of two scores the mean of theirs and the lift. It beats the best model only if the
    lift is more than half of what the other one lacks to it.

    Args:
        lines: from the best model to each other one.
        best_score: the best model's mean Dice on all selection cases.
        averaged: whether all models are averages of their own run already (schedule-free).
    """
    kept = "Greedy kept the best model alone"
    near = [line for line in lines if line.shared]
    if not lines:
        return f"{kept}: there is no other."
    if not near:
        return f"{kept}: a barrier separates it from the {others(lines)}."
    highest = max(line.lift for line in near)
    if highest < LEAST_LIFT:
        text = f"{kept}: averaging gains nothing for any pair ({highest:+.4f} Dice at most)."
        if averaged:
            text += (
                " These models are averages of their own runs already: take `soup.weights: "
                "[raw]`, or checkpoints of a scheduled optimizer."
            )
        return text
    partner = max(near, key=lambda line: line.lift - (best_score - line.score) / 2)
    gap = best_score - partner.score
    pair = f"averaging it with {partner.trial} raises their mean Dice by {partner.lift:.4f}"
    if partner.lift <= gap / 2:
        return (
            f"{kept}: {pair}, but it is {gap:.4f} above that model, and so {gap / 2:.4f} "
            "above their mean. The others are not good enough: sweep closer to the best."
        )
    return (
        f"{kept}: {pair} on the few cases of the barrier, and {gap / 2:.4f} would be enough, "
        "but the gain does not hold on all selection cases."
    )


def read_basins(results: Path, folds: Sequence[int], recipes: Sequence[str]) -> list[Basin]:
    """The basins of a study's folds, from the files of its results folder.

    Args:
        results: the results folder.
        folds: numbers of the folds.
        recipes: recipes of the study's soups.
    """
    found = []
    for fold in folds:
        folder, greedy = results / f"fold{fold}", None
        if "greedy" in recipes:
            recipe = read_json(folder / "soups" / "greedy" / "recipe.json")
            greedy = len(recipe["ingredients"])
        found.append(Basin(read_json(folder / "basin.json"), greedy))
    return found


def table(basins: Sequence[Basin]) -> pd.DataFrame:
    """One row per fold and model, the best one first.

    Returns:
        Index ``fold``; columns ``model``, ``distance`` to the best model (share of its norm),
        ``barrier`` (loss) and ``lift`` (Dice) on the line to it, ``selection_score`` (Dice), and
        ``protocol``.
    """
    rows = []
    for record in (basin.record for basin in basins):
        models = [None, *lines_of(record)]
        for name, distance, line in zip(
            record["models"], record["distances"][0], models, strict=True
        ):
            rows.append(
                {
                    "fold": record["fold"],
                    "model": name,
                    "distance": math.nan if distance is None else distance,
                    "barrier": line.barrier if line else math.nan,
                    "lift": line.lift if line else math.nan,
                    "selection_score": line.score if line else record["best_score"],
                    "protocol": protocol_mark(record["protocol"]),
                }
            )
    return pd.DataFrame(rows).set_index("fold")


def write_basins(basins: Sequence[Basin], stem: Path) -> None:
    """Write the table of all folds as ``stem``.csv (every digit), .md and .html, with the verdicts.

    Args:
        basins: of all folds.
        stem: path of the tables without their endings.
    """
    frame = table(basins)
    shown = frame.astype({"model": str})
    for name in ("distance", "barrier", "lift", "selection_score"):
        sign = "+" if name == "lift" else ""
        shown[name] = [_rounded(value, sign) for value in frame[name]]
    protocols = {basin.record["protocol"] for basin in basins}
    caption = "\n\n".join(basin.finding for basin in basins)
    write_table(frame, shown, stem, caption, "published" in protocols)


def _rounded(value: float, sign: str) -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.4f}"


def print_findings(basins: Sequence[Basin], console: Console | None = None) -> None:
    """Print a line per fold."""
    for basin in basins:
        (console or Console()).print(basin.finding, highlight=False, markup=False)
