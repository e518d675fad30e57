"""Per-case scores: read exactly as written, and their means against plain Python."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.compared_folds import rows_of
from voxelsoup.common.errors import InputError
from voxelsoup.evaluation.case_scores import (
    ALL_REGIONS,
    COLUMNS,
    LOSS,
    by_case,
    case_mean,
    cases_of_regions,
    mean_dice,
    mean_score,
    measured_by,
    read_rows,
    region_means,
    region_weights,
    scores_of,
    summary,
    weighted_mean,
    write_rows,
)

scores = st.floats(0, 1, allow_subnormal=False)


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True),
        st.tuples(st.fixed_dictionaries({"TC": scores, "wt": scores}), st.floats(-5, 5)),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_means_match_plain_python_in_any_order(
    cases: dict[str, tuple[dict[str, float], float]], random: Random
) -> None:
    rows = rows_of(cases)
    means = {
        region: statistics.fmean(regions[region] for regions, _ in cases.values())
        for region in ("TC", "wt")
    }
    found = summary(rows)
    order = [f"test_{region.lower()}" for region in next(iter(cases.values()))[0]]
    assert list(found) == ["test_avg", *order, "test_loss"]
    assert found["test_tc"] == means["TC"] and found["test_wt"] == means["wt"]
    assert found["test_avg"] == statistics.fmean(means.values()) == mean_dice(rows)
    assert found["test_loss"] == statistics.fmean(loss for _, loss in cases.values())
    pandas = rows.groupby("region")["dice"].mean().mean()
    assert found["test_avg"] == pytest.approx(pandas, rel=1e-12)
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    assert mean_dice(rows.iloc[shuffled]) == found["test_avg"]


def test_region_means_are_correctly_rounded() -> None:
    dice_scores = {"a": 1e16, "b": 1.0, "c": 1.0, "d": -1e16}
    rows = rows_of({case: ({"TC": dice}, 0.0) for case, dice in dice_scores.items()})
    # Added from left to right, the small ones are lost.
    assert region_means(rows) == {"TC": 0.5}


def test_by_case_returns_one_region_or_the_mean_of_all() -> None:
    rows = rows_of(
        {"b": ({"TC": 0.25, "WT": 0.75}, 0.5), "a": ({"TC": 0.5, "WT": 0.625}, 0.125)}
    ).assign(hd95=[1.0, 3.0, 2.0, 4.0])
    assert by_case(rows).to_dict() == {"a": 0.5625, "b": 0.5}
    assert by_case(rows, region="WT").to_dict() == {"a": 0.625, "b": 0.75}
    assert by_case(rows, "hd95", ALL_REGIONS).to_dict() == {"a": 3.0, "b": 2.0}
    assert by_case(rows, "loss", "TC").to_dict() == {"a": 0.125, "b": 0.5}
    assert list(by_case(rows).index) == ["a", "b"]
    assert region_means(rows, "hd95") == {"TC": 1.5, "WT": 3.5}


def test_per_case_scores_are_read_exactly_as_written(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).random(400)
    rows = pd.DataFrame(
        {
            # Names that look like numbers or missing values.
            "case": np.tile(["001", "NA", "1e5", "nan", "Case,7"], 80),
            "region": np.repeat(["TC", "null"], 200),
            "dice": numbers,
            "loss": numbers[::-1] * 1e-9,
            "hd95": numbers * 374,
        }
    )
    rows.loc[3, ["loss", "hd95"]] = math.nan
    write_rows(tmp_path / "rows.csv", rows)
    back = read_rows(tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(back, rows, check_exact=True)
    assert back["case"].tolist() == rows["case"].tolist()
    write_rows(tmp_path / "again.csv", back)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()


def test_further_metrics_follow_dice_and_loss_in_a_fixed_order(tmp_path: Path) -> None:
    rows = rows_of({"a": ({"TC": 0.25}, 0.5)}).assign(precision=0.75, nsd=0.5, note="not a metric")
    assert measured_by(rows) == ["nsd", "precision"]
    write_rows(tmp_path / "rows.csv", rows)
    assert list(read_rows(tmp_path / "rows.csv")) == [*COLUMNS, "nsd", "precision"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "case,dice\nx,1\n",
        "case,region,dice,loss\n",
        None,
        "case,region,dice,loss\na,TC,high,1\n",
        "case,region,dice,loss,height\na,TC,1,1,1\n",
        "case,region,dice,loss,precision,nsd\na,TC,1,1,1,1\n",
    ],
)
def test_unusable_rows_name_the_file(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"rows\.csv: cannot be used"):
        read_rows(path)


def test_means_are_over_the_cases_in_which_a_region_is_annotated() -> None:
    rows = rows_of(
        {
            "a": ({"WT": 0.5}, 0.5),
            "b": ({"TC": 0.25, "WT": 0.75}, 0.25),
            "c": ({"TC": 0.5, "WT": 0.25, "ET": 1.0}, 0.0),
        }
    )
    # In the order of the case with most of them.
    assert list(region_means(rows).items()) == [("TC", 0.375), ("WT", 0.5), ("ET", 1.0)]
    assert mean_dice(rows) == pytest.approx((0.375 + 0.5 + 1) / 3)
    assert by_case(rows).to_dict() == {"a": 0.5, "b": 0.5, "c": pytest.approx(1.75 / 3)}
    assert list(by_case(rows, region="ET").index) == ["c"]
    assert cases_of_regions([rows, rows]) == {"mean": 6, "TC": 4, "WT": 6, "ET": 2}
    assert summary(rows)["test_loss"] == 0.25
    scores = scores_of(rows)
    assert mean_score(scores) == mean_dice(rows)
    # A case's part in the mean over the regions.
    weights = region_weights(scores)
    parts = [weighted_mean(score, weights) for score in scores.values()]
    assert statistics.fmean(parts) == pytest.approx(mean_dice(rows))
    everywhere = {case: {"TC": 0.3, "WT": 0.6, LOSS: 0.1} for case in "ab"}
    assert weighted_mean(everywhere["a"], region_weights(everywhere)) == case_mean(everywhere["a"])
