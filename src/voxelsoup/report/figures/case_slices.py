"""Cases as slices, with the outlines of the ground truth and of two models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from voxelsoup.report.figures.panels import Drawing, styled
from voxelsoup.report.figures.style import (
    BLACK,
    LINE_HEIGHT,
    ORANGE,
    PANEL_WIDTH,
    PANELS_IN_A_ROW,
    SKY,
    SMALL_LETTERS,
)
from voxelsoup.report.figures.tooltips import Tooltips

Mask = npt.NDArray[np.bool_]
# Percentiles of the slice that are drawn black and white.
WINDOW = (1, 99)
# Share of the width that the scale bar takes at most, and the lengths it may have, in mm.
BAR_SHARE, BAR_LENGTHS = 0.25, (1, 2, 5, 10, 20, 50, 100)
WIDEST_PANEL = 3.2
# Voxels around what is shown.
MARGIN = 4


@dataclass(frozen=True)
class Outline:
    """How one of the three outlines looks: its colour, line and the line beneath it."""

    label: str
    colour: str
    beneath: str
    width: float
    style: tuple[float, tuple[float, ...]]


SOLID: tuple[float, tuple[float, ...]] = (0, ())
# Light lines on dark ones and the reverse: images are light in some places, dark in others. The
# dashes differ, for print without colours.
OUTLINES = (
    Outline("ground truth", "white", BLACK, 1.3, SOLID),
    Outline("best model", SKY, BLACK, 1.1, (0, (4, 2))),
    Outline("soup", ORANGE, BLACK, 1.3, (0, (1, 1.3))),
)


@dataclass(frozen=True)
class CaseSlice:
    """A slice of a case.

    Attributes:
        rank: ``best``, ``median`` or ``worst``.
        spacing: size of a voxel along both axes of the image, in mm.
        image: one channel, (x, y) from left to right and from back to front of the patient.
        regions: region -> ground truth, prediction of the best model and of the soup: masks (x, y).
        dice: region -> Dice of the best model and of the soup, on the whole volume; not of regions
            that nobody annotated in the case.
    """

    rank: str
    case: str
    fold: int
    spacing: tuple[float, float]
    image: npt.NDArray[np.floating]
    regions: Mapping[str, tuple[Mask, Mask, Mask]]
    dice: Mapping[str, tuple[float, float]]


def case_slices(cases: Sequence[CaseSlice], path: Path, protocol: str, title: str = "") -> None:
    """Outlines of ground truth, best model and soup: a row per case, a column per region."""
    with styled(axes_grid=False):
        drawing = _rows(cases)
        for (row, region), axes in drawing.panels.items():
            _panel(axes, cases[row], region, drawing.tooltips)
        if not cases:
            drawing.say("There is no case to show.")
        drawing.finish(_handles() if cases else [], protocol, path, title)


def _rows(cases: Sequence[CaseSlice]) -> Drawing[tuple[int, str]]:
    regions = list(cases[0].regions) if cases else []
    across = max(1, len(regions))
    side = min(WIDEST_PANEL, PANELS_IN_A_ROW * PANEL_WIDTH / across)
    # The images alone have this height; every row has a title above and two lines below.
    height = side * max((_height_to_width(case) for case in cases), default=1) + 4 * LINE_HEIGHT
    width = max(side * across, 1.4 * PANEL_WIDTH)
    figure = Figure(figsize=(width, height * max(1, len(cases))), layout="constrained")
    FigureCanvasSVG(figure)
    panels = {}
    for row, case in enumerate(cases):
        for column, region in enumerate(regions):
            axes = figure.add_subplot(len(cases), across, row * across + column + 1)
            panels[row, region] = axes
            if column == 0:
                axes.set_title(f"{case.rank}: {case.case}, fold {case.fold}", loc="left")
    return Drawing(figure, panels)


def _panel(axes: Axes, case: CaseSlice, region: str, tooltips: Tooltips) -> None:
    rows, columns = case.image.shape
    width, height = rows * case.spacing[0], columns * case.spacing[1]
    shown = case.image[np.isfinite(case.image)]
    low, high = np.percentile(shown, WINDOW) if shown.size else (0.0, 1.0)
    axes.imshow(
        case.image.T,
        cmap="gray",
        vmin=low,
        vmax=high if high > low else low + 1,
        interpolation="none",
        origin="lower",
        extent=(0, width, 0, height),
    )
    best, soup = case.dice.get(region, (None, None))
    scores = dict(zip([outline.label for outline in OUTLINES], (None, best, soup), strict=True))
    for outline, mask in zip(OUTLINES, case.regions[region], strict=True):
        drawn = _outline(axes, mask, case.spacing, outline)
        score = scores[outline.label]
        score_text = "" if score is None else f", Dice {_score(score, 4)}"
        if drawn is not None:
            tooltips.curve(drawn, f"{case.case}: {outline.label}, {region}{score_text}")
    below = "not annotated"
    if best is not None and soup is not None:
        below = f"Dice: best model {_score(best, 3)}, soup {_score(soup, 3)}"
    axes.set_xlabel(f"{region}\n{below}", fontsize=8)
    _frame(axes, case)


def _score(score: float, digits: int) -> str:
    return f"{score:.{digits}f}" if math.isfinite(score) else "undefined"


def _outline(
    axes: Axes, mask: Mask, spacing: tuple[float, float], outline: Outline
) -> ContourSet | None:
    if not mask.any():
        return None
    # Masks that touch the edge of the image get closed outlines.
    padded = np.pad(mask, 1).astype(np.float64)
    across, up = (
        (np.arange(length) - 0.5) * size for length, size in zip(padded.shape, spacing, strict=True)
    )
    drawn = axes.contour(
        across, up, padded.T, levels=[0.5], colors=[outline.colour], linewidths=outline.width
    )
    drawn.set_linestyle([outline.style])
    drawn.set_path_effects([withStroke(linewidth=outline.width + 1, foreground=outline.beneath)])
    return drawn


def _window(case: CaseSlice) -> tuple[float, float, float, float]:
    """What is shown of an image, in mm: left, right, bottom, top; a half of the body or more.

    Around the outlines, as these would be too small to compare in the whole image.
    """
    outlined = np.any([mask for masks in case.regions.values() for mask in masks], axis=0)
    # The corner is background; where it is not, the image is its own content.
    body = (case.image != case.image[0, 0]) | outlined
    ends: list[float] = []
    for axis, spacing in enumerate(case.spacing):
        length = case.image.shape[axis]
        first, last = _extent(body, axis) or (0, length)
        inner = _extent(outlined, axis) or (first, last)
        size = max((last - first) / 2, inner[1] - inner[0]) + 2 * MARGIN
        middle = min(max(sum(inner) / 2, first + size / 2 - MARGIN), last - size / 2 + MARGIN)
        ends += [spacing * max(0, middle - size / 2), spacing * min(length, middle + size / 2)]
    left, right, bottom, top = ends
    return left, right, bottom, top


def _extent(mask: Mask, axis: int) -> tuple[int, int] | None:
    """Where a mask begins and ends along an axis."""
    places = np.flatnonzero(mask.any(axis=1 - axis))
    return (int(places[0]), int(places[-1]) + 1) if places.size else None


def _height_to_width(case: CaseSlice) -> float:
    left, right, bottom, top = _window(case)
    return (top - bottom) / (right - left)


def _frame(axes: Axes, case: CaseSlice) -> None:
    left, right, bottom, top = _window(case)
    # As radiologists look at it, from below: the patient's right is on the left.
    axes.set_xlim(right, left)
    axes.set_ylim(bottom, top)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    length = max(
        (bar for bar in BAR_LENGTHS if bar <= (right - left) * BAR_SHARE), default=BAR_LENGTHS[0]
    )
    end, up = left + 0.04 * (right - left), bottom + 0.04 * (top - bottom)
    edge = [withStroke(linewidth=4, foreground=BLACK)]
    axes.plot([end + length, end], [up, up], color="white", linewidth=2.5, path_effects=edge)
    _write(axes, f"{length} mm", (0.96 - length / (right - left) / 2, 0.06), "center", "bottom")
    _write(axes, "R", (0.02, 0.98), "left", "top")
    _write(axes, "L", (0.98, 0.98), "right", "top")


def _write(
    axes: Axes,
    text: str,
    place: tuple[float, float],
    across: Literal["left", "center", "right"],
    up: Literal["bottom", "top"],
) -> None:
    axes.text(
        *place,
        text,
        ha=across,
        va=up,
        color="white",
        fontsize=SMALL_LETTERS,
        bbox={"facecolor": BLACK, "alpha": 0.6, "pad": 1, "linewidth": 0},
        transform=axes.transAxes,
    )


def _handles() -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=outline.colour,
            linestyle=outline.style,
            linewidth=outline.width,
            path_effects=[withStroke(linewidth=outline.width + 1, foreground=outline.beneath)],
            label=outline.label,
        )
        for outline in OUTLINES
    ]
