"""The answer of a study: one paragraph that the report begins with, written from the numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from segsoup.files import write_text
from segsoup.pages import page

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


def _plain(text: str) -> str:
    """Text that reStructuredText shows as it is."""
    # The escaped space keeps a number or a dash at the start from opening a list.
    return "\\ " + MARKUP.sub(r"\\\1", text)


def _table(table: pd.DataFrame) -> str:
    flat = table.rename_axis(columns=table.index.name).rename_axis(index=None)
    return flat.to_html(border=0, classes="answer", justify="unset")
