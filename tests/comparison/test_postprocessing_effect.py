"""Post-processing: Dice without and with it, and what was chosen, in words."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from support.compared_folds import (
    REGIONS,
    compared,
    html_cells,
    latex_caption,
    latex_cells,
    markdown_cells,
)
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.postprocessing_effect import (
    choice_in_words,
    without_and_with,
    write_without_and_with,
)
from voxelsoup.comparison.statistics import paired_difference
from voxelsoup.evaluation.postprocessing import Postprocessing, RegionRule, ReplacementRule

WITHOUT = {
    "Best Model": {0: [0.5, 0.625, 0.75], 1: [0.875, 0.8125]},
    "Greedy Soup": {0: [0.625, 0.6875, 0.5], 1: [0.75, 0.84375]},
}
WITH = {
    "Best Model": {0: [0.5, 0.75, 0.8125], 1: [0.875, 0.90625]},
    "Greedy Soup": {0: [0.625, 0.65625, 0.5], 1: [0.75, 0.84375]},
}


def two_folds(protocol: str = "held-out") -> list[FoldComparison]:
    return [
        compared(
            {"Greedy Soup": WITHOUT["Greedy Soup"][fold]},
            WITHOUT["Best Model"][fold],
            fold,
            protocol,
            postprocessed={title: folds[fold] for title, folds in WITH.items()},
        )
        for fold in (0, 1)
    ]


def test_postprocessing_effect_compares_dice_over_all_cases() -> None:
    frame = without_and_with(two_folds()).reset_index()
    regions = {"mean": 0.0} | REGIONS
    assert list(zip(frame["model"], frame["region"], strict=True)) == [
        (model, region) for model in WITHOUT for region in regions
    ]
    for _, row in frame.iterrows():
        before, after = WITHOUT[row["model"]], WITH[row["model"]]
        more = regions[row["region"]]
        cases = [dice + more for dices in before.values() for dice in dices]
        assert row["without"] == pytest.approx(statistics.fmean(cases), rel=1e-14)
        cases = [dice + more for dices in after.values() for dice in dices]
        assert row["with"] == pytest.approx(statistics.fmean(cases), rel=1e-14)
        expected = paired_difference(
            [np.array(after[fold]) - np.array(before[fold]) for fold in before]
        )
        assert row["difference"] == pytest.approx(expected.mean, rel=1e-9)
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), rel=1e-9)
        assert row["cases"] == 5


def record(fold: int, rules: dict[str, tuple[float, float]], **more: Any) -> dict[str, Any]:
    """A fold's record, as post-processing itself writes it."""
    chosen = Postprocessing({name: RegionRule(*rule) for name, rule in rules.items()}, **more)
    return {"fold": fold, "postprocessing": chosen.as_record()}


@pytest.mark.parametrize(
    ("rules", "replacement", "words"),
    [
        (
            {"TC": (0.5, 0.0), "ET": (0.5, 0.0)},
            None,
            "no post-processing, since none scored higher.",
        ),
        (
            {"TC": (0.45, 0.0), "WT": (0.5, 0.0), "ET": (0.5, 62.5)},
            None,
            "TC: threshold 0.45; ET: components below 62.5 mm³ dropped.",
        ),
        (
            {"ET": (0.7, 100.0)},
            ReplacementRule("ET", "TC", 500.0),
            "ET: threshold 0.7 and components below 100 mm³ dropped; ET below 500 mm³ becomes TC.",
        ),
    ],
)
def test_postprocessing_choice_is_described_in_words(
    rules: dict[str, tuple[float, float]], replacement: ReplacementRule | None, words: str
) -> None:
    assert choice_in_words(record(0, rules, replacement=replacement)) == words


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_postprocessing_table_shows_scores_and_choice(tmp_path: Path, protocol: str) -> None:
    records = [record(0, {"TC": (0.4, 0.0)}), record(1, {"TC": (0.5, 50.0)})]
    write_without_and_with(two_folds(protocol), records, tmp_path / "postprocessing")
    frame = pd.read_csv(tmp_path / "postprocessing.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(
        frame,
        without_and_with(two_folds(protocol)).reset_index(),
        check_exact=True,
        check_dtype=False,
    )
    cells = markdown_cells(tmp_path / "postprocessing.md")
    assert html_cells(tmp_path / "postprocessing.html") == cells
    assert latex_cells(tmp_path / "postprocessing.tex") == cells
    assert cells[0] == [
        "model",
        "region",
        "Dice without",
        "Dice with",
        "difference in Dice points [95 %]",
    ]
    expected = paired_difference(
        [np.array(WITH["Best Model"][f]) - np.array(WITHOUT["Best Model"][f]) for f in (0, 1)]
    )
    assert cells[1] == [
        "Best Model",
        "mean",
        "0.7125",
        "0.7688",
        f"{100 * expected.mean:+.2f} [{100 * expected.low:+.2f}, {100 * expected.high:+.2f}]",
    ]
    chosen = ["Fold 0: TC: threshold 0.4.", "Fold 1: TC: components below 50 mm³ dropped."]
    markdown = (tmp_path / "postprocessing.md").read_text()
    assert "\n\n".join(chosen) in markdown
    assert "<br>".join(chosen) in (tmp_path / "postprocessing.html").read_text()
    assert " ".join(chosen) in latex_caption(tmp_path / "postprocessing.tex")
    for ending in ("csv", "md", "html", "tex"):
        text = (tmp_path / f"postprocessing.{ending}").read_text().lower()
        assert (OPTIMISTIC in text) == (protocol == "published"), ending
