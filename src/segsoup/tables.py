"""Tables of a study: the published form per fold, the overview, and how any table is written.

Every table is one data frame with every digit; CSV has them all, Markdown, LaTeX and HTML show
the same cells.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from segsoup.case_rows import ALL_REGIONS, by_case, mean, measured_by, region_means
from segsoup.comparison import BEST_MODEL, OPTIMISTIC, FoldComparison, protocol_mark
from segsoup.files import write_text
from segsoup.metrics import METRICS
from segsoup.significance import paired_difference

COST = "models_per_prediction"
GREEDY = "Greedy Soup"
# One model more fits into 80 columns only if there is less space between them.
ROOMY_MODELS = 3
POINTS = 100
UNKNOWN = "–"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .7rem; max-width: 62rem; }
caption strong { color: #a33c00; }
th, td { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #d8d8d8; }
thead th { border-bottom: 2px solid #1a1a1a; vertical-align: bottom; }
tbody th { text-align: left; font-weight: 600; }
""".strip()
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
    }
)


def published_columns(comparison: FoldComparison) -> dict[str, dict[str, float]]:
    """The columns of the published table: the best single model and the greedy soup.

    A study without a greedy soup has its first recipe there.
    """
    soups = [title for title in comparison.rows if title != BEST_MODEL]
    soup = GREEDY if GREEDY in soups else next(iter(soups), None)
    columns = comparison.columns
    return {title: columns[title] for title in (BEST_MODEL, soup) if title is not None}


def fold_table(
    fold: int, columns: Mapping[str, Mapping[str, float]], protocol: str
) -> pd.DataFrame:
    """The table of one fold in the published form.

    Args:
        fold: number of the fold.
        columns: title -> summary, in the order of the columns.
        protocol: ``published`` is marked in the name of the index.

    Returns:
        Rows ``test_avg``, ``test_<region>`` and ``test_loss`` in the order of the alphabet;
        columns ``Best Model (Fold k)``, ``Greedy Soup (Fold k)``.
    """
    index = sorted(next(iter(columns.values())))
    table = pd.DataFrame(
        {
            f"{title} (Fold {fold})": [column[name] for name in index]
            for title, column in columns.items()
        },
        index=index,
        dtype="float64",
    )
    optimistic = protocol == "published"
    table.index.name = "metric (published protocol, optimistic)" if optimistic else "metric"
    return table


def write_fold_table(comparison: FoldComparison, stem: Path) -> None:
    """Write a fold's table as ``stem``.csv, .md, .tex and .html: the same digits in all."""
    columns = published_columns(comparison)
    table = fold_table(comparison.fold, columns, comparison.protocol)
    parts = ", ".join(
        f"{title} {comparison.ingredients[title]}" for title in columns if title != BEST_MODEL
    )
    # With several checkpoints there are more models than trials.
    kind = "models of the trials" if any("/" in name for name in comparison.trials) else "trials"
    caption = (
        f"Fold {comparison.fold}: test_loss and Dice (0 to 1) on the test cases. "
        f"Best Model is trial {comparison.best_trial}, the highest of "
        f"{len(comparison.trials)} {kind} on the selection cases. "
        f"Ingredients: {parts}."
    )
    write_table(table, table.map(repr), stem, caption, comparison.protocol == "published")


