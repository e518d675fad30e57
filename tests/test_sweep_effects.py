"""What the seed alone does, beside the gain of the soup."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from segsoup.comparison import OPTIMISTIC, FoldComparison
from segsoup.sweep_effects import seed_spreads, write_seeds

SEEDS = {"a": {"training.seed": 0}, "b": {"training.seed": 1}}
DICES = {"a": [0.5, 0.7], "b": [0.6, 0.9], "Greedy Soup": [0.65, 0.95]}


def rows(dices: list[float]) -> pd.DataFrame:
    cases = [f"case{number}" for number in range(len(dices))]
    return pd.DataFrame({"case": cases, "region": "WT", "dice": dices, "loss": 0.5})


def fold(protocol: str) -> FoldComparison:
    return FoldComparison(
        fold=0,
        protocol=protocol,
        best_trial="b",
        rows={"Best Model": rows(DICES["b"]), "Greedy Soup": rows(DICES["Greedy Soup"])},
        postprocessed={},
        ingredients={"Best Model": 1, "Greedy Soup": 2},
        models_per_prediction={"Best Model": 1, "Greedy Soup": 1},
        selection_scores={"a": 0.6, "b": 0.7, "Greedy Soup": 0.8},
        case_scores={name: rows(dices).set_index("case")["dice"] for name, dices in DICES.items()},
    )


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_the_table_of_seeds_has_the_gain_and_says_its_protocol(
    protocol: str, tmp_path: Path
) -> None:
    comparisons = [fold(protocol)]
    spreads = seed_spreads(comparisons, SEEDS)
    write_seeds(spreads, comparisons, tmp_path / "seeds")
    (row,) = pd.read_csv(tmp_path / "seeds.csv").to_dict("records")
    assert (row["settings"], row["seeds"]) == (1, 2)
    # Mean Dices of 0.6 and 0.75.
    assert row["seed_deviation"] == pytest.approx(0.15 / 2**0.5)
    assert row["seed_largest_range"] == pytest.approx(0.15)
    assert row["gain"] == pytest.approx(0.05)
    for end in ("csv", "md", "tex", "html"):
        text = (tmp_path / f"seeds.{end}").read_text().lower()
        assert (OPTIMISTIC in text) == (protocol == "published"), end
    assert "protocol" not in (tmp_path / "seeds.md").read_text()
