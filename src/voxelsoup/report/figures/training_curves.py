"""Training loss of all runs over their epochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from voxelsoup.report.figures.panels import in_panels, run_colours, run_handles, styled
from voxelsoup.report.figures.style import BLACK, FEW_RUNS
from voxelsoup.study.trials import NO_LABELS, named


def training_curves(
    histories: Mapping[tuple[int, str], pd.DataFrame],
    path: Path,
    names: Mapping[str, str] = NO_LABELS,
) -> None:
    """Training loss of every run over its epochs, one panel per fold.

    Args:
        histories: (fold, ``stem`` or id of a trial) -> history with ``epoch`` and
            ``training_loss``. Trials are drawn from where the stem of their fold ends.
    """
    runs = list(dict.fromkeys(run for _, run in histories if run != "stem"))
    colours, few = run_colours(runs), len(runs) <= FEW_RUNS
    with styled():
        drawing = in_panels(sorted({fold for fold, _ in histories}))
        for (fold, run), history in histories.items():
            stem = histories.get((fold, "stem"))
            start = 0.0 if stem is None or run == "stem" else float(stem["epoch"].max())
            curve = _curve(drawing.panels[fold], history, start)
            if run == "stem":
                curve.set(color=BLACK, linewidth=2)
            else:
                width, opacity = (1.1, 0.75) if few else (0.8, _opacity(len(runs)))
                curve.set(color=colours[run], linewidth=width, alpha=opacity)
            text = f"fold {fold}, {named(run, names)}\n{_last_loss(history)}"
            drawing.tooltips.curve(curve, text, many=not few)
        has_stem = any(run == "stem" for _, run in histories)
        label = "epoch (trials continue the stem)" if has_stem else "epoch"
        drawing.label_axes(label, "training loss (no unit)")
        for axes in drawing.panels.values():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        handles = [Line2D([], [], color=BLACK, lw=2, label="stem")] if has_stem else []
        handles += run_handles(colours, names, f"{len(runs)} trials")
        drawing.finish(handles, "held-out", path)


def _opacity(curves: int) -> float:
    """The more curves, the fainter each, so that one sees where most of them are."""
    return min(0.4, max(0.1, 40 / curves))


def _last_loss(history: pd.DataFrame) -> str:
    if history.empty:
        return "no epoch yet"
    last = history.iloc[-1]
    return f"training loss {last['training_loss']:.4f} after {last['epoch']:g} epochs"


def _curve(axes: Axes, history: pd.DataFrame, start: float) -> Line2D:
    (curve,) = axes.plot(
        history["epoch"] + start,
        history["training_loss"],
        marker="o" if len(history) <= 10 else None,
        markersize=3,
    )
    return curve
