"""A figure's panels, axes and legend, and the files that it becomes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any, Generic, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from voxelsoup.common.files import atomic_write, write_text
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.report.figures.style import (
    BLUE,
    DOTS_PER_INCH,
    FEW_MARKS,
    FEW_RUNS,
    LEGEND_MARK_WIDTH,
    LETTER_WIDTH,
    LETTERS_FOR_FREE,
    LETTERS_OF_A_NAME,
    LINE_HEIGHT,
    LINES_IN_A_PANEL,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    PANELS_IN_A_ROW,
    RUN_COLOURS,
    SMALL_LETTER_WIDTH,
    SMALL_LETTERS,
    STYLE,
    VERMILLION,
)
from voxelsoup.report.figures.tooltips import Tooltips

Panel = TypeVar("Panel", bound=Hashable)
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Drawing(Generic[Panel]):
    """A figure while it is drawn: what there is one panel for -> its axes, and the tooltips."""

    figure: Figure
    panels: dict[Panel, Axes]
    tooltips: Tooltips = field(default_factory=Tooltips)

    def label_axes(self, horizontal: str, vertical: str) -> None:
        """Name what all panels show; the vertical axis only at the start of each row."""
        for position, axes in enumerate(self.panels.values()):
            axes.set_xlabel(horizontal)
            if position % PANELS_IN_A_ROW == 0:
                axes.set_ylabel(vertical)

    def share_heights(self) -> None:
        """Give the vertical axes of all panels one range, so that panels can be compared."""
        ranges = [axes.get_ylim() for axes in self.panels.values()]
        for axes in self.panels.values():
            axes.set_ylim(min(low for low, _ in ranges), max(high for _, high in ranges))

    def name_ranks(self, names: Mapping[Panel, Sequence[str]], many: str = "") -> None:
        """Write names below the marks 1, 2, ... of each panel, and give the figure room for them.

        Many marks are numbered instead; ``many`` says what the numbers are.
        """
        longest = 0
        for panel, axes in self.panels.items():
            if len(names[panel]) > FEW_MARKS:
                axes.set_xlabel(many or axes.get_xlabel())
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
                continue
            wrapped = wrap_to_fit(names[panel])
            turn_ticks(axes, range(1, len(wrapped) + 1), wrapped)
            longest = max([longest, *(len(line) for name in wrapped for line in name.split("\n"))])
        self.grow(max(0, longest - LETTERS_FOR_FREE) * SMALL_LETTER_WIDTH)

    def grow(self, height: float) -> None:
        """Make every row of panels higher by some inches."""
        rows = math.ceil(len(self.panels) / PANELS_IN_A_ROW)
        self.figure.set_figheight(self.figure.get_figheight() + rows * height)

    def say(self, text: str) -> None:
        """Write why there is nothing to draw."""
        self.figure.text(0.5, 0.5, text, ha="center", va="center")

    def finish(
        self, handles: Sequence[Line2D | Patch], protocol: str, path: Path, title: str = ""
    ) -> None:
        """Write the figure: ``path`` (SVG), and beside it the same as .png and as .html."""
        self._add_legend(handles)
        self._add_title(protocol, title)
        with atomic_write(path) as temporary:
            save_svg(self.figure, temporary)
            self.tooltips.put_into(temporary)
        page = self.tooltips.page(path.read_text(encoding="utf-8"), path.stem.replace("_", " "))
        write_text(path.with_suffix(".html"), page)
        with atomic_write(path.with_suffix(".png")) as temporary:
            self.figure.savefig(
                temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None}
            )

    def _add_legend(self, handles: Sequence[Line2D | Patch]) -> None:
        if not handles:
            return
        columns = _legend_columns(handles, self.figure.get_figwidth())
        rows = math.ceil(len(handles) / columns)
        self.figure.set_figheight(self.figure.get_figheight() + LINE_HEIGHT * rows)
        self.figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)

    def _add_title(self, protocol: str, title: str) -> None:
        marked = f"published protocol, {OPTIMISTIC}" if protocol == "published" else ""
        if title or marked:
            colour = VERMILLION if marked else "black"
            text = "\n".join(line for line in (title, marked) if line)
            self.figure.suptitle(text, color=colour, fontsize=9)


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as an SVG file, whose bytes are the same whenever it shows the same."""
    # Dates and versions would make files differ that show the same.
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(path, format="svg", metadata=nothing)


