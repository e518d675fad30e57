"""What each swept hyperparameter changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxelsoup.report.figures.panels import Drawing, in_panels, mark, styled, turn_ticks
from voxelsoup.report.figures.style import BLACK, GREY
from voxelsoup.report.figures.tooltips import Tooltips

# Neighbouring dots end up far apart, in the same places each time.
GOLDEN = (5**0.5 - 1) / 2
SPREAD = 0.64
MANY_DOTS = 200
# Letters that fit side by side under a panel.
LETTERS_ABREAST = 42


@dataclass(frozen=True)
class HyperparameterEffects:
    """Scores of the trials by the values of each swept key.

    Attributes:
        trials: a row per fold, trial and swept key: ``fold``, ``trial`` (its id), ``name`` (what
            distinguishes it, and its id), ``key``, ``value`` (text) and ``score`` (mean test Dice,
            0 to 1).
        means: a row per key and value, in the order to draw them: ``key``, ``value`` (text),
            ``mean`` (mean test Dice, 0 to 1), ``low`` and ``high``: where the 95 % interval of the
            difference to the key's reference value ends, seen from the mean of the reference
            value, or NaN where there is none, as for the reference value itself; ``reference``:
            whether this is the reference value (bool).
    """

    trials: pd.DataFrame
    means: pd.DataFrame


def hyperparameter_effects(effects: HyperparameterEffects, path: Path, protocol: str) -> None:
    """Mean test Dice of every trial by the value of each swept key, one panel per key."""
    keys = list(dict.fromkeys(effects.means["key"]))
    with styled():
        drawing: Drawing[str] = in_panels(keys, title="{}")
        for key, axes in drawing.panels.items():
            means = effects.means[effects.means["key"] == key]
            trials = effects.trials[effects.trials["key"] == key]
            _dots(axes, means["value"].tolist(), trials, drawing.tooltips)
            _means(axes, means, drawing.tooltips)
            _name_values(axes, means["value"].tolist())
        if not keys:
            drawing.say("Nothing is swept.")
        drawing.label_axes("value", "mean test Dice (0 to 1)")
        drawing.share_heights()
        handles = [
            mark("o", GREY, GREY, "a trial in a fold", 4),
            mark("D", BLACK, BLACK, "mean over trials and folds", 5),
            mark("D", BLACK, "white", "mean of the reference value", 5),
        ]
        interval = "95 % interval of the difference to the reference"
        handles.append(Line2D([], [], color=BLACK, lw=1.6, label=interval))
        drawing.finish(handles if keys else [], protocol, path)


def _dots(axes: Axes, values: Sequence[str], trials: pd.DataFrame, tooltips: Tooltips) -> None:
    trials = trials[np.isfinite(trials["score"])].sort_values(["score", "fold", "trial"])
    many = len(trials) > MANY_DOTS
    for place, value in enumerate(values):
        here = trials[trials["value"] == value]
        sideways = (np.arange(1, len(here) + 1) * GOLDEN % 1 - 0.5) * SPREAD
        dots = axes.scatter(
            place + sideways,
            here["score"],
            color=GREY,
            alpha=0.3 if many else 0.7,
            s=5 if many else 18,
            linewidths=0,
        )
        texts = [
            f"fold {row.fold}, {row.name}\ntest Dice {row.score:.4f}"
            for row in here.itertuples(index=False)
        ]
        tooltips.marks(dots, texts)


def _means(axes: Axes, means: pd.DataFrame, tooltips: Tooltips) -> None:
    table = means.assign(place=np.arange(len(means)))
    table = table[np.isfinite(table["mean"])]
    known = table[np.isfinite(table[["low", "high"]]).all(axis="columns")]
    axes.vlines(known["place"], known["low"], known["high"], color=BLACK, linewidth=1.6, zorder=3)
    dots = axes.scatter(
        table["place"],
        table["mean"],
        marker="D",
        facecolors=["white" if reference else BLACK for reference in table["reference"]],
        edgecolors=BLACK,
        s=28,
        linewidths=1.2,
        zorder=4,
    )
    texts = []
    for row in table.itertuples(index=False):
        text = f"{row.key} = {row.value}\nmean test Dice {row.mean:.4f}"
        if np.isfinite([row.low, row.high]).all():
            text += f", 95 % interval {row.low:.4f} to {row.high:.4f}"
        texts.append(text)
    tooltips.marks(dots, texts)


def _name_values(axes: Axes, values: Sequence[str]) -> None:
    places = range(len(values))
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.grid(False, axis="x")
    room = LETTERS_ABREAST // max(1, len(values))
    wrapped = [fill(value, max(1, room), break_long_words=False) for value in values]
    if all(len(line) <= room for text in wrapped for line in text.splitlines()):
        axes.set_xticks(places, wrapped)
    else:
        turn_ticks(axes, places, values)
