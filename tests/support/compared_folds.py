"""Comparisons of folds from given numbers, and the text of their tables."""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL
from voxelsoup.evaluation.case_scores import COLUMNS, by_case, mean_dice

BEST_TRIAL, OTHER_TRIAL = "aaaa0000", "bbbb0000"
# What is added to a case's Dice in each region; nothing on the whole.
REGIONS = {"TC": 0.0625, "WT": -0.09375, "ET": 0.03125}


def rows_of(cases: Mapping[str, tuple[Mapping[str, float], float]]) -> pd.DataFrame:
    """Per-case scores from case -> (region -> Dice, loss)."""
    return pd.DataFrame(
        [(c, r, d, loss) for c, (regions, loss) in cases.items() for r, d in regions.items()],
        columns=COLUMNS,
    )


def scored(dice_scores: Sequence[float]) -> pd.DataFrame:
    """Per-case scores with these Dice scores as the mean of the regions; the loss is 1 - Dice."""
    return rows_of(
        {
            f"case{number:02}": ({r: dice + more for r, more in REGIONS.items()}, 1 - dice)
            for number, dice in enumerate(dice_scores)
        }
    )


def compared(
    soups: Mapping[str, Sequence[float]],
    best: Sequence[float],
    fold: int = 0,
    protocol: str = "held-out",
    trials: Mapping[str, Sequence[float]] | None = None,
    ingredients: Mapping[str, int] | None = None,
    costs: Mapping[str, int] | None = None,
    postprocessed: Mapping[str, Sequence[float]] | None = None,
) -> FoldComparison:
    """A fold, from the Dice of its test cases.

    Args:
        soups: title -> Dice scores.
        best: Dice scores of the best single model, whose id is ``BEST_TRIAL``.
        fold: number of the fold.
        protocol: ``held-out`` or ``published``.
        trials: id -> Dice scores of the trials beside the best one; by default one trial.
        ingredients: title -> how many; 2 where they are not given.
        costs: title -> networks that run for one prediction; 1 where they are not given.
        postprocessed: title -> Dice scores after post-processing.
    """
    others = {OTHER_TRIAL: best} if trials is None else trials
    singles = {BEST_TRIAL: scored(best)} | {name: scored(d) for name, d in others.items()}
    rows = {title: scored(values) for title, values in soups.items()}
    selection = dict.fromkeys(singles, 0.5) | {title: mean_dice(r) for title, r in rows.items()}
    return FoldComparison(
        fold=fold,
        protocol=protocol,
        best_trial=BEST_TRIAL,
        rows={BEST_MODEL: singles[BEST_TRIAL]} | rows,
        postprocessed={title: scored(values) for title, values in (postprocessed or {}).items()},
        ingredients={BEST_MODEL: 1} | dict.fromkeys(rows, 2) | dict(ingredients or {}),
        models_per_prediction={BEST_MODEL: 1} | dict.fromkeys(rows, 1) | dict(costs or {}),
        selection_scores=selection | {BEST_TRIAL: 0.6},
        test_scores={name: mean_dice(r) for name, r in {**singles, **rows}.items()},
        case_scores={name: by_case(r) for name, r in {**singles, **rows}.items()},
    )


def csv_cells(path: Path) -> list[list[str]]:
    """Rows of a CSV file, its head first."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def markdown_cells(path: Path) -> list[list[str]]:
    """Rows of the table in a Markdown file, its head first."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    bars = re.compile(r"(?<!\\)\|")
    rows = [[cell.strip().replace(r"\|", "|") for cell in bars.split(line)[1:-1]] for line in lines]
    assert all(set(cell) <= set(":-") for cell in rows[1])
    return [rows[0], *rows[2:]]


def html_cells(path: Path) -> list[list[str]]:
    """Rows of the table in a page, its head first."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", path.read_text(), re.S)
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]
        for row in rows
    ]


# LaTeX for each sign that it reads otherwise, as books on it have them.
SPELLED = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textbar{}": "|",
    r"$\pm$": "±",
    r"$\times$": "×",
    r"$\geq$": "≥",
    r"$^3$": "³",
    "$<$": "<",
    "$>$": ">",
    "--": "–",
    **{f"\\{sign}": sign for sign in "&%$#_{}"},
}
SPELLING = re.compile("|".join(re.escape(spelled) for spelled in SPELLED))


def read_latex(text: str) -> str:
    """What LaTeX prints for a text."""
    rest = SPELLING.sub("", text)
    assert not set(rest) & set("&%$#_{}~^\\<>|±"), f"not escaped: {text}"
    return SPELLING.sub(lambda found: SPELLED[found[0]], text)


def latex_cells(path: Path) -> list[list[str]]:
    """Rows of the table in a LaTeX file, its head first; checks that it has booktabs rules."""
    # A column that breaks its lines is one column too.
    text = path.read_text().replace("p{60mm}", "l")
    columns, body = re.search(
        r"\\begin\{tabular\}\{(l[lr]*)\}\n(.*)\\end\{tabular\}", text, re.S
    ).groups()
    lines = body.splitlines()
    rules = [line for line in lines if line.startswith("\\") and line.endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert (lines[0], lines[2], lines[-1]) == tuple(rules)
    rows = [line for line in lines if line not in rules]
    assert all(row.endswith(r" \\") for row in rows)
    cells = [
        [read_latex(cell.strip()) for cell in re.split(r"(?<!\\)&", row.removesuffix(r" \\"))]
        for row in rows
    ]
    assert {len(row) for row in cells} == {len(columns)}
    return cells


def latex_caption(path: Path) -> str:
    """The caption of a LaTeX file, as it is printed."""
    return read_latex(re.search(r"\\caption\{(.*)\}\n\\label", path.read_text(), re.S)[1])