def overview(
    comparisons: Sequence[FoldComparison], after_postprocessing: bool = False
) -> pd.DataFrame:
    """All folds: one row per kind of model and region.

    Args:
        comparisons: the folds.
        after_postprocessing: take the scores after post-processing instead.

    Returns:
        ``model``; ``region`` (``mean``: of all); for every metric ``<metric>_mean`` and
        ``<metric>_std`` over the folds (sample standard deviation; not a number for one fold),
        ``<metric>_difference`` to the best single model over all cases with the ends of its 95 %
        interval ``<metric>_low`` and ``<metric>_high``; the same of ``loss`` where the region is
        ``mean``; ``cases``; ``folds``, ``ingredients`` and ``models_per_prediction`` (per fold, in
        the order of ``folds``); ``protocol``.
    """
    ordered = sorted(comparisons, key=lambda comparison: comparison.fold)
    scored = [c.postprocessed if after_postprocessing else c.rows for c in ordered]
    first = scored[0][BEST_MODEL]
    regions = [ALL_REGIONS, *dict.fromkeys(first["region"])]
    rows = []
    for title in scored[0]:
        for region in regions:
            row: dict[str, object] = {"model": title, "region": region}
            for metric in ["dice", *measured_by(first), "loss"]:
                if metric != "loss" or region == ALL_REGIONS:
                    row |= _cells(scored, title, metric, region)
            row |= {
                "cases": sum(len(c.case_scores[c.best_trial]) for c in ordered),
                "folds": ", ".join(str(c.fold) for c in ordered),
                "ingredients": ", ".join(str(c.ingredients[title]) for c in ordered),
                COST: ", ".join(str(c.models_per_prediction[title]) for c in ordered),
                "protocol": protocol_mark(ordered[0].protocol),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _cells(
    scored: Sequence[Mapping[str, pd.DataFrame]], title: str, metric: str, region: str
) -> dict[str, float]:
    centers = [_center(rows[title], metric, region) for rows in scored]
    cells = {
        f"{metric}_mean": mean(centers),
        f"{metric}_std": stdev(centers) if len(centers) > 1 else math.nan,
    }
    if title == BEST_MODEL:
        return cells | dict.fromkeys(
            (f"{metric}_difference", f"{metric}_low", f"{metric}_high"), math.nan
        )
    difference = paired_difference(
        [
            (by_case(rows[title], metric, region) - by_case(rows[BEST_MODEL], metric, region)).to_numpy()
            for rows in scored
        ]
    )
    return cells | {
        f"{metric}_difference": difference.mean,
        f"{metric}_low": difference.low,
        f"{metric}_high": difference.high,
    }


def _center(rows: pd.DataFrame, metric: str, region: str) -> float:
    means = region_means(rows, metric)
    return mean(means.values()) if region == ALL_REGIONS else means[region]


def shown_overview(frame: pd.DataFrame) -> pd.DataFrame:
    """The overview as people read it: mean ± deviation, and the difference in Dice."""
    metrics = [name.removesuffix("_mean") for name in frame.columns if name.endswith("_mean")]
    shown: dict[str, Sequence[str]] = {"model": frame["model"], "region": frame["region"]}
    for metric in metrics:
        shown[heading(metric)] = [
            spread(center, deviation, decimals(metric))
            for center, deviation in zip(
                frame[f"{metric}_mean"], frame[f"{metric}_std"], strict=True
            )
        ]
        if metric == "dice":
            shown["difference in Dice points [95 %]"] = [
                interval(*(POINTS * row[f"dice_{end}"] for end in ("difference", "low", "high")))
                for _, row in frame.iterrows()
            ]
    for name in (COST, "ingredients"):
        shown[name.replace("_", " ")] = [
            value if region == ALL_REGIONS else ""
            for value, region in zip(frame[name], frame["region"], strict=True)
        ]
    return pd.DataFrame(shown)


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


def interval(center: float, low: float, high: float, digits: int = 2) -> str:
    """``+0.30 [+0.13, +0.52]``; without an interval where there are too few cases for one."""
    if math.isnan(center):
        return UNKNOWN
    value = f"{center:+.{digits}f}"
    return value if math.isnan(low) else f"{value} [{low:+.{digits}f}, {high:+.{digits}f}]"


def write_overview(frame: pd.DataFrame, stem: Path, after_postprocessing: bool = False) -> None:
    """Write the overview: full precision in ``stem``.csv, shown in .md, .tex and .html."""
    protocol = str(frame["protocol"].iloc[0])
    caption = (
        f"Folds {frame['folds'].iloc[0]}, {frame['cases'].iloc[0]} test cases"
        f"{', after post-processing' if after_postprocessing else ''}; protocol: "
        f"{protocol.partition(' ')[0]}. Mean ± standard deviation over the folds. The difference is "
        "that of the means over all cases to the best single model of the same fold, in Dice "
        "points (hundredths), with a 95 % bootstrap interval. models per prediction is the inference "
        "cost: networks that run for one prediction, per fold; ingredients: models averaged, per "
        "fold."
    )
    optimistic = protocol.startswith("published")
    write_table(frame.set_index("model"), shown_overview(frame).set_index("model"), stem, caption, optimistic)


def read_overview(path: Path) -> pd.DataFrame:
    """Read an overview.csv that `write_overview` wrote, bit by bit."""
    text = dict.fromkeys(("model", "region", "protocol", "folds", "ingredients", COST), str)
    return pd.read_csv(path, dtype=text, float_precision="round_trip")


def write_table(
    frame: pd.DataFrame, shown: pd.DataFrame, stem: Path, caption: str, optimistic: bool
) -> None:
    """Write a table as ``stem``.csv, .md, .tex and .html.

    Args:
        frame: with every digit, for the CSV file.
        shown: the texts of the others; its index is the first column.
        stem: path without ending.
        caption: stands above the table; an empty line in it is a new paragraph.
        optimistic: whether the table is marked as chosen and scored on the same cases.
    """
    mark = OPTIMISTIC[0].upper() + OPTIMISTIC[1:] + "." if optimistic else None
    write_text(_beside(stem, "csv"), frame.to_csv(na_rep="nan", lineterminator="\n"))
    write_text(_beside(stem, "md"), _markdown(shown, caption, mark))
    write_text(_beside(stem, "tex"), _latex(shown, caption, mark, stem.name))
    write_text(_beside(stem, "html"), page(stem.name, _html(shown, caption, mark)))


def _beside(stem: Path, ending: str) -> Path:
    # Not `with_suffix`, which would take what follows a dot in the name for an ending.
    return stem.parent / f"{stem.name}.{ending}"


def _markdown(shown: pd.DataFrame, caption: str, mark: str | None) -> str:
    # Text, not numbers: tabulate would round them to six digits.
    sides = ["left", *["right"] * len(shown.columns)]
    table = shown.to_markdown(disable_numparse=True, colalign=sides)
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
        column_format="l" + "r" * (len(flat.columns) - 1),
        position="htbp",
    )


