"""Is the soup better than the best single model? Case rows in, tables out.

All numbers come from the case rows (one per case and region) by one pair of means, so that the
tables, the figures, the manifest and the report cannot disagree.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from segsoup.errors import InputError
from segsoup.files import read_json, write_text

COLUMNS = ["case", "region", "dice", "loss"]
BEST_MODEL, ENSEMBLE = "Best Model", "Ensemble"
COST = "models_per_prediction"
# One model more fits into 80 columns only if there is less space between them.
ROOMY_MODELS = 3
OPTIMISTIC = "optimistic: chosen and scored on the same cases"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .7rem; }
caption strong { color: #a33c00; }
th, td { padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #d8d8d8; }
thead th { border-bottom: 2px solid #1a1a1a; vertical-align: bottom; }
tbody th { text-align: left; font-weight: 600; }
""".strip()


def read_rows(path: Path) -> pd.DataFrame:
    """Read the case rows of one model: ``case``, ``region``, ``dice``, ``loss``, bit by bit.

    Raises:
        InputError: if the file is missing, has other columns or has no rows.
    """
    try:
        # Case names may look like numbers or like missing values, and must stay what they are.
        rows = pd.read_csv(
            path,
            dtype={"case": str, "region": str},
            keep_default_na=False,
            na_values={"dice": ["nan", ""], "loss": ["nan", ""]},
            float_precision="round_trip",
        )
        rows = rows.astype({"dice": "float64", "loss": "float64"})
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(path, str(error)) from error
    if list(rows.columns) != COLUMNS or rows.empty:
        raise _unusable(path, f"{len(rows)} row(s) with the columns {', '.join(rows.columns)}")
    return rows


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write the case rows of one model with full precision, whole or not at all."""
    write_text(path, rows[COLUMNS].to_csv(index=False, na_rep="nan", lineterminator="\n"))


def _unusable(path: Path, found: str) -> InputError:
    return InputError(
        path,
        f"cannot be used as case rows: {found}",
        f"a CSV file with the columns {', '.join(COLUMNS)} and a row per case and region",
        "delete the file, so that the workflow evaluates the model again",
    )


def _mean(values: Iterable[float]) -> float:
    # Correctly rounded: the order of cases and regions must not decide which model is better.
    numbers = [float(value) for value in values]
    return math.fsum(numbers) / len(numbers)


def _region_means(rows: pd.DataFrame) -> dict[str, float]:
    return {
        str(region): _mean(group["dice"]) for region, group in rows.groupby("region", sort=False)
    }


def mean_dice(rows: pd.DataFrame) -> float:
    """Mean over the regions of the mean Dice over the cases (no unit, 0 to 1)."""
    return _mean(_region_means(rows).values())


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """The numbers of one model: ``test_avg``, ``test_<region>`` in lower case, ``test_loss``.

    Args:
        rows: case rows, the regions of a case in the study's order, which the summary keeps; a
            case's loss stands in each of its rows and counts once.
    """
    losses = rows.drop_duplicates("case")["loss"]
    regions = {f"test_{region.lower()}": mean for region, mean in _region_means(rows).items()}
    return {"test_avg": mean_dice(rows), **regions, "test_loss": _mean(losses)}


def best_trial(scores: Mapping[str, float]) -> str:
    """The trial with the highest score; of equals, the one whose id sorts first.

    A score that is not a number counts as the lowest.
    """

    def rank(trial: str) -> tuple[float, str]:
        score = scores[trial]
        return (math.inf if math.isnan(score) else -score), trial

    return min(scores, key=rank)


def soup_title(recipe: str) -> str:
    """``greedy`` -> ``Greedy Soup``; the best single model and the ensemble are no soups."""
    if recipe == "best":
        return "Best Single"
    if recipe == "ensemble":
        return ENSEMBLE
    return f"{recipe.replace('-', ' ').title()} Soup"


@dataclass(frozen=True)
class FoldComparison:
    """The best single model of a fold and its soups.

    Attributes:
        fold: number of the fold.
        protocol: ``held-out`` or ``published``.
        best_trial: id of the trial with the highest selection score.
        columns: title (``Best Model``, ``Greedy Soup``, ...) -> summary on the test cases.
        ingredients: title -> number of trials in the model.
        models_per_prediction: title -> networks that run for one prediction: the inference cost.
        selection_scores: trial id or title of a soup -> mean Dice on the selection cases.
        test_scores: trial id or title of a soup -> mean Dice on the test cases.
    """

    fold: int
    protocol: str
    best_trial: str
    columns: dict[str, dict[str, float]]
    ingredients: dict[str, int]
    models_per_prediction: dict[str, int]
    selection_scores: dict[str, float]
    test_scores: dict[str, float]

    def table(self) -> pd.DataFrame:
        """The fold's table in the published form, see `fold_table`."""
        return fold_table(self.fold, self.columns, self.protocol)


