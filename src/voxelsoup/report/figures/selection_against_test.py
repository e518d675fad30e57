"""Selection against test score of all models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxelsoup.comparison.names import BEST_MODEL
from voxelsoup.report.figures.panels import in_panels, mark, styled
from voxelsoup.report.figures.style import BLUE, GREY, SOUP_COLOURS, SOUP_MARKERS
from voxelsoup.report.figures.tooltips import Tooltips
from voxelsoup.study.trials import NO_LABELS, named

TRIAL = "Trial"
# Per fold; the dots of more are smaller.
MANY_MODELS = 200


def selection_against_test(
    points: pd.DataFrame, path: Path, protocol: str, names: Mapping[str, str] = NO_LABELS
) -> None:
    """Selection against test score of every model, one panel per fold, soups marked.

    Args:
        points: ``fold``, ``name``, ``kind`` (``Trial``, ``Best Model`` or the title of a soup),
            ``selection`` and ``test`` (mean Dice), as `comparison.points` gives them.
    """
    soups = [kind for kind in dict.fromkeys(points["kind"]) if kind not in (TRIAL, BEST_MODEL)]
    looks = _looks(soups, many=points.groupby("fold").size().max() > MANY_MODELS)
    with styled():
        drawing = in_panels(sorted(points["fold"].unique()))
        for fold, axes in drawing.panels.items():
            _models(axes, points[points["fold"] == fold], looks, drawing.tooltips, names)
        drawing.label_axes("mean selection Dice (0 to 1)", "mean test Dice (0 to 1)")
        handles = [_legend_mark(kind, look) for kind, look in looks.items()]
        drawn = [_diagonal(axes) for axes in drawing.panels.values()]
        if any(drawn):
            handles.append(Line2D([], [], color=GREY, lw=0.8, ls="--", label="equal scores"))
        drawing.finish(handles, protocol, path)


def _looks(soups: Sequence[str], many: bool) -> dict[str, dict[str, Any]]:
    # A ring, so that a soup of this one model does not hide it; below the trials, so that those
    # within it can be pointed at.
    ring = {"marker": "o", "facecolors": "none", "edgecolors": BLUE, "s": 190, "linewidths": 1.6}
    opacity, size = (0.5, 10) if many else (0.7, 22)
    dots = {"marker": "o", "color": GREY, "alpha": opacity, "s": size, "linewidths": 0}
    looks: dict[str, dict[str, Any]] = {BEST_MODEL: ring, TRIAL: dots}
    for soup, marker, colour in zip(soups, cycle(SOUP_MARKERS), cycle(SOUP_COLOURS), strict=False):
        looks[soup] = {"marker": marker, "color": colour, "s": 130 if marker == "*" else 42}
        looks[soup] |= {"edgecolors": "white", "linewidths": 0.6}
    return looks


def _models(
    axes: Axes,
    points: pd.DataFrame,
    looks: Mapping[str, Mapping[str, Any]],
    tooltips: Tooltips,
    names: Mapping[str, str],
) -> None:
    drawn = points[np.isfinite(points[["selection", "test"]]).all(axis="columns")]
    for order, (kind, look) in enumerate(looks.items()):
        chosen = drawn[drawn["kind"] == kind]
        dots = axes.scatter(chosen["selection"], chosen["test"], zorder=2 + order, **look)
        tooltips.marks(dots, [_text(row, names) for row in chosen.to_dict("records")])


def _text(point: Mapping[Any, Any], names: Mapping[str, str]) -> str:
    kind, name = point["kind"], named(point["name"], names)
    what = name if kind in (TRIAL, name) else f"{kind}: {name}"
    return (
        f"fold {point['fold']}, {what}\n"
        f"selection Dice {point['selection']:.4f}, test Dice {point['test']:.4f}"
    )


def _diagonal(axes: Axes) -> bool:
    """Draw the line of equal scores where it passes through the view, and say whether it does."""
    # The view stays as the points ask for it.
    horizontal, vertical = axes.get_xlim(), axes.get_ylim()
    low, high = max(horizontal[0], vertical[0]), min(horizontal[1], vertical[1])
    passes = low < high
    if passes:
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_xlim(horizontal)
    axes.set_ylim(vertical)
    axes.locator_params(nbins=5)
    return passes


def _legend_mark(kind: str, look: Mapping[str, Any]) -> Line2D:
    face = look.get("facecolors", look.get("color"))
    edge, size = look.get("edgecolors", face), math.sqrt(look["s"])
    return mark(look["marker"], edge, face, kind, size, look["linewidths"])
