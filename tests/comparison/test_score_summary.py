"""Means of per-case scores with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from voxelsoup.comparison.score_summary import means_of
from voxelsoup.comparison.statistics import paired_difference


def rows_of(dice: list[float], distances: list[float]) -> pd.DataFrame:
    cases = [f"case{number}" for number in range(len(dice))]
    scores = {"dice": dice, "hd95": distances, "loss": [0.1] * len(dice)}
    return pd.DataFrame({"case": cases, "region": "WT", **scores})


def test_the_interval_of_a_mean_holds_no_scores_that_there_are_not() -> None:
    """Of three cases it is that of Student's t, which knows no highest Dice."""
    means = means_of([rows_of([0.99, 0.9, 0.2], [0.0, 0.1, 9.0])], {})
    plain = paired_difference([np.array([0.99, 0.9, 0.2])])
    assert plain.low < 0 and plain.high > 1
    assert (means["dice"]["mean"].low, means["dice"]["mean"].high) == (0, 1)
    assert means["hd95"]["WT"].low == 0 and means["hd95"]["WT"].high > 9


def test_means_are_over_cases_and_their_intervals_over_patients() -> None:
    rows = rows_of([0.9, 0.91, 0.7, 0.71, 0.8, 0.81, 0.6, 0.61], [1.0] * 8)
    patients = {f"case{number}": f"patient{number // 2}" for number in range(8)}
    by_patient, by_case = means_of([rows], patients), means_of([rows], {})
    found, alone = by_patient["dice"]["WT"], by_case["dice"]["WT"]
    assert found.mean == alone.mean == pytest.approx(0.755)
    assert (found.patients, alone.patients) == (4, 8)
    assert found.high - found.low > 1.3 * (alone.high - alone.low)
