"""The models of a study on a data set that no fold has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxelsoup.common.errors import InputError
from voxelsoup.comparison.test_sets import read_test_set, write_test_set
from voxelsoup.evaluation.case_scores import write_rows

CASES = [f"case{number}" for number in range(8)]
MODELS = ["best", "soups/greedy", "soups/ensemble"]


def write_scores(folder: Path, cases: list[str] = CASES) -> dict[tuple[int, str], pd.DataFrame]:
    """Scores of three models of two folds; the soup is the better one."""
    random, written = np.random.default_rng(0), {}
    for fold in (0, 1):
        for number, model in enumerate(MODELS):
            rows = pd.DataFrame(
                [
                    {"case": case, "region": region, "dice": dice, "hd95": 10 * (1 - dice)}
                    for case in cases
                    for region in ("WT", "ET")
                    for dice in [0.8 + 0.02 * number + random.uniform(-0.05, 0.05)]
                ]
            )
            write_rows(folder / f"fold{fold}" / model / "scores.csv", rows)
            written[fold, model] = rows
    return written


def test_a_case_counts_once_however_many_folds_have_predicted_it(tmp_path: Path) -> None:
    written = write_scores(tmp_path)
    found = read_test_set(tmp_path, [0, 1], MODELS)
    assert list(found) == ["Best Model", "Greedy Soup", "Ensemble"]

    def by_hand(model: str) -> np.ndarray:
        tables = [written[fold, model].groupby("case")["dice"].mean() for fold in (0, 1)]
        return np.mean(tables, axis=0)

    soup = found["Greedy Soup"]
    scored = soup.means["dice"]["mean"]
    assert scored.cases == len(CASES) and scored.low < scored.mean < scored.high
    assert scored.mean == pytest.approx(by_hand("soups/greedy").mean())
    assert soup.means["hd95"]["ET"].mean == pytest.approx(10 - 10 * soup.means["dice"]["ET"].mean)
    assert soup.difference is not None and found["Best Model"].difference is None
    apart = by_hand("soups/greedy") - by_hand("best")
    assert soup.difference.mean == pytest.approx(apart.mean())
    # Holm: two comparisons were made.
    raw = [stats.wilcoxon(by_hand(model) - by_hand("best")).pvalue for model in MODELS[1:]]
    adjusted = sorted(found[title].p for title in ("Greedy Soup", "Ensemble"))
    assert adjusted[0] == pytest.approx(2 * min(raw))


def test_the_patients_of_a_test_set_are_resampled_not_its_visits(tmp_path: Path) -> None:
    visits = [f"BraTS-GLI-{number // 4:05}-{number % 4:03}" for number in range(24)]
    write_scores(tmp_path / "visits", visits)
    write_scores(tmp_path / "cases", [f"case{number:02}" for number in range(24)])
    of_visits, of_cases = (
        read_test_set(tmp_path / name, [0, 1], MODELS)["Greedy Soup"]
        for name in ("visits", "cases")
    )
    assert of_visits.difference is not None and of_cases.difference is not None
    assert (of_visits.difference.patients, of_cases.difference.patients) == (6, 24)
    scored = of_visits.means["dice"]["mean"]
    assert (scored.patients, scored.cases) == (6, 24)
    # The same scores.
    assert scored.mean == of_cases.means["dice"]["mean"].mean
    assert of_visits.difference.p != of_cases.difference.p


def test_the_table_has_all_metrics_and_differences_of_the_others(tmp_path: Path) -> None:
    write_scores(tmp_path)
    write_test_set(read_test_set(tmp_path, [0, 1], MODELS), tmp_path / "comparison", "other (x)")
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert len(table) == 3 * 2 * 3 and set(table["metric"]) == {"dice", "hd95"}
    compared = table.dropna(subset=["difference"])
    assert list(compared["model"]) == ["Greedy Soup", "Ensemble"]
    shown = (tmp_path / "comparison.md").read_text()
    assert shown.startswith("Test set other (x): mean over 8 cases") and "HD95 (mm)" in shown
    assert (tmp_path / "comparison.html").exists() and (tmp_path / "comparison.tex").exists()


def test_models_that_were_scored_on_other_cases_are_refused(tmp_path: Path) -> None:
    write_scores(tmp_path)
    other = write_scores(tmp_path / "less", CASES[:-1])[1, "best"]
    write_rows(tmp_path / "fold1/best/scores.csv", other)
    with pytest.raises(InputError, match="has other cases or regions"):
        read_test_set(tmp_path, [0, 1], MODELS)


def test_regions_that_are_not_annotated_in_a_test_set_are_left_out_of_its_means(
    tmp_path: Path,
) -> None:
    for (fold, model), rows in write_scores(tmp_path).items():
        some = rows[(rows["region"] != "ET") | rows["case"].isin(CASES[:3])]
        write_rows(tmp_path / f"fold{fold}" / model / "scores.csv", some)
    found = read_test_set(tmp_path, [0, 1], MODELS)
    dice = found["Greedy Soup"].means["dice"]
    assert list(dice) == ["mean", "WT", "ET"]
    assert [dice[region].cases for region in dice] == [8, 8, 3]
    write_test_set(found, tmp_path / "comparison", "other")
    assert "Of 8 cases, ET is annotated in 3" in (tmp_path / "comparison.md").read_text()