def compare_fold(
    fold: int,
    trials: Mapping[str, tuple[Path, Path]],
    soups: Mapping[str, tuple[Path, Path]],
    protocol: str,
) -> FoldComparison:
    """Choose the best single model of a fold by its selection score and set it beside the soups.

    Args:
        fold: number of the fold.
        trials: trial id -> (selection.csv, test.csv).
        soups: recipe -> (recipe.json, test.csv).
        protocol: ``held-out`` or ``published``.

    Raises:
        InputError: if case rows cannot be read, or two models were scored on different cases.
    """
    selections = {trial: read_rows(Path(paths[0])) for trial, paths in trials.items()}
    tests = {trial: read_rows(Path(paths[1])) for trial, paths in trials.items()}
    records = {soup_title(recipe): read_json(Path(paths[0])) for recipe, paths in soups.items()}
    tests |= {soup_title(recipe): read_rows(Path(paths[1])) for recipe, paths in soups.items()}
    _check_same_cases(selections, {trial: paths[0] for trial, paths in trials.items()})
    _check_same_cases(
        tests,
        {trial: paths[1] for trial, paths in trials.items()}
        | {soup_title(recipe): paths[1] for recipe, paths in soups.items()},
    )
    selection_scores = {trial: mean_dice(rows) for trial, rows in selections.items()}
    best = best_trial(selection_scores)
    return FoldComparison(
        fold=int(fold),
        protocol=protocol,
        best_trial=best,
        columns={BEST_MODEL: summary(tests[best])}
        | {title: summary(tests[title]) for title in records},
        ingredients={BEST_MODEL: 1}
        | {title: len(record["ingredients"]) for title, record in records.items()},
        models_per_prediction={BEST_MODEL: 1}
        | {title: int(record.get("models_per_prediction", 1)) for title, record in records.items()},
        selection_scores=selection_scores
        | {title: float(record["score"]) for title, record in records.items()},
        test_scores={name: mean_dice(rows) for name, rows in tests.items()},
    )


def compare_study(
    results: Path,
    folds: Sequence[int],
    trials: Sequence[str],
    recipes: Sequence[str],
    protocol: str,
) -> list[FoldComparison]:
    """Compare the models of every fold, from the files of a results folder.

    Args:
        results: the study's results folder.
        folds: numbers of the folds.
        trials: ids of the trials.
        recipes: recipes of the soups.
        protocol: ``held-out`` or ``published``.
    """

    def rows(fold: int, model: str, first: str) -> tuple[Path, Path]:
        folder = results / f"fold{fold}" / model
        return folder / first, folder / "test.csv"

    return [
        compare_fold(
            fold,
            {trial: rows(fold, f"trials/{trial}", "selection.csv") for trial in trials},
            {recipe: rows(fold, f"soups/{recipe}", "recipe.json") for recipe in recipes},
            protocol,
        )
        for fold in folds
    ]


def _check_same_cases(models: Mapping[str, pd.DataFrame], paths: Mapping[str, Path]) -> None:
    reference: tuple[str, list[tuple[str, str]]] | None = None
    for name, rows in models.items():
        scored = sorted(zip(rows["case"], rows["region"], strict=True))
        if reference is None:
            reference = name, scored
        elif scored != reference[1]:
            raise InputError(
                paths[name],
                f"has other cases or regions than {paths[reference[0]]}",
                "models of one fold that were scored on the same cases and regions",
                "delete the older of the two files, so that the workflow evaluates it again",
            )


def fold_table(
    fold: int, columns: Mapping[str, Mapping[str, float]], protocol: str
) -> pd.DataFrame:
    """The table of one fold in the published form.

    Args:
        fold: number of the fold.
        columns: title -> summary, in the order of the columns.
        protocol: ``published`` is marked in the name of the index.

    Returns:
        Rows ``test_avg``, then ``test_<region>`` in the study's order, then ``test_loss``;
        columns ``Best Model (Fold k)``, ``Greedy Soup (Fold k)``, ...
    """
    index = list(next(iter(columns.values())))
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


