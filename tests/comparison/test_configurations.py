"""The table over configurations, from made-up scores."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from support.compared_folds import REGIONS, scored
from voxelsoup.comparison.configurations import (
    Compared,
    compare_configurations,
    cost_of,
    read_configurations,
    sentence,
    write_configurations,
)
from voxelsoup.comparison.statistics import model_difference

FIRST = {0: [0.5, 0.6, 0.7, 0.55], 1: [0.6, 0.7, 0.65, 0.75]}
# A hundredth better in each case.
WIDE = {fold: [dice + 0.01 for dice in values] for fold, values in FIRST.items()}
BOTH = {fold: [dice + gain for dice, gain in zip(values, [0.01, 0.02, 0.0, 0.03], strict=True)]
        for fold, values in FIRST.items()}  # fmt: skip


def compared(
    names: tuple[str, ...], folds: dict[int, list[float]], selection: float, seconds: float = 1.0
) -> Compared:
    rows = {fold: scored(values) for fold, values in folds.items()}
    after = {fold: scored([dice - 0.1 for dice in values]) for fold, values in folds.items()}
    return Compared(names, "Greedy Soup", selection, rows, after, seconds, 100.0)


@pytest.fixture
def table() -> pd.DataFrame:
    models = [
        compared(("first",), FIRST, 0.7),
        compared(("wide",), WIDE, 0.72),
        compared(("first", "wide"), BOTH, 0.75, seconds=3.0),
    ]
    return compare_configurations(models, "wide", ("first", "wide"), {})


def test_each_row_has_its_means_and_its_difference_from_the_best_configuration(
    table: pd.DataFrame,
) -> None:
    assert list(table.index) == ["first", "wide", "first + wide"]
    expected = fmean(map(fmean, FIRST.values()))
    assert table["test_dice"].iloc[0] == pytest.approx(expected)
    assert table["test_dice_TC"].iloc[0] == pytest.approx(expected + REGIONS["TC"])
    assert table["test_dice_postprocessed"].iloc[0] == pytest.approx(expected - 0.1)
    assert table["difference"].tolist()[:1] == pytest.approx([-0.01])
    assert math.isnan(table.loc["wide", "difference"])
    gains = [0.0, 0.01, -0.01, 0.02]
    row = table.loc["first + wide"]
    by_hand = model_difference([pd.Series(gains).to_numpy()] * 2, 1 - row["level"])
    ends = row["difference"], row["difference_low"], row["difference_high"]
    assert ends == pytest.approx((by_hand.mean, by_hand.low, by_hand.high), nan_ok=True)
    # That of first is the smallest there is: it is tested first, at half the level.
    assert table["level"].dropna().tolist() == [0.025, 0.05]
    assert row["p_holm"] == pytest.approx(by_hand.p_interval)
    assert table["chosen"].tolist() == [False, False, True]
    assert (row["networks"], row["folds"], row["cases"]) == (2, 2, 8)


def test_cases_of_one_patient_are_one_patient() -> None:
    models = [compared(("first",), FIRST, 0.7), compared(("first", "wide"), BOTH, 0.75)]
    names = [f"case{number:02}" for number in range(4)]
    alone = compare_configurations(models, "first", ("first",), {}).loc["first + wide"]
    twins = compare_configurations(
        models, "first", ("first",), dict(zip(names, "aabb", strict=True))
    ).loc["first + wide"]
    assert alone["difference"] == twins["difference"]
    assert alone["p_holm"] != twins["p_holm"]


def test_an_ensemble_costs_the_seconds_of_all_and_the_memory_of_the_largest() -> None:
    folds = [
        {"a": {"seconds": 1.0, "memory_mb": 50.0}, "b": {"seconds": 2.0, "memory_mb": 70.0}},
        {"a": {"seconds": 3.0, "memory_mb": 60.0}, "b": {"seconds": 4.0, "memory_mb": 40.0}},
    ]
    assert cost_of(folds, ("a",)) == (2.0, 60.0)
    assert cost_of(folds, ("a", "b")) == (5.0, 70.0)


def test_one_sentence_says_what_is_chosen(table: pd.DataFrame) -> None:
    text = sentence(table)
    assert text.startswith("By the selection cases the ensemble of the configurations first and ")
    assert "from wide, the best configuration alone, at 2 times the networks" in text
    alone = table.assign(chosen=[False, True, False])
    assert sentence(alone) == (
        "By the selection cases the configuration wide is the best, with a mean Dice of "
        f"{table.loc['wide', 'test_dice']:.4f} on the test cases."
    )


def test_the_table_is_written_for_programs_papers_and_the_report(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    write_configurations(table, tmp_path / "configurations", "held-out", "a GPU")
    again = read_configurations(tmp_path / "configurations.csv")
    pd.testing.assert_frame_equal(again, table)
    page = (tmp_path / "configurations.html").read_text()
    assert "first + wide" in page
    assert "a GPU" in page
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md", ".tex", ".html"}
