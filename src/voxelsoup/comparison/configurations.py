"""The configurations of a study beside each other: scores on test cases and the cost of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.families import JudgedPair, judge, shown_level
from voxelsoup.comparison.tables import UNKNOWN, shown_interval, shown_p, write_table
from voxelsoup.evaluation.case_scores import mean_dice, region_means
from voxelsoup.soups.configuration_choice import Names, title_of


@dataclass(frozen=True)
class Compared:
    """A configuration, or the chosen ensemble of some, on the test cases.

    Attributes:
        model: which of a configuration's models it is.
        rows: fold -> per-case scores on its test cases, and ``after``: with post-processing.
        seconds: of a prediction, median over the cases and mean over the folds.
        memory_mb: most of all folds; NaN where it is unknown.
    """

    names: Names
    model: str
    selection_dice: float
    rows: Mapping[int, pd.DataFrame]
    after: Mapping[int, pd.DataFrame]
    seconds: float
    memory_mb: float

    @property
    def title(self) -> str:
        """What tables call it."""
        return title_of(self.names)


@dataclass(frozen=True)
class _Fold:
    """The test cases of a fold, as ``families`` compares pairs on them."""

    rows: Mapping[str, pd.DataFrame]
    patients: Mapping[str, str]

    def patients_of(self, cases: Iterable[str]) -> list[str]:
        """The patient of each of some cases; one that is not named is its patient's only one."""
        return [self.patients.get(case, case) for case in cases]


def cost_of(folds: Sequence[Mapping[str, Any]], names: Names) -> tuple[float, float]:
    """Seconds and MB of a prediction by models one after the other, from folds' ``costs.json``."""
    seconds = fmean(sum(fold[name]["seconds"] for name in names) for fold in folds)
    return seconds, max(fold[name]["memory_mb"] for fold in folds for name in names)


def compare_configurations(
    compared: Sequence[Compared], best: str, chosen: Names, patients: Mapping[str, str]
) -> pd.DataFrame:
    """A row per configuration and ensemble; differences are to the best configuration.

    Args:
        best: the best configuration by selection scores, and ``chosen`` the best of all.
        patients: case -> patient; a case that is not named is its patient's only one.

    Returns:
        Index ``configuration``; ``model``, ``chosen``, ``selection_dice``, ``test_dice`` and its
        means over the folds in each region, ``test_dice_postprocessed``, the difference with the
        interval of the ``level`` that Holm's method tests it at, ``p_holm``, ``networks``,
        ``seconds_per_case``, ``memory_mb``, ``folds``, ``cases``.
    """
    judged = _against_the_best(compared, best, patients)
    rows = []
    for one in compared:
        pair = judged.get(one.title)
        difference = pair.difference if pair else None
        regions = [region_means(rows) for rows in one.rows.values()]
        rows.append(
            {
                "configuration": one.title,
                "model": one.model,
                "chosen": one.names == chosen,
                "selection_dice": one.selection_dice,
                "test_dice": fmean(mean_dice(rows) for rows in one.rows.values()),
                **{
                    f"test_dice_{region}": fmean(means[region] for means in regions)
                    for region in regions[0]
                },
                "test_dice_postprocessed": fmean(mean_dice(rows) for rows in one.after.values()),
                "difference": difference.mean if difference else math.nan,
                "difference_low": difference.low if difference else math.nan,
                "difference_high": difference.high if difference else math.nan,
                "level": pair.level if pair else math.nan,
                "p_holm": pair.p if pair else math.nan,
                "networks": len(one.names),
                "seconds_per_case": one.seconds,
                "memory_mb": one.memory_mb,
                "folds": len(one.rows),
                "cases": sum(rows["case"].nunique() for rows in one.rows.values()),
            }
        )
    return pd.DataFrame(rows).set_index("configuration")


