"""Colours, sizes and fonts that all figures share."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's colours, which colour-blind readers can distinguish.
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
    "svg.hashsalt": "voxelsoup",
}
# In points; smaller letters cannot be read in print.
SMALL_LETTERS = 7
# Names of marks are wrapped to as many letters; a panel has room for the first of these.
LETTERS_OF_A_NAME, LETTERS_FOR_FREE = 26, 8
# Lines of small letters that fit side by side below a panel.
LINES_IN_A_PANEL = 28
# Inches, as all of matplotlib's sizes.
PANEL_WIDTH, PANEL_HEIGHT = 3.7, 3.0
LETTER_WIDTH, SMALL_LETTER_WIDTH, LINE_HEIGHT, LEGEND_MARK_WIDTH = 0.08, 0.055, 0.2, 0.7
PANELS_IN_A_ROW = 3
SMALL_LINE_HEIGHT = 0.13
DOTS_PER_INCH = 200
FEW_RUNS = len(RUN_COLOURS)
# More marks than these are numbered instead of named.
FEW_MARKS = 16
