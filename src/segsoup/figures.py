"""Figures of a study: vector graphics, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from segsoup.comparison import BEST_MODEL, OPTIMISTIC
from segsoup.files import whole

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"
RUN_COLOURS = [BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE]
# One of each per recipe: the shapes differ too, for print without colours.
SOUP_COLOURS = [VERMILLION, ORANGE, GREEN, PURPLE, SKY, BLACK]
SOUP_MARKERS = ["*", "D", "s", "P", "^", "X"]
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.axisbelow": True,
    "font.size": 9,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    # Without a fixed salt the ids inside the file are random.
    "svg.hashsalt": "segsoup",
}
# Inches, as all of matplotlib's sizes.
PANEL_WIDTH, PANEL_HEIGHT = 3.7, 3.0
LETTER_WIDTH, LINE_HEIGHT = 0.08, 0.2
PANELS_IN_A_ROW = 3
FEW_RUNS = len(RUN_COLOURS)
FEW_INGREDIENTS = 16


def training_curves(histories: Mapping[tuple[int, str], pd.DataFrame], path: Path) -> None:
    """Training loss of every run over its epochs, one panel per fold.

    Args:
        histories: (fold, ``stem`` or name of a trial) -> history with ``epoch`` and
            ``training_loss``. Trials are drawn from where the stem of their fold ends.
        path: the SVG file.
    """
    names = list(dict.fromkeys(name for _, name in histories if name != "stem"))
    colours = _run_colours(names)
    with mpl.rc_context(STYLE):
        figure, panels = _panels(sorted({fold for fold, _ in histories}))
        for (fold, name), history in histories.items():
            stem = histories.get((fold, "stem"))
            start = 0.0 if stem is None or name == "stem" else float(stem["epoch"].max())
            _curve(panels[fold], history, start, name == "stem", colours.get(name, BLACK))
        has_stem = any(name == "stem" for _, name in histories)
        label = "epoch (trials continue the stem)" if has_stem else "epoch"
        _label_axes(panels, label, "training loss (no unit)")
        for axes in panels.values():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        handles = [Line2D([], [], color=BLACK, lw=2, label="stem")] if has_stem else []
        if len(names) <= FEW_RUNS:
            handles += [Line2D([], [], color=colours[name], label=name) for name in names]
        else:
            handles.append(Line2D([], [], color=BLUE, alpha=0.6, label=f"{len(names)} trials"))
        _finish(figure, handles, "held-out", path)


def _run_colours(names: Sequence[str]) -> dict[str, str]:
    # More runs than colours: a legend would say nothing, so all trials look alike.
    few = len(names) <= FEW_RUNS
    return {name: RUN_COLOURS[i] if few else BLUE for i, name in enumerate(names)}


def _curve(axes: Axes, history: pd.DataFrame, start: float, is_stem: bool, colour: str) -> None:
    axes.plot(
        history["epoch"] + start,
        history["training_loss"],
        color=colour,
        linewidth=2 if is_stem else 1.1,
        alpha=1 if is_stem else 0.75,
        marker="o" if len(history) <= 10 else None,
        markersize=3,
    )


def selection_against_test(points: pd.DataFrame, path: Path, protocol: str) -> None:
    """Selection against test score of every model, one panel per fold, soups marked.

    Args:
        points: ``fold``, ``name``, ``kind`` (``Trial``, ``Best Model`` or the title of a soup),
            ``selection`` and ``test`` (mean Dice), as `comparison.points` gives them.
        path: the SVG file.
        protocol: ``published`` is marked as optimistic.
    """
    soups = [kind for kind in dict.fromkeys(points["kind"]) if kind not in ("Trial", BEST_MODEL)]
    looks: dict[str, dict[str, Any]] = {
        "Trial": {"marker": "o", "color": GREY, "alpha": 0.7, "s": 22, "linewidths": 0},
        # A ring, so that a soup of this one model does not hide it.
        BEST_MODEL: {
            "marker": "o",
            "facecolors": "none",
            "edgecolors": BLUE,
            "s": 190,
            "linewidths": 1.6,
        },
    }
    for number, soup in enumerate(soups):
        marker = SOUP_MARKERS[number % len(SOUP_MARKERS)]
        looks[soup] = {
            "marker": marker,
            "color": SOUP_COLOURS[number % len(SOUP_COLOURS)],
            "s": 130 if marker == "*" else 42,
            "edgecolors": "white",
            "linewidths": 0.6,
        }
    with mpl.rc_context(STYLE):
        figure, panels = _panels(sorted(points["fold"].unique()))
        for fold, axes in panels.items():
            here = points[points["fold"] == fold]
            for order, (kind, look) in enumerate(looks.items()):
                chosen = here[here["kind"] == kind]
                axes.scatter(chosen["selection"], chosen["test"], zorder=2 + order, **look)
        _label_axes(panels, "mean selection Dice (0 to 1)", "mean test Dice (0 to 1)")
        handles = [_legend_mark(kind, look) for kind, look in looks.items()]
        drawn = [_diagonal(axes) for axes in panels.values()]
        if any(drawn):
            handles.append(Line2D([], [], color=GREY, lw=0.8, ls="--", label="equal scores"))
        _finish(figure, handles, protocol, path)


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
    return Line2D(
        [],
        [],
        linestyle="",
        marker=look["marker"],
        markerfacecolor=face,
        markeredgecolor=look.get("edgecolors", face),
        markeredgewidth=look["linewidths"],
        markersize=math.sqrt(look["s"]),
        label=kind,
    )


def build_up(records: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """How the greedy soup of each fold grew: the score with each ingredient, taken or not.

    Args:
        records: fold -> content of the greedy soup's recipe.json; may be empty.
        path: the SVG file.
    """
    with mpl.rc_context(STYLE):
        figure, panels = _panels(sorted(records))
        for fold, axes in panels.items():
            _build_up_panel(axes, records[fold]["decisions"])
        if not panels:
            figure.text(0.5, 0.5, "This study makes no greedy soup.", ha="center", va="center")
        _label_axes(panels, "ingredients, best single model first", "mean selection Dice (0 to 1)")
        handles = [
            Line2D([], [], color=BLUE, lw=1.4, drawstyle="steps-post", label="the soup"),
            _mark("o", BLUE, BLUE, "soup with it: kept"),
            _mark("o", VERMILLION, "white", "soup with it: left out"),
            _mark("_", GREY, GREY, "the model alone"),
        ]
        _finish(figure, handles if panels else [], _protocol(records), path)


def _mark(marker: str, edge: str, face: str, label: str) -> Line2D:
    return Line2D(
        [], [], ls="", marker=marker, markeredgecolor=edge, markerfacecolor=face, label=label
    )


def _build_up_panel(axes: Axes, decisions: Sequence[Mapping[str, Any]]) -> None:
    ranks = np.arange(1, len(decisions) + 1)
    kept = np.array([bool(decision["accepted"]) for decision in decisions])
    scores = {
        key: np.array([decision[f"{key}_score"] for decision in decisions], dtype=np.float64)
        for key in ("single", "candidate", "best")
    }
    many = len(decisions) > FEW_INGREDIENTS
    size = 3 if many else 5.5
    axes.plot(ranks, scores["single"], ls="", marker="_", color=GREY, markersize=size + 2)
    axes.step(ranks, scores["best"], where="post", color=BLUE, linewidth=1.4)
    axes.plot(
        ranks[~kept],
        scores["candidate"][~kept],
        ls="",
        marker="o",
        markeredgecolor=VERMILLION,
        markerfacecolor="white",
        markersize=size,
    )
    axes.plot(ranks[kept], scores["candidate"][kept], ls="", marker="o", color=BLUE, ms=size)
    if many:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    else:
        names = [str(decision["trial"]) for decision in decisions]
        axes.set_xticks(ranks, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)


def barriers(records: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Loss on the straight lines from the best model of each fold to its other ones.

    Args:
        records: fold -> content of its basin.json.
        path: the SVG file.
    """
    lines = {fold: record["lines"] for fold, record in records.items()}
    names = sorted({line["trial"] for fold in lines.values() for line in fold})
    colours = _run_colours(names)
    few = len(names) <= FEW_RUNS
    with mpl.rc_context(STYLE):
        figure, panels = _panels(sorted(records))
        for fold, axes in panels.items():
            if not lines[fold]:
                axes.text(0.5, 0.5, "one model only", ha="center", transform=axes.transAxes)
            for line in lines[fold]:
                axes.plot(
                    records[fold]["points"],
                    np.array(line["losses"], dtype=np.float64),
                    color=colours[line["trial"]],
                    linewidth=1.2,
                    alpha=0.9 if few else 0.5,
                    marker="o",
                    markersize=3,
                )
        _label_axes(
            panels, "from the best model (0) to the other (1)", "loss on selection cases (no unit)"
        )
        if few:
            handles = [Line2D([], [], color=colours[name], label=name) for name in names]
        else:
            handles = [Line2D([], [], color=BLUE, alpha=0.6, label="a line per other model")]
        _finish(figure, handles, _protocol(records), path)


