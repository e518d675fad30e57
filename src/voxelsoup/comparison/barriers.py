"""Barriers between the models of every fold, in tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.files import read_json
from voxelsoup.comparison.names import protocol_mark
from voxelsoup.comparison.tables import write_table
from voxelsoup.soups.barriers import Line, lines_of, others
from voxelsoup.study.trials import NO_LABELS, named

# What an average has to gain for it to be reported: less is lost in the noise of the cases.
LEAST_GAIN = 0.001


@dataclass(frozen=True)
class FoldBarriers:
    """What the files of a fold say of the barriers between its models.

    Attributes:
        record: content of its ``basin.json``.
        greedy: number of models in its greedy soup; None if the study makes none.
    """

    record: Mapping[str, Any]
    greedy: int | None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Whether the models can be averaged, and why greedy kept one where it did."""
        record = self.record
        text = f"Fold {record['fold']}: {record['sentence']}"
        if record["lines"] and self.greedy == 1:
            lines = lines_of(record)
            text += f" {why_one(lines, record['best_score'], record['averaged'], self.labels)}"
        return text


def why_one(
    lines: Sequence[Line], best_score: float, averaged: bool, labels: Mapping[str, str] = NO_LABELS
) -> str:
    """Why a greedy soup holds the best model alone.

    An average of two scores the mean of theirs and the gain. It beats the best model only if the
    gain is more than half of what the other one lacks to it.

    Args:
        best_score: the best model's mean Dice on all selection cases.
        averaged: whether all models are averages of their own run already (schedule-free).
    """
    kept = "Greedy kept the best model alone"
    near = [line for line in lines if line.shared]
    if not lines:
        return f"{kept}: there is no other."
    if not near:
        return f"{kept}: a barrier separates it from the {others(lines)}."
    highest = max(line.gain for line in near)
    if highest < LEAST_GAIN:
        text = f"{kept}: averaging gains nothing for any pair ({highest:+.4f} Dice at most)."
        if averaged:
            text += (
                " These models are averages of their own runs already: take `soup.weights: "
                "[raw]`, or checkpoints of a scheduled optimizer."
            )
        return text
    partner = max(near, key=lambda line: line.gain - (best_score - line.score) / 2)
    gap = best_score - partner.score
    other = labels.get(partner.trial, partner.trial)
    pair = f"averaging it with {other} raises their mean Dice by {partner.gain:.4f}"
    if partner.gain <= gap / 2:
        return (
            f"{kept}: {pair}, but it is {gap:.4f} above that model, and so {gap / 2:.4f} "
            "above their mean. The others are not good enough: sweep closer to the best."
        )
    return (
        f"{kept}: {pair} on the few cases of the barrier, and {gap / 2:.4f} would be enough, "
        "but the gain does not hold on all selection cases."
    )


def read_barriers(
    results: Path,
    folds: Sequence[int],
    recipes: Sequence[str],
    labels: Mapping[str, str] = NO_LABELS,
) -> list[FoldBarriers]:
    """The barriers of a study's folds, from the files of its results folder."""
    found = []
    for fold in folds:
        folder, greedy = results / f"fold{fold}", None
        if "greedy" in recipes:
            recipe = read_json(folder / "soups" / "greedy" / "recipe.json")
            greedy = len(recipe["ingredients"])
        found.append(FoldBarriers(read_json(folder / "basin.json"), greedy, labels))
    return found


def table(folds: Sequence[FoldBarriers]) -> pd.DataFrame:
    """One row per fold and model, the best one first.

    Returns:
        Index ``fold``; columns ``model``, ``distance`` to the best model (share of its norm),
        ``barrier`` (loss) and ``gain`` (Dice) on the line to it, ``selection_score`` (Dice), and
        ``protocol``.
    """
    rows = []
    for record in (fold.record for fold in folds):
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
                    "gain": line.gain if line else math.nan,
                    "selection_score": line.score if line else record["best_score"],
                    "protocol": protocol_mark(record["protocol"]),
                }
            )
    return pd.DataFrame(rows).set_index("fold")


def write_barriers(folds: Sequence[FoldBarriers], stem: Path) -> None:
    """Write the table of all folds in all formats, with a sentence per fold above it."""
    frame = table(folds)
    shown = frame.copy()
    shown["model"] = [named(name, folds[0].labels) for name in frame["model"]]
    for name in ("distance", "barrier", "gain", "selection_score"):
        sign = "+" if name == "gain" else ""
        shown[name] = [_rounded(value, sign) for value in frame[name]]
    protocols = {fold.record["protocol"] for fold in folds}
    caption = "\n\n".join(fold.sentence for fold in folds)
    write_table(frame, shown, stem, caption, "published" in protocols)


def _rounded(value: float, sign: str) -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.4f}"
