"""The answer of a study in the terminal: the overview and what may be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from voxelsoup.comparison.answer import answer_of, secondary_table
from voxelsoup.comparison.barriers import FoldBarriers
from voxelsoup.comparison.configurations import (
    read_configurations,
    sentence,
    shown_configurations,
)
from voxelsoup.comparison.findings import read_findings
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.other_tools import read_conclusions
from voxelsoup.comparison.overview import COST, ENDS, folds_in_words, read_overview
from voxelsoup.comparison.tables import shown_interval, spread
from voxelsoup.evaluation.case_scores import ALL_REGIONS

# One model more fits into 80 columns only if there is less space between them.
ROOMY_MODELS = 3


def terminal_table(frame: pd.DataFrame) -> Table:
    """The overview for a terminal: models side by side, so that it fits 80 columns."""
    protocol = str(frame["protocol"].iloc[0])
    title = f"Dice and loss on the test cases, {folds_in_words(frame)}"
    if OPTIMISTIC in protocol:
        title += f"\n[not italic bold]{OPTIMISTIC[0].upper()}{OPTIMISTIC[1:]}"
    caption = (
        "mean ± standard deviation over folds; difference: in test_avg from the best single model "
        "of the same fold, in Dice points, with its 95 % interval; protocol: "
        f"{protocol.partition(' ')[0]}"
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
    mean_regions = frame[frame["region"] == ALL_REGIONS]

    def means(part: pd.DataFrame, metric: str) -> list[str]:
        pairs = zip(part[f"{metric}_mean"], part[f"{metric}_std"], strict=True)
        return [spread(center, deviation, 4) for center, deviation in pairs]

    rows = {"test_avg": means(mean_regions, "dice")}
    for region in dict.fromkeys(frame["region"]):
        if region != ALL_REGIONS:
            rows[f"test_{region.lower()}"] = means(frame[frame["region"] == region], "dice")
    rows["test_loss"] = means(mean_regions, "loss")
    ends = (mean_regions[f"dice_{end}"] for end in ENDS)
    rows["difference"] = [
        shown_interval(*values).replace(" [", "\n[") for values in zip(*ends, strict=True)
    ]
    rows["ingredients"] = list(mean_regions["ingredients"])
    # On two lines: the column is as wide as its longest name.
    rows["models per\nprediction"] = list(mean_regions[COST])
    return rows


def print_overview(path: Path, console: Console | None = None) -> None:
    """Print an overview.csv as a table."""
    (console or Console()).print(terminal_table(read_overview(Path(path))))


def print_configurations(path: Path, console: Console | None = None) -> None:
    """Print a configurations.csv: what is chosen, and the table."""
    console = console or Console()
    frame = read_configurations(path)
    table = Table(title="Configurations", box=box.SIMPLE_HEAD, caption_justify="left")
    table.caption = (
        "Dice: mean over the folds on selection and test cases; difference: from the best "
        "configuration, in Dice points, with the interval of the level that Holm's method tests at"
    )
    shown = shown_configurations(frame)[["selection Dice", "test Dice", "difference", "networks"]]
    table.add_column("")
    for name in ("selection", "test", "difference", "networks"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, cells in zip(shown.index, shown.to_numpy(), strict=True):
        table.add_row(str(name), *map(escape, cells))
    console.print(table)
    console.print(sentence(frame), highlight=False, markup=False)


def print_conclusions(path: Path, console: Console | None = None) -> None:
    """Print the answer that follows from a comparisons.csv: its paragraphs, and the other rows."""
    console = console or Console()
    findings = read_findings(path)
    if not findings:
        # The table is kept as an earlier version wrote it.
        frame = pd.read_csv(path, dtype=str)
        for sentence in frame.loc[frame["folds"] == "all", "conclusion"]:
            line = f"{sentence[0].upper()}{sentence[1:]}."
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    others = secondary_table(findings)
    if len(others):
        console.print(_table_of_secondary(others))
    protocol = str(pd.read_csv(path, dtype=str)["protocol"].iloc[0])
    for paragraph in answer_of(findings, protocol):
        console.print(paragraph, highlight=False, markup=False)


def print_other_tools(path: Path, console: Console | None = None) -> None:
    """Print what follows of the study's models and other tools' label maps."""
    for found in read_conclusions(path):
        line = f"{found[0].upper()}{found[1:]}."
        (console or Console()).print(line, highlight=False, markup=False, soft_wrap=True)


def _table_of_secondary(texts: pd.DataFrame) -> Table:
    """The secondary comparisons for a terminal of 80 columns."""
    table = Table(title="Secondary comparisons", box=box.SIMPLE_HEAD, caption_justify="left")
    table.caption = (
        "first – second in Dice points, with the interval of the level that Holm's method tests at"
    )
    table.padding, table.pad_edge, table.collapse_padding = (0, 1, 0, 0), False, True
    table.add_column("")
    for name in ("difference", "interval", "p (Holm)", "shown"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, cells in zip(texts.index, texts.to_numpy(), strict=True):
        table.add_row(str(name), *map(escape, cells))
    return table


def print_barriers(folds: Sequence[FoldBarriers], console: Console | None = None) -> None:
    """Print a line per fold."""
    for fold in folds:
        (console or Console()).print(fold.sentence, highlight=False, markup=False)