def weight_distances(records: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Pairwise distances of the weights of each fold's models, the best model first.

    Args:
        records: fold -> content of its basin.json.
        path: the SVG file.
    """
    values = {fold: np.array(r["distances"], dtype=np.float64) for fold, r in records.items()}
    finite = np.concatenate([value[np.isfinite(value)] for value in values.values()])
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure, panels = _panels(sorted(records))
        for fold, axes in panels.items():
            # One scale for all folds.
            picture = axes.imshow(
                values[fold],
                cmap="cividis",
                vmin=0,
                vmax=float(finite.max(initial=0)) or 1,
                interpolation="none",
                # Ranks from 1, as in the build-up.
                extent=(0.5, len(values[fold]) + 0.5, len(values[fold]) + 0.5, 0.5),
            )
            _name_models(axes, records[fold]["models"])
        if panels:
            bar = figure.colorbar(picture, ax=list(panels.values()))
            bar.set_label("distance of the weights\n(share of the best model's norm)")
        _finish(figure, [], _protocol(records), path)


def _name_models(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > FEW_INGREDIENTS:
        axes.set_xlabel("models, best single model first")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        return
    places = np.arange(1, len(names) + 1)
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set_yticks(places, names, fontsize=7)


def _protocol(records: Mapping[int, Mapping[str, Any]]) -> str:
    published = any(record.get("protocol") == "published" for record in records.values())
    return "published" if published else "held-out"


def _panels(folds: Iterable[int]) -> tuple[Figure, dict[int, Axes]]:
    """A figure with one panel per fold, in rows."""
    numbers = list(folds)
    across = max(1, min(len(numbers), PANELS_IN_A_ROW))
    down = max(1, math.ceil(len(numbers) / across))
    # A single panel needs the width for its legend.
    width = max(PANEL_WIDTH * across, 1.4 * PANEL_WIDTH)
    figure = Figure(figsize=(width, PANEL_HEIGHT * down + 0.2), layout="constrained")
    FigureCanvasSVG(figure)
    panels = {}
    for position, fold in enumerate(numbers):
        panels[fold] = figure.add_subplot(down, across, position + 1)
        panels[fold].set_title(f"Fold {fold}", loc="left")
    return figure, panels


def _label_axes(panels: Mapping[int, Axes], horizontal: str, vertical: str) -> None:
    for position, axes in enumerate(panels.values()):
        axes.set_xlabel(horizontal)
        if position % PANELS_IN_A_ROW == 0:
            axes.set_ylabel(vertical)


def _finish(figure: Figure, handles: Sequence[Line2D], protocol: str, path: Path) -> None:
    if handles:
        longest = max(len(str(handle.get_label())) for handle in handles)
        needed = 0.7 + LETTER_WIDTH * longest
        columns = max(1, min(len(handles), int(figure.get_figwidth() // needed)))
        rows = math.ceil(len(handles) / columns)
        figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * rows)
        figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)
    if protocol == "published":
        figure.suptitle(f"published protocol, {OPTIMISTIC}", color=VERMILLION, fontsize=9)
    with whole(path) as temporary:
        # A date would make every file differ.
        figure.savefig(temporary, format="svg", metadata={"Date": None})
