"""Other tools' label maps as rows of a study's tables: scored by the same code, all else unknown.

Nothing is computed here: the scores come from ``scores.csv`` of each tool, and the tables' numbers
from the same functions as those of the study's own models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL
from voxelsoup.comparison.overview import COST, STEPS
from voxelsoup.comparison.tables import UNKNOWN
from voxelsoup.evaluation.case_scores import COLUMNS, LOSS, read_rows

FOLDER, SCORES = "other_tools", "scores.csv"


class UnknownCount(str):
    """A number that nobody knows, in a column of numbers: nan in CSV files, a dash in tables."""

    def __new__(cls) -> UnknownCount:
        """Without a value."""
        return super().__new__(cls, "nan")

    def __format__(self, form: str) -> str:
        return UNKNOWN


def title_of(tool: str) -> str:
    """What a row is called that stands beside models: ``nnU-Net (other tool)``."""
    return f"{tool} (other tool)"


def read_tools(results: Path, tools: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Tool -> per-case scores of its label maps, which have no loss."""
    return {tool: read_rows(results / FOLDER / tool / SCORES, of_label_maps=True) for tool in tools}


def with_tools(
    comparisons: Sequence[FoldComparison], tools: Mapping[str, pd.DataFrame]
) -> list[FoldComparison]:
    """The folds with a row for each tool: the scores of the label maps of their test cases.

    Raises:
        InputError: if a tool was not scored on the test cases of a fold.
    """
    return [
        replace(
            fold,
            rows=fold.rows | {tool: _of_fold(fold, tool, rows) for tool, rows in tools.items()},
            # What a label map cost and was made of is not known: ``shown_as_unknown``.
            ingredients=fold.ingredients | dict.fromkeys(tools, 0),
            models_per_prediction=fold.models_per_prediction | dict.fromkeys(tools, 0),
        )
        for fold in comparisons
    ]


def _of_fold(fold: FoldComparison, tool: str, rows: pd.DataFrame) -> pd.DataFrame:
    own = fold.rows[BEST_MODEL]
    part = rows[rows["case"].isin({*own["case"]})].reset_index(drop=True)
    scored = sorted(zip(part["case"], part["region"], strict=True))
    if scored != sorted(zip(own["case"], own["region"], strict=True)):
        raise InputError(
            f"{FOLDER}/{tool}/{SCORES}",
            f"has other cases or regions than the models of fold {fold.fold}",
            "label maps that were scored on the same cases and regions",
            "delete the file, so that the workflow scores the label maps again",
        )
    more = [name for name in part.columns if name not in COLUMNS]
    return part.assign(**{LOSS: math.nan})[[*COLUMNS, *more]]


def shown_as_unknown(frame: pd.DataFrame, tools: Sequence[str]) -> pd.DataFrame:
    """An overview in which nothing is said of how other tools came to their label maps."""
    if not tools:
        return frame
    of_tools = frame["model"].isin(tools)
    changed = frame.astype({STEPS: object}) if STEPS in frame else frame.copy()
    changed.loc[of_tools, [COST, "ingredients"]] = UNKNOWN
    if STEPS in frame:
        changed[STEPS] = [
            UnknownCount() if tool else steps
            for tool, steps in zip(of_tools, frame[STEPS], strict=True)
        ]
    return changed
