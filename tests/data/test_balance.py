"""Folds balanced by rare regions and by sites, patient by patient."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from support.checks import nonempty
from voxelsoup.common.errors import InputError
from voxelsoup.data.balance import counts_of, deal, kinds_of_cases
from voxelsoup.data.case import IndexedCase, Source
from voxelsoup.data.folds import make_folds
from voxelsoup.study.loading import load
from voxelsoup.study.sections.data import Dataset, Folds

REGIONS = {"WT": [1, 2, 3], "ET": [3]}


def stratified_group_kfold(
    groups: NDArray[np.int64], classes: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Cases (fold, class) by scikit-learn's algorithm, written again; 1.9.1 itself gives the same.

    Groups are taken by the standard deviation of their class counts, largest first; each goes to
    the fold with which the standard deviation over folds of each class's share, averaged over
    classes, is least, and to the fold of fewest cases in a tie.
    """
    table = np.zeros((groups.max() + 1, classes.max() + 1))
    np.add.at(table, (groups, classes), 1)
    total = table.sum(axis=0)
    folds = np.zeros((count, len(total)))
    for group in np.argsort(-table.std(axis=1), kind="stable"):
        scores = []
        for fold in range(count):
            tried = folds.copy()
            tried[fold] += table[group]
            scores.append(((tried / total).std(axis=0).mean().round(12), folds[fold].sum(), fold))
        folds[min(scores)[2]] += table[group]
    return folds


