"""Which cases of a soup are shown, of all folds together."""

from __future__ import annotations

from pathlib import Path

from support.compared_folds import scored
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.report.figures.example_cases import cases_to_show


def test_example_cases_are_the_best_median_and_worst_of_all_folds(tmp_path: Path) -> None:
    dice_scores = {0: [0.5, 0.875, 0.25], 2: [0.125, 0.75]}
    for fold, values in dice_scores.items():
        write_rows(tmp_path / f"{fold}.csv", scored(values))
    assert cases_to_show({fold: tmp_path / f"{fold}.csv" for fold in dice_scores}) == [
        ("best", 0, "case01"),
        ("median", 0, "case00"),
        ("worst", 2, "case00"),
    ]