def _legend_columns(handles: Sequence[Line2D | Patch], width: float) -> int:
    """How many columns of a legend fit side by side into a width in inches."""
    letters = [len(str(handle.get_label())) for handle in handles]
    for columns in range(len(handles), 1, -1):
        # Matplotlib fills one column after the other.
        longest = [max(column) for column in np.array_split(letters, columns)]
        if sum(LEGEND_MARK_WIDTH + LETTER_WIDTH * length for length in longest) <= width:
            return columns
    return 1


def styled(**changes: Any) -> Any:
    """The style that every figure is drawn and written in."""
    return mpl.rc_context(STYLE | {key.replace("_", "."): value for key, value in changes.items()})


def in_panels(keys: Iterable[Panel], title: str = "Fold {}") -> Drawing[Panel]:
    """A figure with one panel per fold, or per what else the title names, in rows."""
    chosen = list(keys)
    across = max(1, min(len(chosen), PANELS_IN_A_ROW))
    down = max(1, math.ceil(len(chosen) / across))
    # A single panel needs the width for its legend.
    width = max(PANEL_WIDTH * across, 1.4 * PANEL_WIDTH)
    figure = Figure(figsize=(width, PANEL_HEIGHT * down + 0.2), layout="constrained")
    FigureCanvasSVG(figure)
    panels = {}
    for position, key in enumerate(chosen):
        panels[key] = figure.add_subplot(down, across, position + 1)
        panels[key].set_title(title.format(key), loc="left")
    return Drawing(figure, panels)


def mark(
    marker: str, edge: str, face: str, label: str, size: float = 6, width: float = 1
) -> Line2D:
    """A marker of the legend, its size and the width of its edge in points."""
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        markeredgecolor=edge,
        markerfacecolor=face,
        markersize=size,
        markeredgewidth=width,
        label=label,
    )


def run_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each run."""
    # More runs than colours: a legend would say nothing, so all trials look alike.
    few = len(names) <= FEW_RUNS
    return {name: RUN_COLOURS[i] if few else BLUE for i, name in enumerate(names)}


def run_handles(colours: Mapping[str, str], names: Mapping[str, str], many: str) -> list[Line2D]:
    """The legend of runs: a line for each, or one for all where they look alike."""
    if len(colours) > FEW_RUNS:
        return [Line2D([], [], color=BLUE, alpha=0.6, label=many)]
    return [Line2D([], [], color=c, label=names.get(run, run)) for run, c in colours.items()]


def turn_ticks(axes: Axes, places: Sequence[int], names: Sequence[str]) -> None:
    """Write long names below an axis; those of several lines upright, as they need the room."""
    axes.set_xticks(places, names, fontsize=SMALL_LETTERS, rotation=90)
    if not any("\n" in name for name in names):
        axes.tick_params("x", rotation=60)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def wrap_to_fit(names: Sequence[str]) -> list[str]:
    """Names in lines as short as there is room for side by side below a panel."""
    wrapped = []
    for letters in (LETTERS_OF_A_NAME, 2 * LETTERS_OF_A_NAME, 1000):
        wrapped = [wrap_name(name, letters) for name in names]
        if sum(name.count("\n") + 1 for name in wrapped) <= LINES_IN_A_PANEL:
            break
    return wrapped


def wrap_name(name: str, letters: int = LETTERS_OF_A_NAME) -> str:
    """A name in lines of a few words each, broken after commas: a value stays with its key."""
    kept = name.replace(" ", NO_BREAK).replace(f",{NO_BREAK}", ", ")
    lines = fill(kept, letters, break_long_words=False, break_on_hyphens=False)
    return lines.replace(NO_BREAK, " ")


def protocol_of(records: Mapping[int, Mapping[str, Any]]) -> str:
    """``published`` if any fold's record was made under it, as it has to be marked then."""
    published = any(record.get("protocol") == "published" for record in records.values())
    return "published" if published else "held-out"
