"""Figures of a study: one page per figure.

Each figure is written three times, the same bytes for the same numbers: as vector graphics (.svg),
for documents that take no vector graphics (.png), and as a page for the report (.html) that says
which run a mark is when a reader points at it.
"""

from __future__ import annotations

from voxelsoup.report.figures.barriers import barriers
from voxelsoup.report.figures.build_up import build_up
from voxelsoup.report.figures.case_slices import (
    CaseSlice,
    best_median_worst,
    case_slices,
    densest_slice,
)
from voxelsoup.report.figures.hyperparameter_effects import (
    HyperparameterEffects,
    hyperparameter_effects,
)
from voxelsoup.report.figures.paired_differences import paired_differences
from voxelsoup.report.figures.selection_against_test import selection_against_test
from voxelsoup.report.figures.style import BLUE, GREY, SOUP_COLOURS, SOUP_MARKERS
from voxelsoup.report.figures.training_curves import training_curves
from voxelsoup.report.figures.weight_distances import weight_distances

__all__ = [
    "BLUE",
    "GREY",
    "SOUP_COLOURS",
    "SOUP_MARKERS",
    "CaseSlice",
    "HyperparameterEffects",
    "barriers",
    "best_median_worst",
    "build_up",
    "case_slices",
    "densest_slice",
    "hyperparameter_effects",
    "paired_differences",
    "selection_against_test",
    "training_curves",
    "weight_distances",
]
