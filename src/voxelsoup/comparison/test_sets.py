"""The models of a study on a data set that no fold has: all metrics, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted
from voxelsoup.comparison.names import BEST_MODEL, soup_title
from voxelsoup.comparison.score_summary import Means, means_of, note_on_regions, shown_mean
from voxelsoup.comparison.statistics import Difference, holm, paired_difference
from voxelsoup.comparison.tables import heading, shown_difference, shown_p, write_table
from voxelsoup.data.case import Case
from voxelsoup.data.index.patients import patients_of
from voxelsoup.evaluation.case_scores import ALL_REGIONS, by_case, measured_by, read_rows


@dataclass(frozen=True)
class OnTestSet:
    """A kind of model on a test set.

    Attributes:
        means: metric -> region -> mean over the cases.
        difference: in the mean Dice over the regions from the best single model, paired over the
            cases; None for that model itself.
        p: its p value, adjusted for the models of the table.
    """

    means: Means
    difference: Difference | None
    p: float


def read_test_set(
    folder: Path, folds: Sequence[int], models: Sequence[str]
) -> dict[str, OnTestSet]:
    """Title of a model -> how it does, from ``fold{k}/{model}/scores.csv`` in a test set's folder.

    A case's scores are their mean over the folds' models, so that each case counts once. The first
    model is the best single one.

    Raises:
        InputError: if scores cannot be read, or models were scored on different cases.
    """
    rows: dict[str, pd.DataFrame] = {}
    scored: list[tuple[str, str]] | None = None
    for model in models:
        files = [folder / f"fold{fold}" / model / "scores.csv" for fold in folds]
        tables = [read_rows(file, of_label_maps=True) for file in files]
        for file, table in zip(files, tables, strict=True):
            found = sorted(zip(table["case"], table["region"], strict=True))
            scored = scored or found
            if found != scored:
                raise InputError(
                    file,
                    "has other cases or regions than the other models of this test set",
                    "models that were scored on the same cases",
                    "delete the file, so that the workflow scores the model again",
                )
        rows[_title(model)] = _mean_over_folds(tables)
    best = by_case(next(iter(rows.values())))
    patients = patients_of(Case(str(name), {}, None) for name in best.index)
    differences = {
        title: paired_difference(
            [(by_case(table) - best).to_numpy()], patients=[[patients[n] for n in best.index]]
        )
        for title, table in list(rows.items())[1:]
    }
    adjusted = dict(zip(differences, holm([d.p for d in differences.values()]), strict=True))
    return {
        title: OnTestSet(
            means_of([table], patients), differences.get(title), adjusted.get(title, 1.0)
        )
        for title, table in rows.items()
    }


def _mean_over_folds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    metrics = ["dice", *measured_by(tables[0])]
    groups = pd.concat(tables).groupby(["case", "region"], sort=False)
    return groups[metrics].mean().reset_index()


def _title(model: str) -> str:
    return BEST_MODEL if model == "best" else soup_title(model.removeprefix("soups/"))


def write_test_set(models: Mapping[str, OnTestSet], stem: Path, name: str) -> None:
    """Write the comparison as ``stem``.csv (all digits), .md, .tex and .html."""
    rows, shown = [], []
    for title, one in models.items():
        for region in one.means["dice"]:
            cells = {
                heading(metric): shown_mean(by_region[region], metric)
                for metric, by_region in one.means.items()
            }
            compared = one.difference if region == ALL_REGIONS else None
            cells["difference in Dice points [95 %]"] = (
                shown_difference(compared) if compared else ""
            )
            cells["p"] = shown_p(one.p) if compared else ""
            shown.append({"model": title, "region": region, **cells})
            for metric, by_region in one.means.items():
                rows.append(_row(title, region, metric, by_region[region], one))
    means = next(iter(models.values())).means
    cases = means["dice"][ALL_REGIONS].cases
    caption = (
        f"Test set {name}: mean over {counted(cases, 'case')} with 95 % bootstrap intervals "
        "(patients resampled; visits by the names of the cases). A case's scores are the mean over "
        "the models of all folds. Difference: from the best single model, in Dice points "
        "(hundredths), paired over the cases; p: Wilcoxon signed-rank test over the patients, "
        "adjusted for the models of the table (Holm)." + note_on_regions(means)
    )
    table, readable = pd.DataFrame(rows).set_index("model"), pd.DataFrame(shown).set_index("model")
    write_table(table, readable, stem, caption, optimistic=False)


def _row(
    title: str, region: str, metric: str, mean: Difference, one: OnTestSet
) -> dict[str, object]:
    compared = one.difference if metric == "dice" and region == ALL_REGIONS else None
    difference = (
        {}
        if compared is None
        else {
            "difference": compared.mean,
            "difference_low": compared.low,
            "difference_high": compared.high,
            "p": one.p,
        }
    )
    return {
        "model": title,
        "region": region,
        "metric": metric,
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
        "cases": mean.cases,
        **difference,
    }
