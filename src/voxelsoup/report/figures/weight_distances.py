"""How far apart the weights of each fold's models are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from voxelsoup.report.figures.panels import Drawing, in_panels, protocol_of, styled, wrap_name
from voxelsoup.report.figures.style import FEW_MARKS, PANEL_HEIGHT, SMALL_LETTERS, SMALL_LINE_HEIGHT
from voxelsoup.report.figures.tooltips import Tooltips
from voxelsoup.study.trials import NO_LABELS, named

# Beyond it the squares are too small to point at, and their texts would make a large file.
MOST_WITH_TOOLTIPS = 40


def weight_distances(
    records: Mapping[int, Mapping[str, Any]], path: Path, names: Mapping[str, str] = NO_LABELS
) -> None:
    """Pairwise distances of the weights of each fold's models (its basin.json), the best first."""
    values = {fold: np.array(r["distances"], dtype=np.float64) for fold, r in records.items()}
    # One scale for all folds.
    highest = max(
        (float(value[np.isfinite(value)].max(initial=0)) for value in values.values()), default=0
    )
    with styled(axes_grid=False):
        drawing: Drawing[int] = in_panels(sorted(records))
        lines = []
        for fold, axes in drawing.panels.items():
            models = records[fold]["models"]
            picture = axes.imshow(
                values[fold],
                cmap="cividis",
                vmin=0,
                vmax=highest or 1,
                interpolation="none",
                # Two lines of a name are higher than a square.
                aspect="auto",
                # Ranks from 1, as in the build-up.
                extent=(0.5, len(models) + 0.5, len(models) + 0.5, 0.5),
            )
            if len(models) <= MOST_WITH_TOOLTIPS:
                _name_pairs(axes, drawing.tooltips, models, values[fold], names)
            lines.append(_name_models(axes, [names.get(model, model) for model in models]))
        drawing.grow(max(0, SMALL_LINE_HEIGHT * max(lines, default=0) - 0.8 * PANEL_HEIGHT))
        if drawing.panels:
            bar = drawing.figure.colorbar(picture, ax=list(drawing.panels.values()))
            bar.set_label("distance of the weights\n(share of the best model's norm)")
        drawing.finish([], protocol_of(records), path)


def _name_pairs(
    axes: Axes,
    tooltips: Tooltips,
    models: Sequence[str],
    distances: npt.NDArray[np.float64],
    names: Mapping[str, str],
) -> None:
    edges = np.arange(len(models) + 1) + 0.5
    # The picture is one image, of which no part can be pointed at.
    cells = axes.pcolormesh(edges, edges, np.zeros_like(distances), linewidth=0)
    cells.set_array(None)
    cells.set_facecolor((1, 1, 1, 0))
    texts = [
        f"{named(one, names)}\n{named(other, names)}\n{_distance(distances[row, column])}"
        for row, one in enumerate(models)
        for column, other in enumerate(models)
    ]
    tooltips.cells(cells, texts)


def _distance(distance: float) -> str:
    return f"distance {distance:.4f}" if np.isfinite(distance) else "no distance: one has diverged"


def _name_models(axes: Axes, names: Sequence[str]) -> int:
    """Write ranks below, and beside, in the same order, ranks with names where there are few.

    Returns:
        Lines of text beside the panel, with the space between the names.
    """
    axes.set_xlabel("models, best single model first")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if len(names) > FEW_MARKS:
        return 0
    numbered = [wrap_name(f"{n}: {name}") for n, name in enumerate(names, 1)]
    axes.set_yticks(range(1, len(names) + 1), numbered, fontsize=SMALL_LETTERS)
    return len(numbered) * (1 + max(name.count("\n") for name in numbered))
