"""Studies beside each other: the difference of each pair, over the differences of its cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxelsoup.comparison.names import POINTS
from voxelsoup.report.figures.panels import Drawing, in_panels, mark, styled
from voxelsoup.report.figures.style import BLACK, GREY, SMALL_LETTERS, SMALL_LINE_HEIGHT
from voxelsoup.report.figures.tooltips import Tooltips

# Neighbouring dots end up far apart, in the same places each time.
GOLDEN = (5**0.5 - 1) / 2
SPREAD, ROOM_FOR_A_PAIR = 0.5, 0.5
MANY_DOTS = 200
LETTERS = 40


@dataclass(frozen=True)
class DrawnPair:
    """One pair of models.

    Attributes:
        name: ``greedy soup of one – greedy soup of two``.
        cases: case -> difference in Dice (0 to 1), first minus second.
        mean, low, high: of the difference, with its interval; the ends may be NaN.
        interval: what the interval is (``95 %``).
    """

    name: str
    cases: pd.Series
    mean: float
    low: float
    high: float
    interval: str


def study_differences(kinds: Mapping[str, Sequence[DrawnPair]], path: Path, protocol: str) -> None:
    """Differences of pairs in Dice points, a panel per kind of model and a line per pair.

    Written as ``path`` (.svg), and beside it as .png and .html.
    """
    with styled():
        drawing: Drawing[str] = in_panels(kinds, title="{}")
        for kind, axes in drawing.panels.items():
            _pairs(axes, kinds[kind], drawing.tooltips)
        drawing.label_axes("first minus second (Dice points; 1 is 0.01 Dice)", "")
        most = max(len(pairs) for pairs in kinds.values())
        lines = sum(name.count("\n") + 1 for name in map(_wrapped, next(iter(kinds.values()))))
        drawing.grow(max(ROOM_FOR_A_PAIR * (most - 4), SMALL_LINE_HEIGHT * (lines - 16), 0))
        drawing.figure.set_figwidth(drawing.figure.get_figwidth() * 1.6)
        handles = [
            mark("o", GREY, GREY, "a case", 4),
            mark("D", BLACK, BLACK, "mean over the cases", 5),
            Line2D([], [], color=BLACK, lw=1.6, label="interval of the mean"),
        ]
        drawing.finish(handles, protocol, path)


def _wrapped(pair: DrawnPair) -> str:
    first, _, second = pair.name.partition(" – ")
    return f"{fill(first, LETTERS)} –\n{fill(second, LETTERS)}"


def _pairs(axes: Axes, pairs: Sequence[DrawnPair], tooltips: Tooltips) -> None:
    axes.axvline(0, color=BLACK, linewidth=0.8, zorder=1)
    for place, pair in enumerate(pairs):
        _cases(axes, place, pair, tooltips)
        low, high = POINTS * pair.low, POINTS * pair.high
        if np.isfinite([low, high]).all():
            axes.hlines(place, low, high, color=BLACK, linewidth=1.6, zorder=3)
        if np.isfinite(pair.mean):
            dot = axes.scatter(
                [POINTS * pair.mean], [place], marker="D", color=BLACK, s=28, zorder=4
            )
            tooltips.marks(dot, [_text(pair)])
    axes.set_yticks(range(len(pairs)), map(_wrapped, pairs), fontsize=SMALL_LETTERS)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.grid(False, axis="y")


def _cases(axes: Axes, place: int, pair: DrawnPair, tooltips: Tooltips) -> None:
    known = pair.cases[np.isfinite(pair.cases)].sort_values()
    many = len(known) > MANY_DOTS
    upwards = (np.arange(1, len(known) + 1) * GOLDEN % 1 - 0.5) * SPREAD
    dots = axes.scatter(
        POINTS * known.to_numpy(),
        place + upwards,
        color=GREY,
        alpha=0.3 if many else 0.7,
        s=5 if many else 14,
        linewidths=0,
    )
    texts = [f"case {case}\n{POINTS * value:+.2f} Dice points" for case, value in known.items()]
    tooltips.marks(dots, texts)


def _text(pair: DrawnPair) -> str:
    text = f"{pair.name}\nmean difference {POINTS * pair.mean:+.2f} Dice points"
    if np.isfinite([pair.low, pair.high]).all():
        text += f", {pair.interval} interval {POINTS * pair.low:+.2f} to {POINTS * pair.high:+.2f}"
    return text
