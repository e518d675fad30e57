"""How any table is written: one data frame with every digit; CSV has them all, Markdown, LaTeX and
HTML show the same cells.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from voxelsoup.common.files import write_text
from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.names import OPTIMISTIC, POINTS
from voxelsoup.comparison.pages import page
from voxelsoup.comparison.statistics import Difference
from voxelsoup.evaluation.case_scores import ALL_REGIONS
from voxelsoup.evaluation.metrics import METRICS

# Columns of words are set flush left, numbers flush right; sentences may break.
WORDS, SENTENCES = frozenset({"region", "value", "first", "second"}), frozenset({"conclusion"})
UNKNOWN = "–"

# What LaTeX reads as something else than itself.
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "–": "--",
        "×": r"$\times$",
        "≥": r"$\geq$",
        "³": r"$^3$",
        # Without a font encoding of its own, LaTeX prints these as other signs.
        "<": r"$<$",
        ">": r"$>$",
        "|": r"\textbar{}",
    }
)


def write_table(
    frame: pd.DataFrame, shown: pd.DataFrame, stem: Path, caption: str, optimistic: bool
) -> None:
    """Write a table as ``stem``.csv, .md, .tex and .html.

    Args:
        frame: with every digit, for the CSV file.
        shown: the texts of the others; its index is the first column.
        caption: stands above the table; an empty line in it is a new paragraph.
    """
    mark = OPTIMISTIC[0].upper() + OPTIMISTIC[1:] + "." if optimistic else None
    write_text(_beside(stem, "csv"), frame.to_csv(na_rep="nan", lineterminator="\n"))
    write_text(_beside(stem, "md"), _markdown(shown, caption, mark))
    write_text(_beside(stem, "tex"), _latex(shown, caption, mark, stem.name))
    text = page(stem.name, _html(shown, caption, mark), _flush_left(shown))
    write_text(_beside(stem, "html"), text)


def _beside(stem: Path, ending: str) -> Path:
    # Not `with_suffix`, which would take what follows a dot in the name for an ending.
    return stem.parent / f"{stem.name}.{ending}"


def _markdown(shown: pd.DataFrame, caption: str, mark: str | None) -> str:
    # Text, not numbers: tabulate would round them to six digits.
    words = WORDS | SENTENCES
    sides = ["left", *("left" if name in words else "right" for name in shown.columns)]
    flat = shown.reset_index().map(lambda cell: str(cell).replace("|", r"\|"))
    table = flat.to_markdown(index=False, disable_numparse=True, colalign=sides)
    heading = f"{caption}\n\n**{mark}**" if mark else caption
    return f"{heading}\n\n{table}\n"


def _latex(shown: pd.DataFrame, caption: str, mark: str | None, label: str) -> str:
    """A table for a paper; it needs the package booktabs."""
    flat = shown.reset_index().map(lambda cell: str(cell).translate(LATEX))
    flat.columns = [str(name).translate(LATEX) for name in flat.columns]
    text = " ".join([caption.replace("\n\n", " "), *([mark] if mark else [])])
    return flat.to_latex(
        index=False,
        escape=False,
        caption=text.translate(LATEX),
        label=f"tab:{label}",
        column_format="l" + "".join(_latex_side(str(name)) for name in shown.columns),
        position="htbp",
    )


def _latex_side(name: str) -> str:
    if name in SENTENCES:
        return "p{60mm}"
    return "l" if name in WORDS else "r"


def _flush_left(shown: pd.DataFrame) -> str:
    """The style of the columns of words."""
    rules = []
    for place, name in enumerate(shown.columns, 1):
        if name in WORDS | SENTENCES:
            rules.append(f":is(thead th:nth-child({place + 1}), td:nth-of-type({place}))")
    broken = [place for place, name in enumerate(shown.columns, 1) if name in SENTENCES]
    wide = [f"td:nth-of-type({n}) {{ white-space: normal; min-width: 22rem; }}" for n in broken]
    if broken:
        wide.append("tbody th { min-width: 14rem; }")
    left = [f"{', '.join(rules)} {{ text-align: left; }}"] if rules else []
    return "\n".join([*left, *wide])


def _html(shown: pd.DataFrame, caption: str, mark: str | None) -> str:
    flat = shown.rename_axis(columns=shown.index.name).rename_axis(index=None)
    text = html.escape(caption).replace("\n\n", "<br>") + (
        f"<br><strong>{html.escape(mark)}</strong>" if mark else ""
    )
    opening = '<table class="dataframe">'
    head, _, body = flat.to_html(border=0).partition(opening)
    return f"{head}{opening}\n<caption>{text}</caption>{body}"


# What the mean of a caption is where cases differ in the regions that are annotated.
OVER_REGIONS = (
    "The overall mean is that of these means; a difference is over the cases, each with "
    "the mean of its annotated regions."
)
OVER_CASES = "The overall mean is over the cases, each with the mean of its annotated regions."


def partly_annotated(cases: Mapping[str, int], mean: str) -> str:
    """What a caption adds where regions are not annotated in all cases; nothing elsewhere.

    ``cases``: region (`mean`: any) -> number of cases in which it is annotated; ``mean``: one of
    ``OVER_REGIONS`` and ``OVER_CASES``.
    """
    every = cases[ALL_REGIONS]
    fewer = [f"{region} is annotated in {n}" for region, n in cases.items() if n < every]
    if not fewer:
        return ""
    return (
        f" Of {counted(every, 'case')}, {listed(fewer)}: the mean of a region is over those cases. "
        + mean
    )


def heading(metric: str) -> str:
    """A metric as the head of a column, with its unit."""
    if metric not in METRICS:
        return metric
    return METRICS[metric].title + (f" ({METRICS[metric].unit})" if METRICS[metric].unit else "")


def decimals(metric: str) -> int:
    """Digits after the point that a metric is shown with."""
    return METRICS[metric].decimals if metric in METRICS else 4


def spread(center: float, deviation: float, digits: int) -> str:
    """``0.8512 ± 0.0031``; without a deviation where there is one fold."""
    if math.isnan(center):
        return UNKNOWN
    value = f"{center:.{digits}f}"
    return value if math.isnan(deviation) else f"{value} ± {deviation:.{digits}f}"


def shown_difference(difference: Difference | None) -> str:
    """A difference and its interval in Dice points."""
    if difference is None:
        return UNKNOWN
    return shown_interval(difference.mean, difference.low, difference.high)


def shown_interval(center: float, low: float, high: float) -> str:
    """A difference in Dice with its interval in Dice points: ``+0.30 [+0.13, +0.52]``.

    Without an interval where there are too few cases for one.
    """
    if math.isnan(center):
        return UNKNOWN
    value = f"{POINTS * center:+z.2f}"
    return value if math.isnan(low) else f"{value} [{POINTS * low:+z.2f}, {POINTS * high:+z.2f}]"


def shown_p(p: float) -> str:
    """A p value with three decimals."""
    if math.isnan(p):
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
