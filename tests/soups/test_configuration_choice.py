"""The choice among configurations and their ensembles, by made-up scores."""

from __future__ import annotations

import pandas as pd

from voxelsoup.soups.configuration_choice import candidates, choose, title_of


def fold(**dice: list[float]) -> pd.DataFrame:
    """Scores of candidates (`a_b`: of a and b), of two cases in two regions each."""
    rows = [
        {"configurations": title_of(tuple(name.split("_"))), "case": case, "region": region}
        | {"dice": value}
        for name, values in dice.items()
        for (case, region), value in zip(
            [("p", "TC"), ("p", "WT"), ("q", "TC"), ("q", "WT")], values, strict=True
        )
    ]
    return pd.DataFrame(rows)


def test_candidates_are_each_configuration_and_ensembles_of_two_and_three() -> None:
    found = candidates("abcd")
    assert found[:4] == [("a",), ("b",), ("c",), ("d",)]
    assert [len(names) for names in found].count(2) == 6
    assert [len(names) for names in found].count(3) == 4
    assert len(found) == 14


def test_each_fold_counts_once_and_the_highest_mean_is_chosen() -> None:
    folds = [
        fold(a=[0.8] * 4, b=[0.6] * 4, a_b=[0.9, 0.9, 0.9, 0.5]),
        fold(a=[0.8] * 4, b=[1.0] * 4, a_b=[0.9] * 4),
    ]
    choice = choose(folds, ["a", "b"])
    assert choice.scores == {("a",): 0.8, ("b",): 0.8, ("a", "b"): (0.8 + 0.9) / 2}
    # Of equal ones the first.
    assert (choice.configuration, choice.ensemble, choice.chosen) == ("a", ("a", "b"), ("a", "b"))


def test_an_ensemble_has_to_be_better_to_be_worth_its_networks() -> None:
    choice = choose([fold(a=[0.5] * 4, b=[0.9] * 4, a_b=[0.9] * 4)], ["a", "b"])
    assert choice.chosen == ("b",)
    assert choice.record()["ensemble"] == ["a", "b"]
    assert choice.record()["selection_dice"] == {"a": 0.5, "b": 0.9, "a + b": 0.9}
