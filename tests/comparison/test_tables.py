"""Tables of any kind: the same cells in every file, and numbers rounded for readers."""

from __future__ import annotations

import math
import re
import string
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.compared_folds import csv_cells, html_cells, latex_caption, latex_cells, markdown_cells
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.statistics import Difference, paired_difference
from voxelsoup.comparison.tables import (
    decimals,
    heading,
    shown_difference,
    shown_interval,
    shown_p,
    spread,
    write_table,
)

CAPTION = "Dice & loss_1 of 5 % < all: ±.\n\nA second paragraph of #2."


def table_of(cells: dict[str, list[str]], index: list[str], name: str = "model") -> pd.DataFrame:
    return pd.DataFrame(cells, index=pd.Index(index, name=name))


def test_all_files_show_the_same_cells(tmp_path: Path) -> None:
    awkward = string.punctuation + "±×≥³–"
    # So long that pandas would shorten it for a terminal.
    shown = table_of(
        {"a_b (%)": ["0.8512 ± 0.0031", awkward, "x" * 200], "[95 %] & more": ["", "< 0.001", "1"]},
        ["Greedy_Soup", "100 %", "y" * 200],
    )
    frame = shown.assign(number=[0.1, 1 / 3, math.nan])
    write_table(frame, shown, tmp_path / "table.v2", CAPTION, False)
    expected = [[shown.index.name, *shown.columns], *(list(row) for row in shown.itertuples())]
    for read, ending in [(markdown_cells, "md"), (html_cells, "html"), (latex_cells, "tex")]:
        assert read(tmp_path / f"table.v2.{ending}") == expected, ending
    numbers = [row[-1] for row in csv_cells(tmp_path / "table.v2.csv")]
    assert numbers == ["number", "0.1", repr(1 / 3), "nan"]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_long_table_is_not_cut_off(tmp_path: Path) -> None:
    names = [f"model {number}" for number in range(200)]
    shown = table_of({"Dice": names}, names)
    write_table(shown, shown, tmp_path / "table", CAPTION, False)
    expected = [["model", "Dice"], *([name, name] for name in names)]
    for read, ending in [(markdown_cells, "md"), (html_cells, "html"), (latex_cells, "tex")]:
        assert read(tmp_path / f"table.{ending}") == expected, ending


def test_a_table_without_rows_has_its_head(tmp_path: Path) -> None:
    shown = table_of({"Dice": [], "p": []}, [])
    write_table(shown, shown, tmp_path / "table", CAPTION, False)
    for read, ending in [(markdown_cells, "md"), (html_cells, "html"), (latex_cells, "tex")]:
        assert read(tmp_path / f"table.{ending}") == [["model", "Dice", "p"]], ending


@pytest.mark.parametrize("optimistic", [False, True])
def test_every_file_has_the_caption_and_marks_optimistic_scores(
    tmp_path: Path, optimistic: bool
) -> None:
    shown = table_of({"Dice": ["1"]}, ["a"])
    write_table(shown, shown, tmp_path / "table", CAPTION, optimistic)
    page = (tmp_path / "table.html").read_text()
    caption = re.search(r"<caption>(.*?)</caption>", page, re.S)[1]
    assert caption.startswith("Dice &amp; loss_1 of 5 % &lt; all: ±.<br>A second paragraph of #2.")
    assert (tmp_path / "table.md").read_text().startswith(CAPTION)
    assert latex_caption(tmp_path / "table.tex").startswith(CAPTION.replace("\n\n", " "))
    for ending in ("md", "html", "tex"):
        text = (tmp_path / f"table.{ending}").read_text().lower()
        assert (OPTIMISTIC in text) == optimistic, ending
    assert r"\label{tab:table}" in (tmp_path / "table.tex").read_text()


def test_a_page_is_self_contained(tmp_path: Path) -> None:
    shown = table_of({"Dice": ["1"]}, ["a"])
    write_table(shown, shown, tmp_path / "table", CAPTION, False)
    page = (tmp_path / "table.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<style>" in page
    assert not re.search(r"(src|href)=|https?://|@import", page)


def test_metrics_have_their_unit_and_their_decimals() -> None:
    assert [heading(name) for name in ("dice", "hd95", "loss")] == ["Dice", "HD95 (mm)", "loss"]
    assert [decimals(name) for name in ("dice", "hd95", "loss")] == [4, 2, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (spread(0.85124, 0.00306, 4), "0.8512 ± 0.0031"),
        (spread(12.5, math.nan, 2), "12.50"),
        (spread(math.nan, math.nan, 4), "–"),
        (shown_interval(-0.01, -0.025, 0.0025), "-1.00 [-2.50, +0.25]"),
        (shown_interval(0.005, math.nan, math.nan), "+0.50"),
        (shown_interval(math.nan, math.nan, math.nan), "–"),
        (shown_interval(-1e-11, -1e-11, 0.0), "+0.00 [+0.00, +0.00]"),
        (shown_interval(0.00301, 0.00131, 0.00519), "+0.30 [+0.13, +0.52]"),
        (
            shown_difference(Difference(-0.01, -0.02, 0.0, 0.2, 9, 1, 9, 9, 0.2)),
            "-1.00 [-2.00, +0.00]",
        ),
        (shown_difference(paired_difference([])), "–"),
        (shown_difference(None), "–"),
        (shown_p(0.04567), "0.046"),
        (shown_p(1.0), "1.000"),
        (shown_p(0.001), "0.001"),
        (shown_p(0.000999), "< 0.001"),
        (shown_p(math.nan), "–"),
    ],
)
def test_numbers_are_rounded_for_readers(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(0, 1))
def test_a_shown_p_value_is_right_to_its_last_digit(p: float) -> None:
    text = shown_p(p)
    assert p < 0.001 if text == "< 0.001" else abs(float(text) - p) <= 0.0005 + 1e-12


def test_words_are_flush_left_and_sentences_may_break(tmp_path: Path) -> None:
    shown = pd.DataFrame({"region": ["TC"], "Dice": ["0.8"], "conclusion": ["better"]}, index=["a"])
    write_table(shown, shown, tmp_path / "table", CAPTION, False)
    assert r"\begin{tabular}{llrp{60mm}}" in (tmp_path / "table.tex").read_text()
    sides = (tmp_path / "table.md").read_text().splitlines()[-2].strip("|").split("|")
    assert [(side[0], side[-1]) for side in sides] == [
        (":", "-"),
        (":", "-"),
        ("-", ":"),
        (":", "-"),
    ]
    page = (tmp_path / "table.html").read_text()
    assert "td:nth-of-type(1)" in page and "td:nth-of-type(3) { white-space: normal" in page
    assert "td:nth-of-type(2)" not in page
