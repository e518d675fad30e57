"""The comparisons that a study makes by itself, and their sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from support.compared_folds import (
    BEST_TRIAL,
    OTHER_TRIAL,
    compared,
    html_cells,
    latex_cells,
    markdown_cells,
)
from voxelsoup.comparison.answer import answer_of, secondary_table
from voxelsoup.comparison.findings import (
    ENSEMBLE_QUESTION,
    FINISH_QUESTION,
    LONG_RUN_QUESTION,
    OTHER_QUESTION,
    RECIPE_QUESTION,
    SCHEDULE_QUESTION,
    Finding,
    primary_answer,
    read_findings,
    trial_scores,
    write_findings,
)
from voxelsoup.comparison.findings import find as find_of
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL, OPTIMISTIC
from voxelsoup.comparison.terminal import print_conclusions

RNG = np.random.default_rng(5)
BEST = {fold: RNG.uniform(0.4, 0.6, 12) for fold in range(3)}
GAINS = {"Greedy Soup": 0.02, "Uniform Soup": -0.01, "Ensemble": 0.03, "Best Single": 0.0}
SOUPS = {
    fold: {title: best + gain * RNG.uniform(0.5, 2, 12) for title, gain in GAINS.items()}
    for fold, best in BEST.items()
}


def folds_of(
    titles: Sequence[str], count: int = 3, protocol: str = "held-out"
) -> list[FoldComparison]:
    return [
        compared(
            {title: SOUPS[fold][title] for title in titles},
            BEST[fold],
            fold,
            protocol,
            costs={"Ensemble": 4 + fold} if "Ensemble" in titles else {},
        )
        for fold in range(count)
    ]


def find(
    folds: Sequence[FoldComparison],
    parameters: dict[str, dict[str, Any]],
    primary: tuple[str, str] | None = None,
) -> list[Finding]:
    """The findings of a study that is about its greedy soup, or else its first one."""
    titles = [title for title in folds[0].rows if title != BEST_MODEL]
    first = "Greedy Soup" if "Greedy Soup" in titles else titles[0]
    return find_of(folds, parameters, primary or (first, BEST_MODEL))


def pairs_of(findings: Sequence[Finding], fold: int | None = None) -> list[tuple[str, str, str]]:
    return [(f.question, f.first, f.second) for f in findings if f.fold == fold]


def against_best(*soups: str) -> list[tuple[str, str, str]]:
    return [(RECIPE_QUESTION, soup, "best single model") for soup in soups]


@pytest.mark.parametrize(
    ("titles", "pairs"),
    [
        (["Greedy Soup"], against_best("greedy soup")),
        (["Uniform Soup", "Greedy Soup"], against_best("greedy soup", "uniform soup")),
        (["Ensemble"], against_best("ensemble")),
        (["Best Single"], against_best("best ingredient")),
        (["Best Single", "Ensemble"], against_best("best ingredient", "ensemble")),
        (
            ["Greedy Soup", "Uniform Soup", "Best Single", "Ensemble"],
            [
                *against_best("greedy soup", "uniform soup", "best ingredient", "ensemble"),
                (ENSEMBLE_QUESTION, "ensemble", "greedy soup"),
                (ENSEMBLE_QUESTION, "ensemble", "uniform soup"),
            ],
        ),
    ],
)
def test_each_recipe_is_compared_with_the_best_model_and_an_ensemble_with_each_soup(
    titles: list[str], pairs: list[tuple[str, str, str]]
) -> None:
    findings = find(folds_of(titles), {})
    assert pairs_of(findings) == pairs
    assert [f.fold for f in findings] == [
        fold for fold in (None, 0, 1, 2) for _ in range(len(pairs))
    ]
    for fold in range(3):
        assert pairs_of(findings, fold) == pairs


def test_findings_of_one_fold_are_those_of_all_folds() -> None:
    findings = find(folds_of(["Greedy Soup", "Uniform Soup"], 1), {})
    assert [f.fold for f in findings] == [None, None]


def test_differences_are_first_minus_second_over_the_cases_of_the_fold() -> None:
    findings = find(folds_of(["Greedy Soup", "Ensemble"]), {})
    assert len(findings) == 4 * 3
    sides = {"best single model": BEST} | {
        title.lower(): {fold: soups[title] for fold, soups in SOUPS.items()} for title in GAINS
    }
    for finding in findings:
        asked = [finding.fold] if finding.fold is not None else list(BEST)
        values = np.concatenate(
            [sides[finding.first][fold] - sides[finding.second][fold] for fold in asked]
        )
        found = finding.difference
        assert found.mean == pytest.approx(values.mean(), rel=1e-8)
        assert (found.cases, found.unequal, found.folds) == (len(values), len(values), len(asked))
        # Another interval for the mean, which differs by little where nothing is skewed.
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.25 * (high - low))
        if len(asked) == 1:
            assert found.p == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)


def test_the_primary_comparison_is_tested_by_itself_and_the_others_by_holm() -> None:
    findings = find(folds_of(["Uniform Soup", "Ensemble", "Greedy Soup"]), {})
    assert [f.primary for f in findings] == [True] + [False] * (len(findings) - 1)
    primary, *others = findings
    assert (primary.first, primary.second) == ("greedy soup", "best single model")
    assert primary.p == primary.difference.p_interval and primary.level == 0.05
    for fold in (None, 0, 1, 2):
        of_fold = [f for f in others if f.fold == fold]
        ordered = sorted(of_fold, key=lambda finding: finding.difference.p_interval)
        assert len(ordered) == (4 if fold is None else 5)
        # Holm: the smallest times the number of comparisons, the next times one less, and so on.
        highest = 0.0
        for place, finding in enumerate(ordered):
            p = finding.difference.p_interval * (len(ordered) - place)
            highest = max(highest, min(1.0, p))
            assert finding.p == pytest.approx(highest, rel=1e-12)
        assert min(f.level for f in ordered) == pytest.approx(0.05 / len(ordered))


def random_study(seed: int, cases: int, gain: float) -> list[FoldComparison]:
    """Two folds of models that differ by chance and, some, by a gain; five patients come twice."""
    generator = np.random.default_rng(seed)
    best = {fold: generator.uniform(0.4, 0.6, cases) for fold in range(2)}
    shifts = {"Greedy Soup": gain, "Uniform Soup": -gain / 2, "Ensemble": 2 * gain}
    folds = [
        compared(
            {t: scores + generator.normal(shift, 0.02, cases) for t, shift in shifts.items()},
            scores,
            fold,
        )
        for fold, scores in best.items()
    ]
    again = {f"case{number:02}": f"case{number - 5:02}" for number in range(5, min(10, cases))}
    return [replace(fold, patients=again) for fold in folds]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.sampled_from([0.0, 0.004, 0.01, 0.02]))
def test_sentence_interval_and_p_value_of_every_comparison_agree(
    seed: int, cases: int, gain: float
) -> None:
    for finding in find(random_study(seed, cases, gain), {}):
        leaves_out = finding.difference.low > 0 or finding.difference.high < 0
        assert leaves_out == (finding.p < 0.05)
        assert leaves_out == ("better than" in finding.sentence or "worse than" in finding.sentence)
        assert leaves_out != finding.sentence.startswith("no difference shown")
        # Beside a 95 % interval in another table that leaves out 0, the sentence says why.
        if not finding.primary and not leaves_out:
            explained = "leaves out 0, but is not corrected for the others" in finding.sentence
            assert explained == (finding.difference.p_interval < 0.05)


def test_cases_of_one_patient_are_resampled_together() -> None:
    fold = folds_of(["Greedy Soup"], 1)[0]
    pairs = {f"case{number:02}": f"patient {number // 2}" for number in range(12)}
    (alone,), (paired,) = find([fold], {}), find([replace(fold, patients=pairs)], {})
    assert (alone.difference.patients, paired.difference.patients) == (12, 6)
    assert paired.difference.mean == alone.difference.mean
    assert paired.difference.low != alone.difference.low
    assert "12 cases of 6 patients, 1 fold" in paired.sentence


FINISHED = ["Greedy Soup", "Ensemble", "Finished Soup", "Finished Best Model", "Long Run"]


def finished_folds(titles: Sequence[str]) -> list[FoldComparison]:
    gains = {title: 0.01 * number for number, title in enumerate(titles)}
    return [
        compared({title: BEST[fold] + gain for title, gain in gains.items()}, BEST[fold], fold)
        for fold in range(2)
    ]


@pytest.mark.parametrize(
    ("titles", "primary", "further"),
    [
        (
            FINISHED,
            ("Finished Soup", "Best Model"),
            [
                (FINISH_QUESTION, "finished soup", "finished best single model"),
                (LONG_RUN_QUESTION, "finished soup", "long run"),
                (ENSEMBLE_QUESTION, "ensemble", "greedy soup"),
                (ENSEMBLE_QUESTION, "ensemble", "finished soup"),
            ],
        ),
        # Where the best single model alone is finished, the soup is compared with it.
        (
            ["Greedy Soup", "Finished Best Model"],
            ("Greedy Soup", "Best Model"),
            [(FINISH_QUESTION, "greedy soup", "finished best single model")],
        ),
        (
            ["Finished Soup", "Finished Best Model"],
            ("Finished Best Model", "Best Model"),
            [(FINISH_QUESTION, "finished soup", "finished best single model")],
        ),
    ],
)
def test_a_finished_model_is_compared_with_its_control_and_one_long_run(
    titles: list[str], primary: tuple[str, str], further: list[tuple[str, str, str]]
) -> None:
    found = find(finished_folds(titles), {}, primary)
    assert found[0].primary
    assert (found[0].first, found[0].second) == (
        primary[0].lower().replace("best model", "best single model"),
        "best single model",
    )
    assert [pair for pair in pairs_of(found) if pair[0] != RECIPE_QUESTION] == further
    assert len([pair for pair in pairs_of(found) if pair[0] == RECIPE_QUESTION]) == len(titles)


def test_any_two_models_can_be_the_primary_question_and_are_compared_once() -> None:
    found = find(
        folds_of(["Greedy Soup", "Uniform Soup", "Ensemble"]), {}, ("Greedy Soup", "Ensemble")
    )
    pairs = pairs_of(found)
    assert pairs[0] == (ENSEMBLE_QUESTION, "greedy soup", "ensemble")
    assert (ENSEMBLE_QUESTION, "ensemble", "greedy soup") not in pairs and len(pairs) == 5
    found = find(folds_of(["Greedy Soup", "Uniform Soup"]), {}, ("Uniform Soup", "Greedy Soup"))
    assert pairs_of(found)[0] == (OTHER_QUESTION, "uniform soup", "greedy soup")


def test_cost_of_a_finding_is_that_of_its_folds() -> None:
    costs = {
        (f.fold, f.first, f.second): f.cost for f in find(folds_of(["Greedy Soup", "Ensemble"]), {})
    }
    assert costs[None, "greedy soup", "best single model"] == "1 against 1"
    assert costs[None, "ensemble", "greedy soup"] == "4 to 6 against 1"
    assert costs[1, "ensemble", "best single model"] == "5 against 1"


def test_finding_of_a_soup_equal_to_the_best_model_says_the_same() -> None:
    folds = [compared({"Greedy Soup": BEST[f]}, BEST[f], f) for f in range(3)]
    findings = find(folds, {})
    assert [f.sentence for f in findings] == [
        "greedy soup and best single model score the same on all 36 cases",
        *["greedy soup and best single model score the same on all 12 cases"] * 3,
    ]
    difference = findings[0].difference
    assert (difference.mean, difference.low, difference.high, difference.unequal) == (0, 0, 0, 0)
    assert findings[0].p == 1


def test_the_sentence_states_the_adjusted_p_value() -> None:
    findings = find(folds_of(["Greedy Soup", "Uniform Soup", "Ensemble"]), {})
    apart = 0
    for f in findings:
        stated = re.search(r"p ([<=]) ([\d.]+)", f.sentence)
        assert stated
        if stated[1] == "<":
            assert f.p < float(stated[2]) == 0.001
            continue
        # Rounded to one digit, or to two above 0.01.
        assert float(stated[2]) == pytest.approx(f.p, abs=0.005 if f.p > 0.01 else 0.0005)
        apart += f.difference.p_interval < 0.5 * f.p
    assert apart > 0
    assert findings[0].sentence.startswith("greedy soup better than best single model by 2.")


# Schedules

SCHEDULES: dict[str, dict[str, Any]] = {
    "free1": {"optimizer.schedule": "schedule-free", "optimizer.lr": 0.1},
    "free2": {"optimizer.schedule": "schedule-free", "optimizer.lr": 0.2},
    "cosine1": {"optimizer.schedule": "cosine", "optimizer.lr": 0.1},
    "cosine2": {"optimizer.schedule": "cosine", "optimizer.lr": 0.2},
    "step2": {"optimizer.schedule": "step", "optimizer.lr": 0.2},
}
SWEPT = {name: RNG.uniform(0.4, 0.6, 12) for name in SCHEDULES}


def swept_fold(fold: int = 0, trials: Sequence[str] = tuple(SCHEDULES)) -> FoldComparison:
    # A checkpoint of a trial is no trial of its own.
    scores = {trial: SWEPT[trial] + 0.01 * fold for trial in trials} | {"free1/raw-1": BEST[0] + 1}
    return compared({"Greedy Soup": SOUPS[0]["Greedy Soup"]}, BEST[0], fold, trials=scores)


def test_a_trial_is_scored_by_its_own_model_alone() -> None:
    (scores,) = trial_scores([swept_fold(4)]).values()
    assert list(trial_scores([swept_fold(4)])) == [4]
    assert set(scores) == {BEST_TRIAL, *SCHEDULES}
    assert scores["free1"] == pytest.approx(SWEPT["free1"] + 0.04, rel=1e-12)


def schedules_of(findings: Sequence[Finding], fold: int | None = None) -> dict[str, Finding]:
    return {
        f.second: f
        for f in findings
        if f.question == SCHEDULE_QUESTION and f.first == "schedule-free" and f.fold == fold
    }


def test_schedule_free_is_compared_with_each_schedule_over_matched_trials() -> None:
    found = schedules_of(find([swept_fold()], SCHEDULES))
    cosine = (SWEPT["free1"] - SWEPT["cosine1"] + SWEPT["free2"] - SWEPT["cosine2"]) / 2
    step = SWEPT["free2"] - SWEPT["step2"]
    assert list(found) == ["cosine", "step"]
    for name, expected in {"cosine": cosine, "step": step}.items():
        difference = found[name].difference
        assert difference.mean == pytest.approx(np.mean(expected), abs=1e-12)
        assert difference.p == pytest.approx(stats.wilcoxon(expected, method="exact").pvalue)
        assert found[name].cost == "1 against 1"


def test_schedules_are_compared_per_fold_and_counted_by_holm() -> None:
    findings = find([swept_fold(0), swept_fold(1)], SCHEDULES)
    assert [f.fold for f in findings] == [None] * 3 + [0] * 3 + [1] * 3
    for fold in (None, 0, 1):
        others = [f for f in findings if f.fold == fold and not f.primary]
        smallest = min(others, key=lambda f: f.difference.p_interval)
        assert len(others) == (2 if fold is None else 3)
        assert smallest.p == pytest.approx(min(1.0, len(others) * smallest.difference.p_interval))
    assert schedules_of(findings)["step"].difference.cases == 24


def test_a_schedule_without_matched_trials_has_nothing_to_compare() -> None:
    trials = ["free1", "step2"]
    findings = find([swept_fold(trials=trials)], {t: SCHEDULES[t] for t in trials})
    step = schedules_of(findings)["step"]
    assert step.sentence == "no case to compare schedule-free and step on"
    assert step.difference.cases == 0 and math.isnan(step.p)
    # It does not count for Holm.
    greedy = findings[0]
    assert greedy.first == "greedy soup" and greedy.p == greedy.difference.p_interval


@pytest.mark.parametrize("trials", [["cosine1", "cosine2", "step2"], ["free1", "free2"], []])
def test_schedules_are_compared_only_if_schedule_free_and_another_are_swept(
    trials: list[str],
) -> None:
    findings = find([swept_fold(trials=trials)], {t: SCHEDULES[t] for t in trials})
    assert pairs_of(findings) == against_best("greedy soup")


def test_other_sweeps_compare_no_schedules() -> None:
    parameters = {BEST_TRIAL: {"optimizer.lr": 0.1}, OTHER_TRIAL: {"optimizer.lr": 0.2}}
    assert pairs_of(find(folds_of(["Greedy Soup"]), parameters)) == against_best("greedy soup")


# Files


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_findings_are_written_exactly_in_csv_and_rounded_in_pages(
    tmp_path: Path, protocol: str
) -> None:
    findings = find(folds_of(["Greedy Soup", "Ensemble"], protocol=protocol), {})
    write_findings(findings, protocol, tmp_path / "comparisons")
    frame = pd.read_csv(
        tmp_path / "comparisons.csv", dtype={"folds": str}, float_precision="round_trip"
    )
    assert frame["folds"].tolist() == ["all" if f.fold is None else str(f.fold) for f in findings]
    for name, values in {
        "question": [f.question for f in findings],
        "difference": [f.difference.mean for f in findings],
        "low": [f.difference.low for f in findings],
        "high": [f.difference.high for f in findings],
        "level": [f.level for f in findings],
        "p": [f.difference.p_interval for f in findings],
        "p_holm": [f.p for f in findings],
        "p_signed_rank": [f.difference.p for f in findings],
        "role": ["primary"] + ["secondary"] * (len(findings) - 1),
        "cases": [f.difference.cases for f in findings],
        "patients": [f.difference.patients for f in findings],
        "models_per_prediction": [f.cost for f in findings],
        "conclusion": [f.sentence for f in findings],
    }.items():
        assert frame[name].tolist() == values, name
    mark = "held-out" if protocol == "held-out" else f"published ({OPTIMISTIC})"
    assert set(frame["protocol"]) == {mark}
    cells = markdown_cells(tmp_path / "comparisons.md")
    assert html_cells(tmp_path / "comparisons.html") == cells
    assert latex_cells(tmp_path / "comparisons.tex") == cells
    assert cells[0] == [
        "question",
        "role",
        "first",
        "second",
        "folds",
        "cases",
        "difference in Dice points [interval]",
        "interval",
        "p",
        "p (Holm)",
        "p (signed rank)",
        "models per prediction",
        "conclusion",
    ]
    assert len(cells) == 1 + len(findings)
    intervals = [cell[7] for cell in cells[1:]]
    assert intervals[0] == "95 %" and "97.5 %" in intervals
    assert set(intervals) <= {"95 %", "97.5 %", "98.33 %"}


def test_findings_are_read_back_exactly(tmp_path: Path) -> None:
    folds = [swept_fold(0), swept_fold(1)]
    findings = find([replace(fold, patients={"case01": "case00"}) for fold in folds], SCHEDULES)
    write_findings(findings, "held-out", tmp_path / "comparisons")
    assert read_findings(tmp_path / "comparisons.csv") == findings
    assert primary_answer(tmp_path / "comparisons.csv") == findings[0].sentence


def test_comparisons_of_earlier_versions_have_no_primary_question(tmp_path: Path) -> None:
    pd.DataFrame({"folds": ["all"], "conclusion": ["a better than b"]}).to_csv(tmp_path / "c.csv")
    assert read_findings(tmp_path / "c.csv") == []
    assert primary_answer(tmp_path / "c.csv") == ""


def test_the_sentence_of_a_finding_agrees_with_its_numbers(tmp_path: Path) -> None:
    write_findings(
        find(folds_of(["Greedy Soup", "Uniform Soup", "Ensemble"]), {}), "held-out", tmp_path / "c"
    )
    head, *rows = markdown_cells(tmp_path / "c.md")
    concluded = 0
    for cells in rows:
        row = dict(zip(head, cells, strict=True))
        sentence = row["conclusion"]
        numbers = [float(n) for n in re.findall(r"[+-][\d.]+", row[head[6]])]
        amount = re.search(r"([+-]?[\d.]+) Dice points \[(-?[\d.]+), (-?[\d.]+)\]", sentence)
        worse = "worse than" in sentence
        shown = [-float(n) if worse else float(n) for n in amount.groups()]
        if worse:
            shown = [shown[0], shown[2], shown[1]]
        assert shown == pytest.approx(numbers, abs=0.055)
        assert f"{row['cases']} cases" in sentence
        p = re.search(r"p ([<=]) ([\d.]+)", sentence).groups()
        if p[0] == "<":
            assert row["p (Holm)"] == "< 0.001"
        else:
            assert float(row["p (Holm)"]) == pytest.approx(float(p[1]), abs=0.0055)
        concluded += worse
    assert concluded > 0


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_the_answer_is_printed_below_a_table_of_the_secondary_comparisons(
    tmp_path: Path, protocol: str
) -> None:
    findings = find(folds_of(["Greedy Soup", "Uniform Soup", "Ensemble"]), {})
    write_findings(findings, protocol, tmp_path / "comparisons")
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    print_conclusions(tmp_path / "comparisons.csv", console)
    lines = [line.strip() for line in console.export_text().splitlines()]
    text = " ".join(lines)
    assert max(map(len, lines)) <= 80
    first, second = answer_of(findings, protocol)
    assert text.endswith(f"{first} {second}")
    assert ("optimistic" in first) == (protocol == "published")
    rows = secondary_table(findings)
    assert len(rows) == 4
    for name, cells in rows.iterrows():
        assert all(word in text for word in str(name).split())
        assert all(cell in text for cell in cells)
    assert "greedy soup – best single model" not in text


def test_brackets_in_a_conclusion_are_printed_verbatim(tmp_path: Path) -> None:
    text = "first [a] better than second [bold] by [/bold] 1"
    pd.DataFrame({"folds": ["all", "0"], "conclusion": [text, "not this"]}).to_csv(
        tmp_path / "c.csv"
    )
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    print_conclusions(tmp_path / "c.csv", console)
    assert console.export_text().strip() == f"F{text[1:]}."