def overview(comparisons: Sequence[FoldComparison]) -> pd.DataFrame:
    """All folds: one row per kind of model.

    Returns:
        Index ``model``; columns ``protocol``, ``folds``, ``ingredients`` and
        ``models_per_prediction`` (per fold, in the order of ``folds``), ``<metric>_mean`` and
        ``<metric>_std`` over the folds (sample standard deviation; not a number for one fold) for
        ``test_avg``, each region and ``test_loss``, and ``difference_mean`` and
        ``difference_std`` of ``test_avg`` to the best model of the same fold.
    """
    ordered = sorted(comparisons, key=lambda comparison: comparison.fold)
    rows = []
    for title in ordered[0].columns:
        row: dict[str, object] = {
            "model": title,
            "protocol": protocol_mark(ordered[0].protocol),
            "folds": ", ".join(str(c.fold) for c in ordered),
            "ingredients": ", ".join(str(c.ingredients[title]) for c in ordered),
            COST: ", ".join(str(c.models_per_prediction[title]) for c in ordered),
        }
        for metric in ordered[0].table().index:
            row |= _spread(metric, [c.columns[title][metric] for c in ordered])
        if title != BEST_MODEL:
            gains = [
                c.columns[title]["test_avg"] - c.columns[BEST_MODEL]["test_avg"] for c in ordered
            ]
            row |= _spread("difference", gains)
        else:
            row |= {"difference_mean": math.nan, "difference_std": math.nan}
        rows.append(row)
    return pd.DataFrame(rows).set_index("model")


def protocol_mark(protocol: str) -> str:
    """The protocol as tables name it: ``published`` says that its numbers are optimistic."""
    return f"published ({OPTIMISTIC})" if protocol == "published" else protocol


def _spread(metric: str, values: list[float]) -> dict[str, float]:
    center = _mean(values)
    squares = [(value - center) ** 2 for value in values]
    deviation = math.sqrt(math.fsum(squares) / (len(values) - 1)) if len(values) > 1 else math.nan
    return {f"{metric}_mean": center, f"{metric}_std": deviation}


def points(comparisons: Iterable[FoldComparison]) -> pd.DataFrame:
    """Every trial and soup of every fold as one point.

    Returns:
        ``fold``, ``name`` (trial id or title of the soup), ``kind`` (``Trial``, ``Best Model`` or
        the title of the soup), ``selection`` and ``test`` (mean Dice).
    """
    rows = []
    for comparison in comparisons:
        for name, selection in comparison.selection_scores.items():
            single = BEST_MODEL if name == comparison.best_trial else "Trial"
            rows.append(
                {
                    "fold": comparison.fold,
                    "name": name,
                    "kind": name if name in comparison.columns else single,
                    "selection": selection,
                    "test": comparison.test_scores[name],
                }
            )
    return pd.DataFrame(rows, columns=["fold", "name", "kind", "selection", "test"])


def write_fold_table(comparison: FoldComparison, stem: Path) -> None:
    """Write a fold's table as ``stem``.csv, .md and .html: the same digits in all three."""
    table = comparison.table()
    shown = table.map(repr)
    parts = ", ".join(
        f"{title} {count}" for title, count in comparison.ingredients.items() if title != BEST_MODEL
    )
    singles = [name for name in comparison.selection_scores if name not in comparison.columns]
    # With several checkpoints there are more models than trials.
    kind = "models of the trials" if any("/" in name for name in singles) else "trials"
    caption = (
        f"Fold {comparison.fold}: test_loss and Dice (0 to 1) on the test cases. "
        f"Best Model is trial {comparison.best_trial}, the highest of "
        f"{len(singles)} {kind} on the selection cases. "
        f"Ingredients: {parts}."
    )
    if ENSEMBLE in comparison.columns:
        caption += f" {_ensemble_cost(comparison.models_per_prediction[ENSEMBLE])}"
    write_table(table, shown, stem, caption, comparison.protocol == "published")


def _ensemble_cost(count: int) -> str:
    models = "1 model, the" if count == 1 else f"{count} models, {count} times the"
    return f"{ENSEMBLE}: the mean probabilities of {models} inference cost."


def write_overview(frame: pd.DataFrame, stem: Path) -> None:
    """Write the overview: full precision in ``stem``.csv, mean ± deviation in .md and .html."""
    caption = (
        "All folds: mean ± standard deviation over the folds of Dice (0 to 1) and loss on the test "
        "cases; the difference is that of test_avg to the best model of the same fold; "
        f"{COST} is the inference cost: networks that run for one prediction, per fold."
    )
    optimistic = frame["protocol"].str.startswith("published").any()
    write_table(frame, shown_overview(frame), stem, caption, bool(optimistic))


