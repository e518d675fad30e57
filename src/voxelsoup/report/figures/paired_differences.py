"""What a soup gains or loses on each case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from voxelsoup.comparison.names import POINTS
from voxelsoup.report.figures.panels import Drawing, in_panels, mark, styled
from voxelsoup.report.figures.style import (
    BLACK,
    BLUE,
    FEW_MARKS,
    GREY,
    SKY,
    SMALL_LETTERS,
    VERMILLION,
)
from voxelsoup.report.figures.tooltips import Tooltips

# Sign of the difference -> marker, colour and label; the shapes show the direction, for print
# without colours.
LOOKS = {
    1: ("^", BLUE, "case with a gain"),
    -1: ("v", VERMILLION, "case with a loss"),
    0: ("s", GREY, "no difference"),
}
Interval = tuple[float, float, float]


def paired_differences(
    differences: Mapping[int, pd.DataFrame],
    path: Path,
    protocol: str,
    intervals: Mapping[int, Interval | None],
    title: str = "",
) -> None:
    """Dice of a soup minus that of the best single model, case by case, one panel per fold.

    Args:
        differences: fold -> ``case``, ``best`` and ``soup`` (mean Dice over the regions, 0 to 1).
            Cases without one of the scores are counted, not drawn.
        intervals: fold -> mean difference and the ends of its 95 % interval, in Dice (0 to 1) as
            the scores; None where there is none. Ends may be NaN.
    """
    with styled():
        drawing: Drawing[int] = in_panels(sorted(differences))
        for fold, axes in drawing.panels.items():
            interval = intervals.get(fold)
            if interval is not None:
                _mean_line(axes, interval)
            _cases(axes, fold, differences[fold], drawing.tooltips)
        if not differences:
            drawing.say("There is no soup to compare.")
        drawing.label_axes("", "soup minus best model\n(Dice points; 1 is 0.01 Dice)")
        tables = {fold: _sorted(scores) for fold, scores in differences.items()}
        for fold, axes in drawing.panels.items():
            if tables[fold].empty:
                axes.text(
                    0.5, 0.5, "no case with both scores", ha="center", transform=axes.transAxes
                )
            elif len(tables[fold]) <= FEW_MARKS:
                axes.set_xlim(0.4, len(tables[fold]) + 0.6)
        cases = {fold: table["case"].astype(str).tolist() for fold, table in tables.items()}
        drawing.name_ranks(cases, many="cases, from the largest loss to the largest gain")
        drawing.share_heights()
        shown = [interval for interval in intervals.values() if interval is not None]
        drawing.finish(_handles(shown) if differences else [], protocol, path, title)


def _sorted(scores: pd.DataFrame) -> pd.DataFrame:
    """The cases with both scores, from the largest loss to the largest gain."""
    table = scores.assign(difference=(scores["soup"] - scores["best"]) * POINTS)
    table = table[np.isfinite(table["difference"])]
    return table.sort_values(["difference", "case"], ignore_index=True)


def _cases(axes: Axes, fold: int, scores: pd.DataFrame, tooltips: Tooltips) -> None:
    table = _sorted(scores)
    ranks = np.arange(1, len(table) + 1)
    many = len(table) > 4 * FEW_MARKS
    sign = np.sign(table["difference"].to_numpy())
    axes.axhline(0, color=BLACK, linewidth=0.8, zorder=1)
    for number, (marker, colour, _) in LOOKS.items():
        here = sign == number
        heights = table["difference"].to_numpy()[here]
        texts = [_text(fold, case) for case in table[here].to_dict("records")]
        width = 0.5 if many else 1.2
        stems = axes.vlines(ranks[here], 0, heights, color=colour, linewidth=width)
        dots = axes.scatter(
            ranks[here], heights, marker=marker, color=colour, s=6 if many else 24, linewidths=0
        )
        tooltips.marks(stems, texts)
        tooltips.marks(dots, texts)
    without = len(scores) - len(table)
    if without:
        note = f"{without} case{'s' if without > 1 else ''} without a score"
        axes.set_title(note, loc="right", fontsize=SMALL_LETTERS)


def _mean_line(axes: Axes, interval: Interval) -> None:
    mean, low, high = (value * POINTS for value in interval)
    if np.isfinite([low, high]).all():
        axes.axhspan(low, high, color=SKY, alpha=0.35, linewidth=0, zorder=0)
    if np.isfinite(mean):
        axes.axhline(mean, color=BLACK, linewidth=1.2, linestyle="--", zorder=3)


def _text(fold: int, case: Mapping[Any, Any]) -> str:
    return (
        f"fold {fold}, case {case['case']}\n"
        f"best model {case['best']:.4f}, soup {case['soup']:.4f}\n"
        f"difference {case['difference']:+.2f} Dice points"
    )


def _handles(intervals: list[Interval]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        mark(marker, colour, colour, label) for marker, colour, label in LOOKS.values()
    ]
    if intervals:
        handles.append(Line2D([], [], color=BLACK, lw=1.2, ls="--", label="mean over the cases"))
    if any(np.isfinite(interval).all() for interval in intervals):
        handles.append(Patch(color=SKY, alpha=0.35, linewidth=0, label="95 % interval of the mean"))
    return handles
