"""The published table of a fold, and the overview: against means written out in plain Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from support.compared_folds import (
    BEST_TRIAL,
    REGIONS,
    compared,
    csv_cells,
    html_cells,
    latex_caption,
    latex_cells,
    markdown_cells,
)
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.overview import (
    fold_table,
    overview,
    published_columns,
    read_overview,
    shown_overview,
    write_fold_table,
    write_overview,
)
from voxelsoup.comparison.statistics import paired_difference
from voxelsoup.comparison.terminal import print_overview, terminal_table

# Fold 0 of the published study, digit for digit.
PUBLISHED = """\
metric,Best Model (Fold 0),Greedy Soup (Fold 0)
test_avg,0.8220043778419495,0.8254003524780273
test_et,0.7842099070549011,0.7878062725067139
test_loss,0.19675968370089927,0.19331554230302572
test_tc,0.8237403035163879,0.8270795941352844
test_wt,0.8580629825592041,0.8613150715827942
"""
REGION_ORDER = ["avg", "tc", "wt", "et", "loss"]
MADE_UP = {1: [0.8312, 0.7999, 0.1876543210987654], 2: [1 / 3, 2 / 3, 0.25]}


@dataclass(frozen=True)
class Published(FoldComparison):
    """A fold whose summaries are given: no per-case scores have a mean in single precision."""

    published: str = PUBLISHED

    @property
    def columns(self) -> dict[str, dict[str, float]]:
        head, *lines = [line.split(",") for line in self.published.splitlines()]
        found = {}
        for place, name in enumerate(head[1:], 1):
            values = {line[0]: float(line[place]) for line in lines}
            # As a summary has them: the regions in the study's order.
            in_order = {f"test_{name}": values[f"test_{name}"] for name in REGION_ORDER}
            found[name.partition(" (")[0]] = in_order
        return {title: found.get(title, dict.fromkeys(in_order, 0.5)) for title in self.rows}


def published_fold(
    published: str = PUBLISHED, fold: int = 0, protocol: str = "held-out"
) -> Published:
    """A fold of a study with more recipes than the published one."""
    titles = ["Uniform Soup", "Greedy Soup", "Ensemble"]
    plain = compared(
        {key: [0.5] for key in titles},
        [0.5],
        fold,
        protocol,
        ingredients={"Uniform Soup": 10, "Greedy Soup": 4, "Ensemble": 10},
        costs={"Ensemble": 10},
    )
    return Published(**vars(plain), published=published)


def made_up(fold: int) -> str:
    """The published table of a fold whose soup is the best model."""
    avg, et, loss = MADE_UP[fold]
    values = {"avg": avg, "et": et, "loss": loss, "tc": avg, "wt": avg}
    lines = [f"test_{name},{value!r},{value!r}" for name, value in values.items()]
    head = f"metric,Best Model (Fold {fold}),Greedy Soup (Fold {fold})"
    return "\n".join([head, *lines, ""])


@pytest.mark.parametrize("published", [PUBLISHED, made_up(1), made_up(2)])
def test_published_numbers_print_the_published_table_in_every_file(
    tmp_path: Path, published: str
) -> None:
    fold = int(published[published.index("Fold ") + 5])
    write_fold_table(published_fold(published, fold), tmp_path / "table")
    assert (tmp_path / "table.csv").read_text() == published
    expected = [line.split(",") for line in published.splitlines()]
    assert markdown_cells(tmp_path / "table.md") == expected
    assert html_cells(tmp_path / "table.html") == expected
    assert latex_cells(tmp_path / "table.tex") == expected
    captions = [(tmp_path / "table.md").read_text().partition("\n")[0]]
    captions += [(tmp_path / "table.html").read_text(), latex_caption(tmp_path / "table.tex")]
    for caption in captions:
        assert f"Best Model is trial {BEST_TRIAL}, whose mean Dice on the selection" in caption
        assert "the highest of 2 trials" in caption
        assert "Ingredients of Greedy Soup: 4." in caption
        assert "ptimistic" not in caption and "Ensemble" not in caption


def test_per_case_scores_are_summarized_in_the_published_table(tmp_path: Path) -> None:
    fold = compared({"Greedy Soup": [0.5, 0.75]}, [0.25, 0.5], 2)
    write_fold_table(fold, tmp_path / "fold2")
    assert csv_cells(tmp_path / "fold2.csv") == [
        ["metric", "Best Model (Fold 2)", "Greedy Soup (Fold 2)"],
        ["test_avg", "0.375", "0.625"],
        ["test_et", "0.40625", "0.65625"],
        ["test_loss", "0.625", "0.375"],
        ["test_tc", "0.4375", "0.6875"],
        ["test_wt", "0.28125", "0.53125"],
    ]


def test_overview_rows_are_alphabetical_for_any_regions() -> None:
    numbers = {"test_avg": 0.1, "test_zone": 0.2, "test_core": 0.3, "test_loss": 0.4}
    table = fold_table(3, {"Best Model": numbers}, "held-out")
    assert list(table.index) == ["test_avg", "test_core", "test_loss", "test_zone"]
    assert table["Best Model (Fold 3)"].tolist() == [0.1, 0.3, 0.4, 0.2]


@pytest.mark.parametrize(
    ("titles", "shown"),
    [
        (["Uniform Soup", "Greedy Soup", "Ensemble"], ["Best Model", "Greedy Soup"]),
        (["Ensemble"], ["Best Model", "Ensemble"]),
        (["Best Single"], ["Best Model", "Best Single"]),
        (["Uniform Soup", "Ensemble"], ["Best Model", "Uniform Soup"]),
        ([], ["Best Model"]),
    ],
)
def test_published_table_has_two_columns_for_any_recipes(
    titles: list[str], shown: list[str]
) -> None:
    assert list(published_columns(compared({key: [0.5] for key in titles}, [0.5]))) == shown


def test_overview_counts_checkpoints_as_models_of_trials(tmp_path: Path) -> None:
    trials = {"bbbb0000": [0.5], "bbbb0000/raw-1": [0.5]}
    write_fold_table(compared({"Greedy Soup": [0.5]}, [0.5], trials=trials), tmp_path / "fold0")
    assert "the highest of 3 models of the trials." in (tmp_path / "fold0.md").read_text()


def test_the_best_model_is_called_by_what_distinguishes_its_trial(tmp_path: Path) -> None:
    labels = {BEST_TRIAL: "lr 0.03, seed 1"}
    write_fold_table(compared({"Greedy Soup": [0.5]}, [0.5]), tmp_path / "fold0", labels)
    assert f"trial lr 0.03, seed 1 ({BEST_TRIAL}), whose" in (tmp_path / "fold0.md").read_text()


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_the_published_protocol_is_marked_in_every_file(tmp_path: Path, protocol: str) -> None:
    fold = published_fold(protocol=protocol)
    write_fold_table(fold, tmp_path / "fold0")
    write_overview(overview([fold]), tmp_path / "overview", 1.0)
    for name in ("fold0", "overview"):
        for ending in ("csv", "md", "html", "tex"):
            text = (tmp_path / f"{name}.{ending}").read_text().lower()
            mark = "optimistic" if (name, ending) == ("fold0", "csv") else OPTIMISTIC
            assert (mark in text) == (protocol == "published"), (name, ending)
    head = csv_cells(tmp_path / "fold0.csv")[0][0]
    optimistic = protocol == "published"
    assert head == ("metric (published protocol, optimistic)" if optimistic else "metric")


# Folds of unlike size, so that a mean of folds and a mean of cases differ.
BEST = {0: [0.5, 0.625, 0.75, 0.375], 1: [0.875, 0.8125], 4: [0.25, 0.375, 0.5]}
SOUP = {0: [0.625, 0.6875, 0.71875, 0.5], 1: [0.875, 0.84375], 4: [0.375, 0.375, 0.5625]}


def three_folds(protocol: str = "held-out") -> list[FoldComparison]:
    return [
        compared(
            {"Greedy Soup": SOUP[fold], "Ensemble": SOUP[fold]},
            BEST[fold],
            fold,
            protocol,
            ingredients={"Greedy Soup": fold + 2, "Ensemble": 5 - fold},
            costs={"Ensemble": 5 - fold},
            postprocessed={
                "Best Model": [dice + 0.03125 for dice in BEST[fold]],
                "Greedy Soup": SOUP[fold],
                "Ensemble": SOUP[fold],
            },
        )
        for fold in BEST
    ]


def row_of(frame: pd.DataFrame, model: str, region: str = "mean") -> pd.Series:
    (row,) = [
        row for _, row in frame.iterrows() if (row["model"], row["region"]) == (model, region)
    ]
    return row


def differences(soup: dict[int, list[float]] = SOUP) -> list[NDArray[np.float64]]:
    return [np.array(soup[fold]) - np.array(BEST[fold]) for fold in BEST]


def test_overview_has_one_row_per_model_and_region() -> None:
    frame = overview(three_folds())
    regions = ["mean", *REGIONS]
    assert list(zip(frame["model"], frame["region"], strict=True)) == [
        (model, region) for model in ("Best Model", "Greedy Soup", "Ensemble") for region in regions
    ]
    assert set(frame["protocol"]) == {"held-out"}


def test_means_and_deviations_are_over_the_folds() -> None:
    # Whatever the order of the folds.
    frame = overview(three_folds()[::-1])
    for region, more in {"mean": 0.0, **REGIONS}.items():
        for model, dices in {"Best Model": BEST, "Greedy Soup": SOUP}.items():
            means = [statistics.fmean(values) + more for values in dices.values()]
            row = row_of(frame, model, region)
            assert row["dice_mean"] == pytest.approx(statistics.fmean(means), rel=1e-14)
            assert row["dice_std"] == pytest.approx(statistics.stdev(means), rel=1e-12)
    losses = [1 - statistics.fmean(values) for values in SOUP.values()]
    soup = row_of(frame, "Greedy Soup")
    assert soup["loss_mean"] == pytest.approx(statistics.fmean(losses), rel=1e-14)
    assert soup["loss_std"] == pytest.approx(statistics.stdev(losses), rel=1e-12)


def test_overview_difference_is_over_all_cases_with_the_interval_of_statistics() -> None:
    frame = overview(three_folds())
    expected = paired_difference(differences())
    for region in ("mean", *REGIONS):
        row = row_of(frame, "Greedy Soup", region)
        found = tuple(row[f"dice_{end}"] for end in ("difference", "low", "high"))
        assert found == pytest.approx((expected.mean, expected.low, expected.high), rel=1e-9)
    row = row_of(frame, "Greedy Soup")
    # The loss is one minus Dice here.
    found = tuple(row[f"loss_{end}"] for end in ("difference", "high", "low"))
    assert found == pytest.approx((-expected.mean, -expected.low, -expected.high), rel=1e-9)
    best = row_of(frame, "Best Model")
    assert all(math.isnan(best[f"dice_{end}"]) for end in ("difference", "low", "high"))


def test_interval_of_one_fold_is_near_that_of_the_t_test() -> None:
    rng = np.random.default_rng(3)
    best = rng.uniform(0.5, 0.7, 40)
    soup = best + rng.normal(0.02, 0.03, 40)
    row = row_of(overview([compared({"Greedy Soup": soup}, best)]), "Greedy Soup")
    interval = stats.ttest_rel(soup, best).confidence_interval()
    assert row["dice_difference"] == pytest.approx(np.mean(soup - best), rel=1e-9)
    assert row["dice_low"] == pytest.approx(interval.low, abs=1e-3)
    assert row["dice_high"] == pytest.approx(interval.high, abs=1e-3)


def test_overview_lists_cases_folds_ingredients_and_cost_in_fold_order() -> None:
    frame = overview(three_folds()[::-1])
    for model, ingredients, cost in [
        ("Best Model", "1, 1, 1", "1, 1, 1"),
        ("Greedy Soup", "2, 3, 6", "1, 1, 1"),
        ("Ensemble", "5, 4, 1", "5, 4, 1"),
    ]:
        row = row_of(frame, model)
        assert (row["cases"], row["folds"]) == (9, "0, 1, 4")
        assert (row["ingredients"], row["models_per_prediction"]) == (ingredients, cost)


def test_overview_has_the_loss_for_all_regions_only() -> None:
    frame = overview(three_folds())
    assert frame.loc[frame["region"] == "mean", "loss_mean"].notna().all()
    assert frame.loc[frame["region"] != "mean", "loss_mean"].isna().all()


def with_distances(fold: FoldComparison, soup: float) -> FoldComparison:
    rows = {
        title: rows.assign(
            hd95=[4.0, 6.0, 8.0] * (len(rows) // 3) + np.array(soup) * (title != "Best Model")
        )
        for title, rows in fold.rows.items()
    }
    return replace(fold, rows=rows)


def test_further_metrics_have_the_same_columns(tmp_path: Path) -> None:
    folds = [with_distances(fold, -1.5) for fold in three_folds()]
    frame = overview(folds)
    row = row_of(frame, "Greedy Soup", "WT")
    assert row["hd95_mean"] == 4.5 and row["hd95_std"] == 0.0
    assert tuple(row[f"hd95_{end}"] for end in ("difference", "low", "high")) == (-1.5,) * 3
    assert row_of(frame, "Best Model")["hd95_mean"] == 6.0
    columns = [name for name in frame if name.endswith("_mean")]
    assert columns == ["dice_mean", "hd95_mean", "loss_mean"]
    shown = shown_overview(frame)
    assert list(shown) == [
        "model",
        "region",
        "Dice",
        "difference in Dice points [95 %]",
        "HD95 (mm)",
        "loss",
        "models per prediction",
        "ingredients",
    ]
    assert row_of(shown, "Greedy Soup", "WT")["HD95 (mm)"] == "4.50 ± 0.00"


def test_postprocessed_overview_uses_the_postprocessed_scores(tmp_path: Path) -> None:
    frame = overview(three_folds(), after_postprocessing=True)
    means = [statistics.fmean(values) + 0.03125 for values in BEST.values()]
    best = row_of(frame, "Best Model")
    assert best["dice_mean"] == pytest.approx(statistics.fmean(means), rel=1e-14)
    expected = paired_difference([fold - 0.03125 for fold in differences()])
    soup = row_of(frame, "Greedy Soup")
    assert soup["dice_difference"] == pytest.approx(expected.mean, rel=1e-9)
    assert soup["dice_low"] == pytest.approx(expected.low, rel=1e-9)
    write_overview(frame, tmp_path / "after", 1.0, after_postprocessing=True)
    write_overview(frame, tmp_path / "before", 1.0)
    for ending in ("md", "html", "tex"):
        assert (
            "Folds 0, 1 and 4 with 9 test cases, after post-processing"
            in (tmp_path / f"after.{ending}").read_text()
        )
        assert "after post-processing" not in (tmp_path / f"before.{ending}").read_text()


def test_overview_csv_is_read_back_exactly(tmp_path: Path) -> None:
    folds = [
        replace(fold, rows={t: r.replace({"region": {"TC": "NA"}}) for t, r in fold.rows.items()})
        for fold in three_folds("published")
    ]
    frame = overview(folds)
    write_overview(frame, tmp_path / "overview", 1.0)
    back = read_overview(tmp_path / "overview.csv")
    pd.testing.assert_frame_equal(back, frame, check_exact=True, check_dtype=False)


def test_overview_pages_show_the_same_cells_in_every_format(tmp_path: Path) -> None:
    frame = overview(three_folds())
    write_overview(frame, tmp_path / "overview", 1.0)
    cells = markdown_cells(tmp_path / "overview.md")
    assert html_cells(tmp_path / "overview.html") == cells
    assert latex_cells(tmp_path / "overview.tex") == cells
    head = cells[0]
    (soup,) = [
        dict(zip(head, row, strict=True)) for row in cells if row[:2] == ["Ensemble", "mean"]
    ]
    means = [statistics.fmean(values) for values in SOUP.values()]
    assert soup["Dice"] == f"{statistics.fmean(means):.4f} ± {statistics.stdev(means):.4f}"
    expected = paired_difference(differences())
    assert soup["difference in Dice points [95 %]"] == (
        f"{100 * expected.mean:+.2f} [{100 * expected.low:+.2f}, {100 * expected.high:+.2f}]"
    )
    assert (soup["models per prediction"], soup["ingredients"]) == ("5, 4, 1", "5, 4, 1")
    (region,) = [
        dict(zip(head, row, strict=True)) for row in cells if row[:2] == ["Ensemble", "ET"]
    ]
    assert (region["loss"], region["models per prediction"], region["ingredients"]) == ("–", "", "")
    (best,) = [row for row in cells if row[:2] == ["Best Model", "mean"]]
    assert best[head.index("difference in Dice points [95 %]")] == "–"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_model_that_diverged_is_in_the_overview(tmp_path: Path, loss: float) -> None:
    folds = three_folds()
    lost = folds[0].rows["Greedy Soup"].copy()
    lost.loc[lost["case"] == "case00", "loss"] = loss
    folds[0] = replace(folds[0], rows=folds[0].rows | {"Greedy Soup": lost})
    frame = overview(folds)
    row = row_of(frame, "Greedy Soup")
    assert repr(row["loss_mean"]) == repr(loss) and math.isnan(row["loss_std"])
    # The other eight cases have one.
    rest = [-fold for fold in differences()]
    rest[0] = rest[0][1:]
    assert row["loss_difference"] == pytest.approx(paired_difference(rest).mean, rel=1e-9)
    write_overview(frame, tmp_path / "overview", 1.0)


def printed(frame: pd.DataFrame, folder: Path, width: int = 80) -> list[str]:
    write_overview(frame, folder / "overview", 1.0)
    console = Console(width=width, record=True, file=(folder / "out").open("w"))
    print_overview(folder / "overview.csv", console)
    return console.export_text().splitlines()


@pytest.mark.parametrize("protocol", ["held-out", "published"])
@pytest.mark.parametrize("others", [[], ["Uniform Soup"], ["Uniform Soup", "Ensemble"]])
def test_the_terminal_table_fits_80_columns_line_by_line(
    tmp_path: Path, protocol: str, others: Sequence[str]
) -> None:
    # As wide as numbers get: two digits of points, all of them negative.
    folds = [
        compared(
            {key: [0.5 - 0.1 * fold, 0.1, 0.45] for key in ["Greedy Soup", *others]},
            [0.75, 0.9, 0.5],
            fold,
            protocol,
            ingredients=dict.fromkeys(["Greedy Soup", *others], 10),
            costs={"Ensemble": 10} if "Ensemble" in others else {},
        )
        for fold in range(3)
    ]
    lines = printed(overview(folds), tmp_path)
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if line.strip()]
    rows = ["test_avg", "test_tc", "test_wt", "test_et", "test_loss", "difference"]
    start = first.index("test_avg")
    assert first[start : start + len(rows)] == rows
    interval = lines[next(i for i, line in enumerate(lines) if "difference" in line) + 1]
    assert interval.split("[")[0].strip() == ""
    assert interval.count("[-") == interval.count("]") == 1 + len(others)
    assert first[start + len(rows) + 1 :][:3] == ["ingredients", "models", "prediction"]
    assert not any("…" in line for line in lines)
    assert any(OPTIMISTIC in line.lower() for line in lines) == (protocol == "published")


def test_the_terminal_table_shows_the_numbers(tmp_path: Path) -> None:
    text = "\n".join(printed(overview(three_folds()), tmp_path))
    means = [statistics.fmean(values) for values in SOUP.values()]
    assert f"{statistics.fmean(means):.4f} ± {statistics.stdev(means):.4f}" in text
    expected = paired_difference(differences())
    assert f"{100 * expected.mean:+.2f}" in text
    assert f"[{100 * expected.low:+.2f}, {100 * expected.high:+.2f}]" in text
    assert "5, 4, 1" in text and "folds 0, 1 and 4" in text


def test_overview_of_one_fold_prints_without_a_deviation(tmp_path: Path) -> None:
    lines = printed(overview([compared({"Greedy Soup": SOUP[0]}, BEST[0])]), tmp_path)
    frame = read_overview(tmp_path / "overview.csv")
    assert frame["dice_std"].isna().all()
    text = "\n".join(lines)
    assert "Best Model" in text and "0.6328" in text and "+7.03" in text
    assert "fold 0" in text and "nan" not in text
    assert f"{statistics.fmean(SOUP[0]):.4f}" == "0.6328"
    for ending in ("md", "html", "tex"):
        assert "nan" not in (tmp_path / f"overview.{ending}").read_text()


def test_one_case_has_no_interval(tmp_path: Path) -> None:
    text = "\n".join(printed(overview([compared({"Greedy Soup": [0.75]}, [0.5])]), tmp_path))
    assert (tmp_path / "overview.md").read_text().startswith("Fold 0 with one test case; ")
    assert "+25.00" in text and "[" not in text and "nan" not in text


def test_terminal_table_of_two_models_is_not_squeezed(tmp_path: Path) -> None:
    table = terminal_table(overview([compared({"Greedy Soup": [0.5]}, [0.5], 0, "published")]))
    assert table.padding != (0, 0, 0, 0)


def test_the_overview_says_what_a_model_cost_in_training_where_that_is_known() -> None:
    folds = three_folds()
    steps = {title: 1000 * place for place, title in enumerate(folds[0].rows, start=1)}
    frame = overview(folds, steps=steps)
    shown = shown_overview(frame)
    means = shown[shown["region"] == "mean"].set_index("model")["training steps"]
    assert means.to_dict() == {title: f"{number:,}" for title, number in steps.items()}
    assert set(shown.loc[shown["region"] != "mean", "training steps"]) == {""}
    assert "training_steps" not in overview(folds)
