"""Other tools' label maps in a study's tables: as rows, and against the study's models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from support.compared_folds import compared, csv_cells, html_cells, scored
from voxelsoup.common.errors import InputError
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL
from voxelsoup.comparison.other_tools import against_tools, read_conclusions, write_against_tools
from voxelsoup.comparison.overview import overview, write_overview
from voxelsoup.comparison.statistics import holm, model_difference
from voxelsoup.comparison.terminal import print_other_tools, print_overview
from voxelsoup.comparison.tool_rows import (
    read_tools,
    shown_as_unknown,
    title_of,
    with_tools,
)
from voxelsoup.evaluation.case_scores import by_case, write_rows

GREEDY = "Greedy Soup"
CASES = 9


def dices(center: float, seed: int) -> list[float]:
    return [float(d) for d in center + np.random.default_rng(seed).normal(0, 0.02, CASES)]


@pytest.fixture
def folds() -> list[FoldComparison]:
    return [compared({GREEDY: dices(0.7, 1 + f)}, dices(0.68, 3 + f), fold=f) for f in (0, 1)]


def tool_scores(center: float, seed: int) -> pd.DataFrame:
    """Scores of label maps, which have no loss."""
    return scored(dices(center, seed)).drop(columns="loss")


def test_a_tool_is_a_row_of_which_nothing_but_its_scores_is_known(
    folds: list[FoldComparison], tmp_path: Path
) -> None:
    tools = {title_of("nnU-Net"): tool_scores(0.75, 9)}
    steps = {BEST_MODEL: 24, GREEDY: 1248} | dict.fromkeys(tools, 0)
    frame = shown_as_unknown(overview(with_tools(folds, tools), steps=steps), list(tools))
    write_overview(frame, tmp_path / "overview", tolerance=1.0)
    head, *rows = csv_cells(tmp_path / "overview.csv")
    cells = next(dict(zip(head, row, strict=True)) for row in rows if "nnU-Net" in row[0])
    assert (cells["model"], cells["region"]) == ("nnU-Net (other tool)", "mean")
    unknown = ["loss_mean", "ingredients", "models_per_prediction", "training_steps"]
    assert [cells[name] for name in unknown] == ["nan", "–", "–", "nan"]
    own = [by_case(fold.rows[BEST_MODEL]) for fold in folds]
    differences = [(by_case(*tools.values()) - best).to_numpy() for best in own]
    assert float(cells["dice_difference"]) == model_difference(differences).mean
    shown = {row[0]: row for row in html_cells(tmp_path / "overview.html") if row[1:2] == ["mean"]}
    assert shown["nnU-Net (other tool)"][-3:] == ["–", "–", "–"]
    assert shown[GREEDY][-3:] == ["1, 1", "2, 2", "1,248"]
    console = Console(record=True, width=80)
    print_overview(tmp_path / "overview.csv", console)
    assert "nnU-Net" in console.export_text()


def test_an_overview_without_tools_is_as_it_was(folds: list[FoldComparison]) -> None:
    frame = overview(folds, steps={BEST_MODEL: 1, GREEDY: 2})
    again = shown_as_unknown(overview(with_tools(folds, {}), steps={BEST_MODEL: 1, GREEDY: 2}), [])
    pd.testing.assert_frame_equal(frame, again)


def test_models_are_compared_with_each_tool_and_corrected_for_their_number(
    folds: list[FoldComparison], tmp_path: Path
) -> None:
    tools = {"nnU-Net": tool_scores(0.7, 9), "other": tool_scores(0.6, 8)}
    comparisons = with_tools(folds, tools)
    families = against_tools(comparisons, list(tools), GREEDY)
    assert [[(p.first, p.second) for p in family] for family in families] == [
        [(model, tool) for tool in tools] for model in (GREEDY, BEST_MODEL)
    ]
    for family in families:
        assert [p.p for p in family] == holm([p.usual.p_interval for p in family])
    first = families[0][1]
    values = [
        (by_case(fold.rows[GREEDY]) - by_case(fold.rows["other"])).to_numpy()
        for fold in comparisons
    ]
    assert first.usual == model_difference(values)
    assert first.sentence.startswith("greedy soup better than other by")

    write_against_tools(families, comparisons, tmp_path / "other_tools")
    assert "made outside of this study" in (tmp_path / "other_tools.html").read_text()
    assert first.sentence in read_conclusions(tmp_path / "other_tools.csv")
    assert len(read_conclusions(tmp_path / "other_tools.csv")) == 4
    console = Console(record=True, width=200)
    print_other_tools(tmp_path / "other_tools.csv", console)
    assert "Greedy soup better than other by" in console.export_text()
    assert [row[:2] for row in html_cells(tmp_path / "other_tools.html")[1:3]] == [
        ["Greedy Soup – nnU-Net", "mean"],
        ["Greedy Soup – nnU-Net", "TC"],
    ]


def test_a_tool_that_was_scored_on_other_cases_is_refused(folds: list[FoldComparison]) -> None:
    rows = tool_scores(0.7, 9)
    with pytest.raises(InputError, match="other cases or regions than the models of fold 0"):
        with_tools(folds, {"nnU-Net": rows[rows["case"] != "case03"]})


def test_scores_of_tools_are_read_by_their_names(tmp_path: Path) -> None:
    rows = tool_scores(0.7, 9)
    write_rows(tmp_path / "other_tools" / "nnU-Net" / "scores.csv", rows)
    pd.testing.assert_frame_equal(read_tools(tmp_path, ["nnU-Net"])["nnU-Net"], rows)
