"""The answer of a study: one paragraph that the report begins with, written from the numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from segsoup.comparison import BEST_MODEL, COST, OPTIMISTIC, shown_overview
from segsoup.files import write_text
from segsoup.pages import page
from segsoup.wording import counted

# What reStructuredText would read as markup.
MARKUP = re.compile(r"([\\*`|_<>\[\]{}])")


def answer_paragraph(sentences: Sequence[str]) -> str:
    """Sentences as one paragraph on one line.

    Raises:
        ValueError: if there are none.
    """
    paragraph = " ".join(" ".join(sentences).split())
    if not paragraph:
        raise ValueError("an answer needs at least one sentence")
    return paragraph


def write_answer(
    path_rst: Path,
    path_html: Path,
    sentences: Sequence[str],
    headline: str,
    table: pd.DataFrame | None = None,
) -> None:
    """Write the answer for the report's first page and as a page of its own.

    Args:
        path_rst: reStructuredText, which the report's first page includes.
        path_html: the page.
        sentences: plain text; together they are the paragraph.
        headline: plain text, the answer in a few words.
        table: the key numbers as texts, below the paragraph.
    """
    headline, paragraph = answer_paragraph([headline]), answer_paragraph(sentences)
    shown = "" if table is None else _table(table)
    lines = [
        ".. class:: answer-headline",
        "",
        _plain(headline),
        "",
        ".. class:: answer",
        "",
        _plain(paragraph),
        "",
    ]
    if shown:
        lines += [".. raw:: html", "", *(f"   {line}" for line in shown.splitlines()), ""]
    write_text(path_rst, "\n".join(lines))
    content = (
        f'<p class="lead">{html.escape(headline)}</p>\n<p>{html.escape(paragraph)}</p>\n{shown}'
    )
    write_text(path_html, page("Answer", content))


def preliminary_answer(frame: pd.DataFrame) -> list[str]:
    """Headline and sentences from the overview alone, which says nothing of uncertainty.

    Args:
        frame: from ``comparison.overview``.
    """
    folds = counted(str(frame["folds"].iloc[0]).count(",") + 1, "fold")
    others = frame.drop(index=BEST_MODEL)
    if others.empty:
        return [f"The best single model has a mean Dice of {_dice(frame.iloc[0])} over {folds}."]
    gains = [
        f"The {title} has a mean Dice of {_dice(row)}, {_gain(float(row['difference_mean']))}."
        for title, row in others.iterrows()
    ]
    sentences = [
        f"Over {folds}, the best single model of each fold has a mean Dice of "
        f"{_dice(frame.loc[BEST_MODEL])} on the test cases.",
        *gains[1:],
    ]
    if OPTIMISTIC in str(frame["protocol"].iloc[0]):
        sentences.append(f"All numbers are {OPTIMISTIC}.")
    return [gains[0], *sentences]


def _dice(row: pd.Series) -> str:
    return f"{row['test_avg_mean']:.4f}"


def _gain(difference: float) -> str:
    if difference == 0:
        return "the same as the best single model"
    direction = "more" if difference > 0 else "less"
    return f"{abs(difference):.4f} {direction} than the best single model"


def key_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers that the answer rests on, as texts: few enough for the report's first page."""
    shown = shown_overview(frame)
    return pd.DataFrame(
        {
            "Dice": shown["test_avg"],
            "difference to the best model": shown["difference"],
            "models per prediction": shown[COST].map(_distinct),
        }
    )


def _distinct(values: str) -> str:
    """Values of folds, each once."""
    return ", ".join(dict.fromkeys(values.split(", ")))


def _plain(text: str) -> str:
    """Text that reStructuredText shows as it is."""
    # The escaped space keeps a number or a dash at the start from opening a list.
    return "\\ " + MARKUP.sub(r"\\\1", text)


def _table(table: pd.DataFrame) -> str:
    flat = table.rename_axis(columns=table.index.name).rename_axis(index=None)
    return flat.to_html(border=0, classes="answer", justify="unset")
