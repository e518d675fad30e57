"""Figures of a study: a module and a function each, from plain numbers to three files.

Each figure is written as vector graphics (.svg), for documents that take no vector graphics (.png),
and as a page for the report (.html) whose tooltips name the run that a reader points at; the same
numbers give the same bytes. `panels` holds what figures share, `tooltips` what stands at a mark,
`data` and `example_cases` gather the numbers.
"""

from __future__ import annotations

from voxelsoup.report.figures.barriers import barriers
from voxelsoup.report.figures.build_up import build_up
from voxelsoup.report.figures.case_slices import CaseSlice, case_slices
from voxelsoup.report.figures.hyperparameter_effects import (
    HyperparameterEffects,
    hyperparameter_effects,
)
from voxelsoup.report.figures.paired_differences import paired_differences
from voxelsoup.report.figures.selection_against_test import selection_against_test
from voxelsoup.report.figures.study_differences import DrawnPair, study_differences
from voxelsoup.report.figures.training_curves import training_curves
from voxelsoup.report.figures.weight_distances import weight_distances

__all__ = [
    "CaseSlice",
    "DrawnPair",
    "HyperparameterEffects",
    "barriers",
    "build_up",
    "case_slices",
    "hyperparameter_effects",
    "paired_differences",
    "selection_against_test",
    "study_differences",
    "training_curves",
    "weight_distances",
]
