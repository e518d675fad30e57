"""Per-case scores: a row per case and region of one model, in a CSV file, and their means.

All numbers of tables, figures, the manifest and the report come from here, so that they cannot
disagree. Recipes of soups compare the same scores as mappings (`Scores`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_text
from voxelsoup.evaluation.metrics import METRICS
from voxelsoup.evaluation.own_metrics import register

COLUMNS = ["case", "region", "dice", "loss"]
LABEL_MAP_COLUMNS = COLUMNS[:-1]
# The region that stands for the mean of all.
ALL_REGIONS = "mean"

# Region -> Dice, and the case's loss under `LOSS`.
CaseScore = dict[str, float]
# Case -> its scores.
Scores = dict[str, CaseScore]
LOSS = "loss"


def read_rows(path: Path, of_label_maps: bool = False) -> pd.DataFrame:
    """Read the per-case scores of one model, exactly as written.

    Returns:
        ``case``, ``region``, ``dice``, ``loss`` (that of the case, in each of its rows; scores
        ``of_label_maps`` have none), and the further metrics that it was scored by
        (`voxelsoup.evaluation.metrics.METRICS`).

    Raises:
        InputError: if the file is missing, has other columns or has no rows.
    """
    try:
        rows = _read(path)
        if register(name for name in rows.columns if name not in COLUMNS):
            # Its numbers were read as words.
            rows = _read(path)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(path, str(error)) from error
    first = LABEL_MAP_COLUMNS if of_label_maps else COLUMNS
    if list(rows.columns) != first + measured_by(rows) or rows.empty:
        raise _unusable(path, f"{len(rows)} row(s) with the columns {', '.join(rows.columns)}")
    return rows


def _read(path: Path) -> pd.DataFrame:
    numbers = ["loss", *METRICS]
    # Case names may look like numbers or like missing values, and must stay what they are.
    rows = pd.read_csv(
        path,
        dtype={"case": str, "region": str},
        keep_default_na=False,
        na_values={name: ["nan", ""] for name in numbers},
        float_precision="round_trip",
    )
    return rows.astype({name: "float64" for name in rows.columns if name in numbers})


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write the per-case scores of one model with full precision, atomically."""
    register(name for name in rows.columns if name not in COLUMNS)
    columns = (COLUMNS if LOSS in rows else LABEL_MAP_COLUMNS) + measured_by(rows)
    write_text(path, rows[columns].to_csv(index=False, na_rep="nan", lineterminator="\n"))


def write_no_rows(path: Path) -> None:
    """Write the file of a model that there is none of, for its run diverged."""
    write_rows(path, pd.DataFrame(columns=COLUMNS))


def _unusable(path: Path, found: str) -> InputError:
    return InputError(
        path,
        f"cannot be used as per-case scores: {found}",
        f"a CSV file with the columns {', '.join(COLUMNS)}, perhaps some of "
        f"{', '.join(name for name in METRICS if name not in COLUMNS)} or of a package that is "
        "installed here, and a row per case and region",
        "delete the file, so that the workflow evaluates the model again",
    )


def measured_by(rows: pd.DataFrame) -> list[str]:
    """The metrics beside Dice and loss that rows hold, in the order of the columns."""
    return [name for name in METRICS if name in rows.columns and name not in COLUMNS]


def regions_of(rows: pd.DataFrame) -> list[str]:
    """The regions of rows in their order: that of a case in which as many as possible are scored.

    A case has no row for a region that nobody annotated in it.
    """
    counts = rows["case"].value_counts(sort=False)
    fullest = rows.loc[rows["case"] == counts.idxmax(), "region"]
    return [str(region) for region in dict.fromkeys([*fullest, *rows["region"]])]


def cases_of_regions(folds: Sequence[pd.DataFrame]) -> dict[str, int]:
    """Region (`mean`: any) -> number of cases in which it is annotated, of all folds' rows."""
    rows = pd.concat(folds)
    everything = sum(part["case"].nunique() for part in folds)
    counts = rows["region"].value_counts()
    return {ALL_REGIONS: everything} | {name: int(counts[name]) for name in regions_of(rows)}


def region_means(rows: pd.DataFrame, metric: str = "dice") -> dict[str, float]:
    """Region -> mean over the cases in which it is annotated, in the order of ``regions_of``."""
    groups = {str(region): group for region, group in rows.groupby("region", sort=False)}
    return {region: fmean(groups[region][metric]) for region in regions_of(rows)}


def mean_dice(rows: pd.DataFrame) -> float:
    """Mean over the regions of the mean Dice over the cases (no unit, 0 to 1)."""
    return fmean(region_means(rows).values())


def by_case(rows: pd.DataFrame, metric: str = "dice", region: str = ALL_REGIONS) -> pd.Series:
    """Case -> value of a metric in a region, or the mean of the case's regions; sorted by case.

    Regions that nobody annotated in a case have no part in it.
    """
    if region != ALL_REGIONS:
        rows = rows[rows["region"] == region]
    values = {str(case): fmean(group[metric]) for case, group in rows.groupby("case", sort=True)}
    return pd.Series(values, name=metric, dtype="float64")


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """The numbers of one model: ``test_avg``, ``test_<region>`` in lower case, ``test_loss``.

    The regions keep their order; a case's loss stands in each of its rows and counts once.
    """
    losses = rows.drop_duplicates("case")["loss"]
    regions = {f"test_{region.lower()}": value for region, value in region_means(rows).items()}
    return {"test_avg": mean_dice(rows), **regions, "test_loss": fmean(losses)}


def scores_of(rows: pd.DataFrame) -> Scores:
    """A table as a mapping: case -> region -> Dice, and the loss."""
    return {
        str(case): {
            **dict(zip(part["region"], part["dice"], strict=True)),
            LOSS: part["loss"].iloc[0],
        }
        for case, part in rows.groupby("case", sort=False)
    }


def case_score(rows: Sequence[Mapping[str, object]]) -> CaseScore:
    """The rows of one case as region -> Dice, and the loss."""
    dice_scores = {str(row["region"]): float(str(row["dice"])) for row in rows}
    return {**dice_scores, LOSS: float(str(rows[0]["loss"]))}


def rows_of(scores: Scores) -> pd.DataFrame:
    """A mapping as a table: ``case``, ``region``, ``dice``, ``loss``."""
    rows = [
        {"case": case, "region": region, "dice": value, "loss": score[LOSS]}
        for case, score in scores.items()
        for region, value in score.items()
        if region != LOSS
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def mean_score(scores: Scores) -> float:
    """Mean over the regions of the mean Dice over the cases, as in all tables."""
    regions = dict.fromkeys(name for case in scores.values() for name in case if name != LOSS)
    return fmean(
        fmean(case[region] for case in scores.values() if region in case) for region in regions
    )


def region_weights(scores: Scores) -> dict[str, float]:
    """Region -> what its Dice counts in a case, by number of cases over that of those with it.

    So that the mean of ``weighted_mean`` over the cases is ``mean_score``; 1 for all regions where
    each is annotated in all cases.
    """
    counts = Counter(name for case in scores.values() for name in case if name != LOSS)
    return {region: len(scores) / count for region, count in counts.items()}


def weighted_mean(score: CaseScore, weights: Mapping[str, float]) -> float:
    """A case's part in the mean over the regions of the mean over the cases."""
    values = (value * weights[name] for name, value in score.items() if name != LOSS)
    return math.fsum(values) / len(weights)


def case_mean(score: CaseScore) -> float:
    """Mean Dice over the regions of one case."""
    return fmean(value for name, value in score.items() if name != LOSS)
