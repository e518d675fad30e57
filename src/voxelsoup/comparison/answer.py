"""The answer of a study: one paragraph that the report begins with, written from the numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd

from voxelsoup.common.files import write_text
from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.findings import ENSEMBLE_QUESTION, Finding, in_a_sentence
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL, BEST_SINGLE, ENSEMBLE, OPTIMISTIC, POINTS
from voxelsoup.comparison.overview import published_columns, shown_overview
from voxelsoup.comparison.pages import page
from voxelsoup.comparison.statistics import SeedSpread
from voxelsoup.evaluation.case_scores import ALL_REGIONS, mean_dice

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
    """Write the answer for the report's first page (``path_rst``) and as a page of its own.

    Headline and sentences are plain text; the table of key numbers stands below them.
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


def answer_of(
    findings: Sequence[Finding],
    spreads: Mapping[int | None, SeedSpread],
    comparisons: Sequence[FoldComparison],
) -> tuple[str, list[str]]:
    """The headline and the sentences of the paragraph; fold None stands for all folds."""
    over_folds = [finding for finding in findings if finding.fold is None]
    if not over_folds:
        return "This study has no soup to compare with the best single model.", []
    soup = in_a_sentence(list(published_columns(comparisons[0]))[-1])
    first, *rest = sorted(over_folds, key=lambda finding: finding.first != soup)
    most = max(len(c.trials) for c in comparisons)
    means = [mean_dice(c.rows[BEST_MODEL]) for c in comparisons]
    shown = [f for f in rest if f.question != ENSEMBLE_QUESTION or f.second == soup]
    sentences = [
        f"The best single model of each fold, chosen from {counted(most, 'model')}, has a mean "
        f"Dice of {fmean(means):.4f} on the test cases.",
        _ingredients(comparisons),
        *(_sentence(finding) for finding in shown),
        _seeds(spreads, first),
        "The p values are adjusted for the number of comparisons made." if rest else "",
    ]
    if comparisons[0].protocol == "published":
        sentences.append(f"All numbers are {OPTIMISTIC}.")
    return _capital(first.sentence), [sentence for sentence in sentences if sentence]


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def _ingredients(comparisons: Sequence[FoldComparison]) -> str:
    soup = list(published_columns(comparisons[0]))[-1]
    counts = [c.ingredients[soup] for c in comparisons]
    if soup in (BEST_MODEL, BEST_SINGLE):
        return ""
    if len(set(counts)) > 1:
        folds = listed(c.fold for c in comparisons)
        models = f"{listed(counts)} models in folds {folds}"
    else:
        models = counted(counts[0], "model") + (" in each fold" if len(counts) > 1 else "")
    cost = ", all of which run for every prediction" if soup == ENSEMBLE and max(counts) > 1 else ""
    return f"The {in_a_sentence(soup)} is made of {models}{cost}."


def _sentence(finding: Finding) -> str:
    if finding.question != ENSEMBLE_QUESTION:
        return _capital(finding.sentence)
    many, few = finding.cost.split(" against ")
    networks = "network" if many == "1" else "networks"
    return (
        f"{_capital(finding.sentence)} For one prediction, the {finding.first} runs {many} "
        f"{networks} and the {finding.second} {few}."
    )


def _seeds(spreads: Mapping[int | None, SeedSpread], first: Finding) -> str:
    if None not in spreads:
        return ""
    deviation = spreads[None].deviation
    return (
        f"The seed alone moves the mean Dice of a model by {POINTS * deviation:.2f} Dice points "
        f"(standard deviation); the {first.first} differs from the {first.second} by "
        f"{POINTS * first.difference.mean:+z.2f}."
    )


def key_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers of an `overview` that the answer rests on, as texts for the first page."""
    shown = shown_overview(frame)
    shown = shown[shown["region"] == ALL_REGIONS].set_index("model")
    shown["models per prediction"] = shown["models per prediction"].map(_distinct)
    return shown[["Dice", "difference in Dice points [95 %]", "models per prediction"]]


def _distinct(values: str) -> str:
    """Values of folds, each once."""
    return ", ".join(dict.fromkeys(values.split(", ")))


def _plain(text: str) -> str:
    """Text that reStructuredText shows as it is."""
    # The escaped space keeps a number or a dash at the start from opening a list.
    # Two colons at the end would open a literal block.
    return "\\ " + re.sub("::$", r":\:", MARKUP.sub(r"\\\1", text))


def _table(table: pd.DataFrame) -> str:
    flat = table.rename_axis(columns=table.index.name).rename_axis(index=None)
    return flat.to_html(border=0, classes="answer", justify="unset")