def _against_the_best(
    compared: Sequence[Compared], best: str, patients: Mapping[str, str]
) -> dict[str, JudgedPair]:
    """Title -> its difference from the best configuration, corrected for the others."""
    folds = [
        _Fold({one.title: one.rows[fold] for one in compared}, patients)
        for fold in compared[0].rows
    ]
    titles = [one.title for one in compared if one.title != best]
    pairs = judge([(title, best) for title in titles], folds, {t: t for t in [*titles, best]})
    return dict(zip(titles, pairs, strict=True))


def read_configurations(path: Path) -> pd.DataFrame:
    """Read a configurations.csv that ``write_configurations`` wrote, bit by bit."""
    return pd.read_csv(path, index_col="configuration", float_precision="round_trip")


def shown_configurations(frame: pd.DataFrame) -> pd.DataFrame:
    """The table as it is read."""
    shown = pd.DataFrame(index=frame.index)
    shown["model"] = frame["model"]
    shown["chosen"] = ["yes" if chosen else "" for chosen in frame["chosen"]]
    for place in ("selection", "test"):
        shown[f"{place} Dice"] = [f"{value:.4f}" for value in frame[f"{place}_dice"]]
    shown["after post-processing"] = [f"{v:.4f}" for v in frame["test_dice_postprocessed"]]
    ends = frame[["difference", "difference_low", "difference_high"]].itertuples(index=False)
    shown["difference"] = [
        UNKNOWN if math.isnan(mean) else shown_interval(mean, low, high) for mean, low, high in ends
    ]
    shown["interval"] = [
        UNKNOWN if math.isnan(level) else shown_level(low, level)
        for low, level in zip(frame["difference_low"], frame["level"], strict=True)
    ]
    shown["p (Holm)"] = [shown_p(p) for p in frame["p_holm"]]
    shown["networks"] = [str(number) for number in frame["networks"]]
    shown["s per case"] = [f"{value:.2f}" for value in frame["seconds_per_case"]]
    shown["MB"] = [UNKNOWN if math.isnan(mb) else f"{mb:.0f}" for mb in frame["memory_mb"]]
    return shown


def write_configurations(frame: pd.DataFrame, stem: Path, protocol: str, device: str) -> None:
    """Write the table of ``compare_configurations`` as ``stem``.csv, .md, .tex and .html."""
    caption = (
        f"{sentence(frame)}\n\n{counted(int(frame['folds'].iloc[0]), 'fold')} with "
        f"{counted(int(frame['cases'].iloc[0]), 'test case')}. Configurations and the best "
        "ensemble of two or three of them are chosen by their mean Dice on selection cases and "
        "scored once on test cases. Difference: from the best configuration, mean over all test "
        "cases in Dice points (hundredths), with the bootstrap interval (patients resampled within "
        "their fold) of the level that Holm's method tests it at; p (Holm): corrected for the "
        "number of rows. No interval: fewer than six patients differ. Cost of one prediction: "
        "networks that run one after the other, seconds (median of the selection cases) and most "
        f"memory, on {device}."
    )
    write_table(frame, shown_configurations(frame), stem, caption, protocol == "published")


def sentence(frame: pd.DataFrame) -> str:
    """What is chosen, in one sentence."""
    chosen = frame[frame["chosen"]].iloc[0]
    single = frame[frame["networks"] == 1].sort_values("selection_dice", ascending=False).iloc[0]
    names = str(chosen.name).split(" + ")
    what = "configuration" if len(names) == 1 else "ensemble of the configurations"
    text = (
        f"By the selection cases the {what} {listed(names)} is the best, with a mean Dice of "
        f"{chosen['test_dice']:.4f} on the test cases"
    )
    if len(names) == 1:
        return f"{text}."
    gain = shown_interval(chosen["difference"], chosen["difference_low"], chosen["difference_high"])
    return (
        f"{text}: {gain} Dice points from {single.name}, the best configuration alone, at "
        f"{len(names)} times the networks."
    )
