"""The answer of a study: two paragraphs that the report begins with, written from the numbers.

The first is about the primary question alone, the second about the control: the best single model,
finished in the same way. All else stands in tables below them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd

from voxelsoup.common.files import write_text
from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.findings import DIFFERENCE, Finding, difference_of, shown_level
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import (
    BEST_MODEL,
    BEST_SINGLE,
    ENSEMBLE,
    FINISHED,
    FINISHED_BEST,
    LONG_RUN,
    OPTIMISTIC,
    POINTS,
    in_a_sentence,
)
from voxelsoup.comparison.overview import STEPS, shown_overview
from voxelsoup.comparison.pages import page
from voxelsoup.comparison.statistics import SeedSpread
from voxelsoup.comparison.tables import shown_difference, shown_p
from voxelsoup.evaluation.case_scores import ALL_REGIONS, mean_dice

# What reStructuredText would read as markup.
MARKUP = re.compile(r"([\\*`|_<>\[\]{}])")
NOT_FINISHED = (
    "The control, the best single model finished by a short further training, was not run, so it "
    "is open whether that alone gains as much: `soup.finish` runs it."
)


def write_answer(
    path_rst: Path,
    path_html: Path | None,
    paragraphs: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """Write an answer for the report's first page (``path_rst``), and as a page of its own.

    Args:
        paragraphs: plain text, of which the first is the headline.
        tables: heading -> texts that stand below the paragraphs; those without rows are left out.

    Raises:
        ValueError: if a paragraph is empty, or there is none.
    """
    flowing = [" ".join(paragraph.split()) for paragraph in paragraphs]
    if not flowing or not all(flowing):
        raise ValueError("an answer needs at least one sentence in each paragraph")
    shown = [_table(heading, table) for heading, table in tables.items() if len(table)]
    lines = []
    for number, paragraph in enumerate(flowing):
        style = "answer" if number else "answer-headline"
        lines += [f".. class:: {style}", "", _plain(paragraph), ""]
    for table in shown:
        lines += [".. raw:: html", "", *(f"   {line}" for line in table.splitlines()), ""]
    write_text(path_rst, "\n".join(lines))
    if path_html is None:
        return
    headline, *others = (html.escape(paragraph) for paragraph in flowing)
    content = [f'<p class="lead">{headline}</p>', *(f"<p>{text}</p>" for text in others), *shown]
    write_text(path_html, page("Answer", "\n".join(content)))


def answer_of(findings: Sequence[Finding], protocol: str) -> list[str]:
    """The paragraphs, of at most three sentences about the primary question, and on the control."""
    over_folds = [finding for finding in findings if finding.fold is None]
    (primary,) = [finding for finding in over_folds if finding.primary]
    optimistic = f"All numbers are {OPTIMISTIC}." if protocol.startswith("published") else ""
    first = [_sentence(primary), optimistic]
    second = [*_control(primary, over_folds), *_long_run(primary, over_folds)]
    return [" ".join(filter(None, sentences)) for sentences in (first, second)]


def _sentence(finding: Finding) -> str:
    return f"{finding.sentence[0].upper()}{finding.sentence[1:]}."


def _between(findings: Sequence[Finding], first: str, second: str) -> Finding | None:
    pairs = {(finding.first, finding.second): finding for finding in findings}
    return pairs.get((first, second))


def _control(primary: Finding, findings: Sequence[Finding]) -> list[str]:
    """The best single model, finished in the same way, and whose the gain is."""
    control, best = in_a_sentence(FINISHED_BEST), in_a_sentence(BEST_MODEL)
    if primary.first == control:
        return ["The model that this study is about is itself a single one: no soup has a part."]
    finished = _between(findings, control, best)
    if finished is None:
        return [NOT_FINISHED]
    between = primary if primary.second == control else _between(findings, primary.first, control)
    if between is None:
        return [_sentence(finished)]
    gained = primary if primary.second == best else _between(findings, primary.first, best)
    said = [_sentence(finding) for finding in (finished, between) if finding is not primary]
    return [*said, _whose_gain(primary.first, gained, between, finished)]


def _whose_gain(model: str, gained: Finding | None, between: Finding, finished: Finding) -> str:
    """What follows from the gains of a model and of the control, and from what is between them."""
    match outcome(between):
        case "better":
            return f"The {model} gains more than the finish alone."
        case "worse":
            return "The finish alone gains more: the soup adds nothing to it."
    if gained is None or outcome(gained) != "better":
        return "No gain is shown that would be the soup's."
    if model == in_a_sentence(FINISHED):
        return "So the gain is the finish's, not the soup's."
    if outcome(finished) == "better":
        return f"What the {model} gains, the finish alone gains too: no gain is the soup's own."
    return f"It is not shown that the {model} gains more than the finish alone."


def _long_run(primary: Finding, findings: Sequence[Finding]) -> list[str]:
    """One long run, if it is as good as the model that the study is about, or better."""
    found = _between(findings, primary.first, in_a_sentence(LONG_RUN))
    if found is None or (found.difference.leaves_out_zero and found.difference.mean > 0):
        return []
    better = found.difference.leaves_out_zero
    said = "is better" if better else "is as good, as far as this study shows"
    return [f"{_sentence(found)} One long run with all steps of the study {said}."]


def secondary_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """The secondary comparisons over all folds, as texts for the first page."""
    shown = [finding for finding in findings if finding.fold is None and not finding.primary]
    rows = {
        f"{finding.first} – {finding.second}": {
            DIFFERENCE: shown_difference(finding.difference),
            "interval": shown_level(finding),
            "p (Holm)": shown_p(finding.p),
            "shown": outcome(finding),
        }
        for finding in shown
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="comparison")


def outcome(finding: Finding) -> str:
    """``better``, ``worse`` or ``no difference``, of the first model."""
    if not finding.difference.leaves_out_zero:
        return "no difference"
    return "better" if finding.difference.mean > 0 else "worse"


def facts_table(
    comparisons: Sequence[FoldComparison],
    spreads: Mapping[int | None, SeedSpread],
    primary: tuple[str, str],
    left_out: str = "",
) -> pd.DataFrame:
    """What the answer rests on, in sentences: models, ingredients, seeds, tests.

    Args:
        spreads: fold, or None for all -> how much the seed alone moves a model.
        primary: titles of the two models that the study is about.
        left_out: a sentence about the trials that diverged.
    """
    most = max(len(c.trials) for c in comparisons)
    mean = fmean(mean_dice(c.rows[BEST_MODEL]) for c in comparisons)
    facts = {
        "primary question": f"{in_a_sentence(primary[0])} against {in_a_sentence(primary[1])}, by "
        "the mean Dice over all regions and folds (comparison.primary): tested by itself at 5 %, "
        "by a 95 % interval that resamples patients within their fold; p is the smallest level at "
        "which the interval leaves out 0.",
        "other comparisons": "Secondary: p is adjusted for their number (Holm), and the interval "
        "is that of the level that this leaves.",
        "best single model": f"Chosen in each fold from {counted(most, 'model')}; mean Dice "
        f"{mean:.4f} on the test cases.",
        "ingredients": _ingredients(comparisons, primary[0]),
        "finish": _one_finish(comparisons),
        "seed": _seeds(comparisons, spreads, primary),
        "diverged": left_out,
    }
    rows = {name: text for name, text in facts.items() if text}
    return pd.DataFrame({"": rows.values()}, index=pd.Index(rows, name="about"))


def _ingredients(comparisons: Sequence[FoldComparison], soup: str) -> str:
    counts = [c.ingredients[soup] for c in comparisons]
    if soup in (BEST_MODEL, BEST_SINGLE, FINISHED_BEST, LONG_RUN):
        return ""
    if len(set(counts)) > 1:
        folds = listed(c.fold for c in comparisons)
        models = f"{listed(counts)} models in folds {folds}"
    else:
        models = counted(counts[0], "model") + (" in each fold" if len(counts) > 1 else "")
    cost = ", all of which run for every prediction" if soup == ENSEMBLE and max(counts) > 1 else ""
    return f"The {in_a_sentence(soup)} is made of {models}{cost}."


def _one_finish(comparisons: Sequence[FoldComparison]) -> str:
    folds = [c.fold for c in comparisons if c.one_finish]
    if not folds:
        return ""
    where = f"fold{'s' if len(folds) > 1 else ''} {listed(folds)}"
    return (
        f"In {where} the {in_a_sentence(FINISHED)} and the {in_a_sentence(FINISHED_BEST)} are one "
        "model: the soup had but one ingredient."
    )


def _seeds(
    comparisons: Sequence[FoldComparison],
    spreads: Mapping[int | None, SeedSpread],
    primary: tuple[str, str],
) -> str:
    if None not in spreads:
        return ""
    first, second = map(in_a_sentence, primary)
    return (
        f"The seed alone moves the mean Dice of a model by {POINTS * spreads[None].deviation:.2f} "
        f"Dice points (standard deviation); the {first} differs from the {second} by "
        f"{POINTS * difference_of(*primary, comparisons).mean:+z.2f}."
    )


def key_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers of an `overview` that the answer rests on, as texts for the first page."""
    shown = shown_overview(frame)
    shown = shown[shown["region"] == ALL_REGIONS].set_index("model")
    shown["models per prediction"] = shown["models per prediction"].map(_distinct)
    columns = ["Dice", "difference in Dice points [95 %]", "models per prediction"]
    return shown[[*columns, *(["training steps"] if STEPS in frame else [])]]


def _distinct(values: str) -> str:
    """Values of folds, each once."""
    return ", ".join(dict.fromkeys(values.split(", ")))


def _plain(text: str) -> str:
    """Text that reStructuredText shows as it is."""
    # The escaped space keeps a number or a dash at the start from opening a list.
    # Two colons at the end would open a literal block.
    return "\\ " + re.sub("::$", r":\:", MARKUP.sub(r"\\\1", text))


def _table(heading: str, table: pd.DataFrame) -> str:
    flat = table.rename_axis(columns=table.index.name).rename_axis(index=None)
    # A table of sentences has no heads of columns.
    sentences = list(table.columns) == [""]
    look = flat.to_html(
        border=0,
        classes="answer facts" if sentences else "answer",
        header=not sentences,
        justify=None if sentences else "unset",
    )
    opening, _, rest = look.partition("\n")
    return f"{opening}\n  <caption>{html.escape(heading)}</caption>\n{rest}"