def write_table(
    frame: pd.DataFrame, shown: pd.DataFrame, stem: Path, caption: str, optimistic: bool
) -> None:
    """Write a table as ``stem``.csv, .md and .html.

    Args:
        frame: with every digit, for the CSV file.
        shown: the texts of the other two.
        stem: path without ending.
        caption: stands above the table; an empty line in it is a new paragraph.
        optimistic: whether the table is marked as chosen and scored on the same cases.
    """
    mark = OPTIMISTIC[0].upper() + OPTIMISTIC[1:] + "."
    write_text(_beside(stem, "csv"), frame.to_csv(na_rep="nan", lineterminator="\n"))
    # Text, not numbers: tabulate would round them to six digits.
    table = shown.to_markdown(
        disable_numparse=True, colalign=["left", *["right"] * len(shown.columns)]
    )
    heading = f"{caption}\n\n**{mark}**" if optimistic else caption
    write_text(_beside(stem, "md"), f"{heading}\n\n{table}\n")
    write_text(_beside(stem, "html"), _page(shown, caption, mark if optimistic else None, stem))


def _beside(stem: Path, ending: str) -> Path:
    # Not `with_suffix`, which would take what follows a dot in the name for an ending.
    return stem.parent / f"{stem.name}.{ending}"


def _page(shown: pd.DataFrame, caption: str, mark: str | None, stem: Path) -> str:
    flat = shown.rename_axis(columns=shown.index.name).rename_axis(index=None)
    table = flat.to_html(border=0)
    text = html.escape(caption).replace("\n\n", "<br>") + (
        f"<br><strong>{html.escape(mark)}</strong>" if mark else ""
    )
    head, opening, body = table.partition('<table class="dataframe">')
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(stem.name)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f"{head}{opening}\n<caption>{text}</caption>{body}\n</body>\n</html>\n"
    )


def shown_overview(frame: pd.DataFrame) -> pd.DataFrame:
    """The overview as people read it: one ``mean ± deviation`` with 4 decimals per metric."""
    metrics = [name.removesuffix("_mean") for name in frame.columns if name.endswith("_mean")]
    shown = {
        metric: [
            _rounded(mean, deviation, signed=metric == "difference")
            for mean, deviation in zip(frame[f"{metric}_mean"], frame[f"{metric}_std"], strict=True)
        ]
        for metric in metrics
    }
    return pd.DataFrame(
        {**shown, **{name: frame[name] for name in ("ingredients", COST, "folds", "protocol")}},
        index=frame.index,
    )


def _rounded(mean: float, deviation: float, signed: bool) -> str:
    if math.isnan(mean):
        return "–"
    value = f"{mean:+.4f}" if signed else f"{mean:.4f}"
    return value if math.isnan(deviation) else f"{value} ± {deviation:.4f}"


def read_overview(path: Path) -> pd.DataFrame:
    """Read an overview.csv that `write_overview` wrote, bit by bit."""
    text = {"model": str, "protocol": str, "folds": str, "ingredients": str, COST: str}
    return pd.read_csv(path, dtype=text, float_precision="round_trip").set_index("model")


def terminal_table(frame: pd.DataFrame) -> Table:
    """The overview for a terminal: models side by side, so that it fits 80 columns."""
    shown = shown_overview(frame)
    protocol = str(shown["protocol"].iloc[0])
    folds = str(shown["folds"].iloc[0])
    title = f"Dice and loss on the test cases, fold{'s' if ',' in folds else ''} {folds}"
    if OPTIMISTIC in protocol:
        title += f"\n[not italic bold]{OPTIMISTIC[0].upper()}{OPTIMISTIC[1:]}"
    caption = (
        "mean ± standard deviation over folds; difference: of test_avg to the best "
        f"model of the same fold; protocol: {protocol.partition(' ')[0]}"
    )
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, caption_justify="left")
    # Title and caption are wrapped to the table's width, which two models alone leave narrow.
    table.min_width = len(OPTIMISTIC) + 4
    if len(shown) > ROOMY_MODELS:
        table.padding, table.pad_edge, table.collapse_padding = (0, 0, 0, 0), False, True
    table.add_column("", no_wrap=True)
    for model in shown.index:
        table.add_column(str(model), justify="right")
    for name in shown.columns.drop(["folds", "protocol"]):
        # On two lines: the column is as wide as its longest name.
        label = "models per\nprediction" if name == COST else str(name)
        table.add_row(label, *shown[name].astype(str))
    return table


def print_overview(path: Path, console: Console | None = None) -> None:
    """Print an overview.csv as a table."""
    (console or Console()).print(terminal_table(read_overview(Path(path))))