def cohort(seed: int, patients: int = 70) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Case -> patient, and case -> its kinds: a site of four, and a region that 12 % have."""
    random = np.random.default_rng(seed)
    patient_of, kinds = {}, {}
    for patient in range(patients):
        site = random.choice(["A", "B", "C", "D"], p=[0.6, 0.25, 0.1, 0.05])
        rare = random.random() < 0.12
        for visit in range(random.integers(1, 4)):
            case = f"P{patient:03d}-{visit}"
            patient_of[case] = f"P{patient:03d}"
            kinds[case] = [f"site {site}", *(["region ET"] if rare else [])]
    return patient_of, kinds


def numbers(folds: dict[str, Any], kinds: dict[str, list[str]], part: str = "test") -> list[Any]:
    """Of each fold: kind -> number of cases; ``all`` is every case."""
    return [
        Counter(kind for case in parts[part] for kind in ["all", *kinds[case]])
        for parts in nonempty(folds["folds"].values())
    ]


NAMES = ["region ET", "site A", "site B", "site C", "site D"]


def unevenness(folds: dict[str, Any], kinds: dict[str, list[str]]) -> float:
    """How far folds are from equal shares of each kind, and selections from a fifth of the rest."""
    test, selection = numbers(folds, kinds), numbers(folds, kinds, "selection")
    whole = Counter(kind for found in kinds.values() for kind in found)
    apart = [abs(count[kind] / whole[kind] - 1 / len(test)) for kind in NAMES for count in test]
    for tested, selected in zip(test, selection, strict=True):
        for kind in NAMES:
            rest = whole[kind] - tested[kind]
            apart.append(abs(selected[kind] / rest - 0.2) if rest else 0.0)
    return float(np.mean(apart))


@pytest.mark.parametrize("seed", range(4))
def test_folds_hold_equal_shares_of_rare_regions_and_of_sites(seed: int) -> None:
    patients, kinds = cohort(seed)
    folds = make_folds(patients, Folds(count=5), "held-out", kinds=kinds)
    plain = make_folds(patients, Folds(count=5), "held-out")
    assert unevenness(folds, kinds) < 0.6 * unevenness(plain, kinds)
    sizes = [count["all"] for count in numbers(folds, kinds)]
    assert max(sizes) - min(sizes) <= 4
    for parts in folds["folds"].values():
        owners = [{patients[case] for case in parts[part]} for part in parts]
        assert all(owners) and len(set.union(*owners)) == sum(map(len, owners))
    assert sorted(c for p in folds["folds"].values() for c in p["test"]) == sorted(patients)


def test_one_patient_of_a_rare_region_goes_to_each_fold() -> None:
    patients = {f"c{number:02d}": f"c{number:02d}" for number in range(25)}
    rare = {"c03", "c07", "c08", "c20", "c24"}
    kinds = {case: ["region ET"] if case in rare else [] for case in patients}
    folds = make_folds(patients, Folds(count=5), "held-out", kinds=kinds)
    assert [count["region ET"] for count in numbers(folds, kinds)] == [1] * 5
    assert [count["all"] for count in numbers(folds, kinds)] == [5] * 5


@pytest.mark.parametrize("seed", range(4))
def test_by_one_column_shares_are_as_even_as_scikit_learns(seed: int) -> None:
    patients, kinds = cohort(seed)
    sites = {case: found[:1] for case, found in kinds.items()}
    groups = np.array([int(patient[1:]) for patient in patients.values()])
    classes = np.array(["ABCD".index(sites[case][0][-1]) for case in patients])
    theirs = stratified_group_kfold(groups, classes, 5)
    by_patient: dict[str, list[str]] = {}
    for case, patient in patients.items():
        by_patient.setdefault(patient, []).append(case)
    counts = counts_of(by_patient, sites)
    dealt = deal(counts, 5, range(len(counts)))
    ours = np.array([counts[rows, 1:].sum(axis=0) for rows in dealt])
    spreads = [(held / held.sum(axis=0)).std(axis=0).mean() for held in (ours, theirs)]
    assert spreads[0] == pytest.approx(spreads[1], abs=0.003)


def test_folds_that_exist_stay_where_they_are() -> None:
    """The folds of a study without `balance`, as they were before there was such a setting."""
    patients = {f"P{n // 2}-{n % 2}": f"P{n // 2}" for n in range(12)}
    folds = make_folds(patients, Folds(count=3, selection_share=0.3), "held-out")["folds"]
    found = [
        {part: sorted({patients[case] for case in parts[part]}) for part in ("selection", "test")}
        for parts in folds.values()
    ]
    assert found == [
        {"selection": ["P2"], "test": ["P3", "P4"]},
        {"selection": ["P5"], "test": ["P0", "P2"]},
        {"selection": ["P3"], "test": ["P1", "P5"]},
    ]


def indexed(name: str, labels: list[int], labelled: bool = True) -> IndexedCase:
    label = Source(Path(f"{name}-seg.nii")) if labelled else None
    return IndexedCase(name, name, {}, label, (1, 1, 1), (1.0, 1.0, 1.0), labels, "")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text("case,patient,site\na,p,Bern\nb,q,Basel\nc,r,\n")
    return path


def kinds_by(*balance: str, table: Path, cases: str = "ab") -> Any:
    dataset = Dataset(layout="brats", root="x", channels=["t1"], patients=str(table))
    found = [indexed(name, [0, 3] if name == "a" else [0, 1]) for name in cases]
    extra = indexed("z", [], labelled=False)
    folds = Folds(balance=list(balance))
    return kinds_of_cases(dataset, REGIONS, folds, Path("x"), [*found, extra])


def test_kinds_are_regions_that_a_case_holds_and_entries_of_columns(table: Path) -> None:
    assert kinds_by(table=table) is None
    assert kinds_by("regions", "site", table=table) == {
        "a": ["region WT", "region ET", "site Bern"],
        "b": ["region WT", "site Basel"],
    }


def test_columns_of_the_layout_table_are_found(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case,t1,label,scanner\na,a.nii,l.nii,Trio\n")
    dataset = Dataset(layout="table", root=str(tmp_path), channels=["t1"])
    folds = Folds(balance=["scanner"])
    found = kinds_of_cases(dataset, REGIONS, folds, tmp_path, [indexed("a", [1])])
    assert found == {"a": ["scanner Trio"]}


def test_a_case_without_an_entry_and_an_unknown_column_are_refused(table: Path) -> None:
    with pytest.raises(InputError, match="nothing under `site` for the case c"):
        kinds_by("site", table=table, cases="abc")
    with pytest.raises(InputError, match="names the column `scanner`") as caught:
        kinds_by("scanner", table=table)
    assert "site" in caught.value.expected


def test_balance_that_cannot_be_is_refused_when_the_study_is_read() -> None:
    study = {"dataset": {"layout": "brats", "root": "x", "channels": ["t1"]}, "regions": REGIONS}
    load(study | {"folds": {"balance": ["regions"]}})
    with pytest.raises(InputError, match="names the column `site`, and the data set has no table"):
        load(study | {"folds": {"balance": ["site"]}})
    with pytest.raises(ValidationError, match="`file` gives them"):
        Folds(balance=["regions"], file="splits.json")


def test_folds_hold_equal_shares_of_the_cases_in_which_a_region_is_annotated() -> None:
    names = [f"B_{n}" if n % 4 else f"A_{n}" for n in range(24)]
    # Everything holds the label value of ET, which means nothing where it is not annotated.
    cases = [indexed(name, [1, 2, 3]) for name in names]
    dataset = Dataset(
        layout="brats", root="x", channels=["t1"], not_annotated={"B_*": ["ET"], "B_1": ["TC"]}
    )
    folds = Folds(count=3, balance=["regions"])
    regions = {"WT": [1, 2, 3], "ET": [3]}
    kinds = kinds_of_cases(dataset, regions, folds, Path("x"), cases)
    assert kinds is not None
    assert kinds["A_0"] == ["region WT", "region ET", "annotated ET"]
    assert kinds["B_1"] == ["region WT"]
    made = make_folds({name: name for name in names}, folds, "held-out", kinds=kinds)
    for parts in made["folds"].values():
        assert sum(name.startswith("A") for name in parts["test"]) == 2
