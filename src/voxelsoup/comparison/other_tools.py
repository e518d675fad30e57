"""A study's models against label maps that other tools have made of the same test cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.families import JudgedPair, judge, pair_rows, shown_pairs
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL, in_a_sentence, protocol_mark
from voxelsoup.comparison.tables import write_table
from voxelsoup.evaluation.case_scores import measured_by, regions_of

# Columns that are text, whatever they look like.
TEXT = ("compared", "first", "second", "metric", "region", "conclusion", "protocol")


def against_tools(
    comparisons: Sequence[FoldComparison], tools: Sequence[str], primary: str
) -> list[list[JudgedPair]]:
    """The model that the study is about against each tool, and the best single model likewise.

    Each of the two is corrected for the number of tools.

    Args:
        comparisons: with a row for each tool (``tool_rows.with_tools``).
        primary: title of the model that the study is about.
    """
    names = {title: in_a_sentence(title) for title in comparisons[0].rows}
    names |= {tool: tool for tool in tools}
    models = dict.fromkeys([primary, BEST_MODEL])
    return [judge([(model, tool) for tool in tools], comparisons, names) for model in models]


def write_against_tools(
    families: Sequence[Sequence[JudgedPair]],
    comparisons: Sequence[FoldComparison],
    stem: Path,
) -> None:
    """Write the comparisons as ``stem``.csv (all digits), .md, .tex and .html."""
    rows = pd.concat([comparison.rows[BEST_MODEL] for comparison in comparisons])
    metrics, regions = ["dice", *measured_by(rows)], regions_of(rows)
    protocol = comparisons[0].protocol
    frame = pd.DataFrame(
        [
            {**row, "conclusion": _conclusion(row, family), "protocol": protocol_mark(protocol)}
            for family in families
            for row in pair_rows(family, comparisons, metrics, regions)
        ]
    )
    shown = shown_pairs(frame)
    tools = [pair.second for pair in families[0]]
    caption = (
        f"The study's models minus the label maps of {listed(tools)}, which were made outside of "
        "this study and scored by the same code on the same test cases, paired by case. It is not "
        "known what training they cost, which cases they were trained on, or what they were chosen "
        "by. Label maps are scored as they are: no post-processing is added. Interval: percentile "
        "bootstrap widened by Student's t, patients resampled within their fold. The mean Dice "
        "over the regions is what "
        f"is tested; p (Holm) is adjusted for {counted(len(tools), 'tool')}, for each of the "
        "study's models by itself, and the interval is that of the level that Holm's method tests "
        "at. All other intervals are 95 % intervals and not corrected. No interval: fewer than six "
        "patients differ."
    )
    write_table(frame.set_index("first"), shown, stem, caption, protocol == "published")


def _conclusion(row: dict[str, object], family: Sequence[JudgedPair]) -> str:
    """What is concluded of a pair, beside the number that it is concluded from."""
    if row["metric"] != "dice" or row["p_holm"] != row["p_holm"]:
        return ""
    pair = (row["first"], row["second"])
    return next(one.sentence for one in family if (one.first, one.second) == pair)


def read_conclusions(path: Path) -> list[str]:
    """The sentences of a table that ``write_against_tools`` wrote, without full stops."""
    frame = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False)
    return [sentence for sentence in frame["conclusion"] if sentence]