def _html(shown: pd.DataFrame, caption: str, mark: str | None) -> str:
    flat = shown.rename_axis(columns=shown.index.name).rename_axis(index=None)
    text = html.escape(caption).replace("\n\n", "<br>") + (
        f"<br><strong>{html.escape(mark)}</strong>" if mark else ""
    )
    opening = '<table class="dataframe">'
    head, _, body = flat.to_html(border=0).partition(opening)
    return f"{head}{opening}\n<caption>{text}</caption>{body}"


def page(title: str, body: str) -> str:
    """A page that stands alone, in the style of all tables."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def terminal_table(frame: pd.DataFrame) -> Table:
    """The overview for a terminal: models side by side, so that it fits 80 columns."""
    protocol, folds = str(frame["protocol"].iloc[0]), str(frame["folds"].iloc[0])
    title = f"Dice and loss on the test cases, fold{'s' if ',' in folds else ''} {folds}"
    if OPTIMISTIC in protocol:
        title += f"\n[not italic bold]{OPTIMISTIC[0].upper()}{OPTIMISTIC[1:]}"
    caption = (
        "mean ± standard deviation over folds; difference: of test_avg to the best model of the "
        f"same fold, in Dice points, with its 95 % interval; protocol: {protocol.partition(' ')[0]}"
    )
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, caption_justify="left")
    # Title and caption are wrapped to the table's width, which two models alone leave narrow.
    table.min_width = len(OPTIMISTIC) + 4
    models = list(dict.fromkeys(frame["model"]))
    if len(models) > ROOMY_MODELS:
        table.padding, table.pad_edge, table.collapse_padding = (0, 0, 0, 0), False, True
    table.add_column("", no_wrap=True)
    for model in models:
        table.add_column(model, justify="right")
    for name, cells in _terminal_rows(frame).items():
        table.add_row(name, *cells)
    return table


def _terminal_rows(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Name -> a cell per model."""
    whole = frame[frame["region"] == ALL_REGIONS]

    def means(part: pd.DataFrame, metric: str) -> list[str]:
        pairs = zip(part[f"{metric}_mean"], part[f"{metric}_std"], strict=True)
        return [spread(center, deviation, 4) for center, deviation in pairs]

    rows = {"test_avg": means(whole, "dice")}
    for region in dict.fromkeys(frame["region"]):
        if region != ALL_REGIONS:
            rows[f"test_{region.lower()}"] = means(frame[frame["region"] == region], "dice")
    rows["test_loss"] = means(whole, "loss")
    ends = [POINTS * whole[f"dice_{end}"] for end in ("difference", "low", "high")]
    rows["difference"] = [
        interval(*values).replace(" [", "\n[") for values in zip(*ends, strict=True)
    ]
    rows["ingredients"] = list(whole["ingredients"])
    # On two lines: the column is as wide as its longest name.
    rows["models per\nprediction"] = list(whole[COST])
    return rows


def print_overview(path: Path, console: Console | None = None) -> None:
    """Print an overview.csv as a table."""
    (console or Console()).print(terminal_table(read_overview(Path(path))))
