"""How often does a comparison show a difference where there is none? Simulated studies.

The test cases of a study are drawn in three folds, with as many patients as asked, one case each,
from differences with a mean of 0: normal ones; with outliers (one in ten is five times as large);
skewed (exponential); and real ones, the differences between two models on the cases of public data
sets, with random signs (two models that are alike) or less their mean (skewed, with outliers). Each
study is judged by the code that judges a real one.

    python bench/interval_error.py [--patients 9 15 24 40 100] [--studies 2000] [--deltas FILE]

``--deltas``: a CSV file with the columns ``dataset_id`` and ``delta_dice``; by default that of the
rankseg-nnunet-benchmark in ``shared/data``, and without it the real ones are left out. Ends with
one JSON object: kind of differences -> patients -> share of studies, in %, whose 95 % interval
leaves out 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

FOLDS = 3
DELTAS = REPOSITORY.parent / "shared/data/scores/rankseg/evidence/full16/case_paired_deltas.csv"
# Data sets with fewer cases are no population to draw from.
FEWEST_CASES = 60

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def _with_outliers(random: np.random.Generator, cases: int) -> NDArray[np.float64]:
    return random.normal(size=cases) * np.where(random.random(cases) < 0.1, 5.0, 1.0)


def real_differences(path: Path) -> dict[str, Draw]:
    """What draws cases from one of the data sets of a file, with random signs or centred."""
    groups = pd.read_csv(path).groupby("dataset_id")["delta_dice"]
    pools = [group.to_numpy() for _, group in groups if len(group) >= FEWEST_CASES]

    def alike(random: np.random.Generator, cases: int) -> NDArray[np.float64]:
        pool = pools[random.integers(len(pools))]
        return random.choice(pool, cases) * random.choice([-1.0, 1.0], cases)

    def centred(random: np.random.Generator, cases: int) -> NDArray[np.float64]:
        pool = pools[random.integers(len(pools))]
        return random.choice(pool - pool.mean(), cases)

    return {"real, random signs": alike, "real, centred": centred}


def main() -> None:
    """All kinds of differences and numbers of patients, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patients", nargs="+", type=int, default=[9, 15, 24, 40, 100])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--deltas", type=Path, default=DELTAS)
    asked = parser.parse_args()
    from voxelsoup.comparison.statistics import model_difference

    kinds: dict[str, Draw] = {
        "normal": lambda random, cases: random.normal(size=cases),
        "with outliers": _with_outliers,
        "skewed": lambda random, cases: random.exponential(1.0, cases) - 1,
    }
    if asked.deltas.is_file():
        kinds |= real_differences(asked.deltas)
    found: dict[str, dict[int, float]] = {kind: {} for kind in kinds}
    for kind, draw in kinds.items():
        for patients in asked.patients:
            random, wrong = np.random.default_rng(patients), 0
            for _ in range(asked.studies):
                folds = np.array_split(draw(random, patients), FOLDS)
                wrong += model_difference(folds).leaves_out_zero
            found[kind][patients] = round(100 * wrong / asked.studies, 1)
            print(f"{kind}, {patients} patients: {found[kind][patients]} %", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
