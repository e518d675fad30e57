from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.checks import nonempty
from voxelsoup.common.errors import InputError
from voxelsoup.data.folds import make_folds
from voxelsoup.study.sections.data import Folds

PARTS = ("training", "selection", "test")


@st.composite
def cohorts(draw: st.DrawFn, spare: int = 2) -> tuple[dict[str, str], int]:
    """Cases with their patients, and a number of folds that they suffice for."""
    # Two folds may leave one patient beside the test cases, and nothing to select on.
    count = draw(st.integers(3, 5))
    sizes = draw(st.lists(st.integers(1, 4), min_size=count + spare, max_size=14))
    patients = {
        f"P{patient}-{visit}": f"P{patient}"
        for patient, size in enumerate(sizes)
        for visit in range(size)
    }
    return patients, count


def parts_of(folds: dict[str, Any]) -> list[dict[str, list[str]]]:
    return nonempty(folds["folds"].values())


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(0, 5), st.floats(0.05, 0.8))
def test_folds_partition_the_cases_by_patient(
    cohort: tuple[dict[str, str], int], seed: int, share: float
) -> None:
    patients, count = cohort
    folds = make_folds(patients, Folds(count=count, seed=seed, selection_share=share), "held-out")
    assert folds["protocol"] == "held-out"
    assert list(folds["folds"]) == [str(number) for number in range(count)]
    for parts in parts_of(folds):
        assert sorted(case for part in PARTS for case in parts[part]) == sorted(patients)
        seen = [{patients[case] for case in parts[part]} for part in PARTS]
        assert all(seen)
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
        assert all(parts[part] == sorted(parts[part]) for part in PARTS)
    tested = [case for parts in parts_of(folds) for case in parts["test"]]
    assert sorted(tested) == sorted(patients)


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.randoms(use_true_random=False))
def test_the_order_of_the_cases_does_not_matter(
    cohort: tuple[dict[str, str], int], shuffler: random.Random
) -> None:
    patients, count = cohort
    items = list(patients.items())
    shuffler.shuffle(items)
    settings_ = Folds(count=count)
    assert make_folds(dict(items), settings_, "held-out") == make_folds(
        patients, settings_, "held-out"
    )


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_test_sets_differ_by_no_more_than_the_largest_patient(
    cohort: tuple[dict[str, str], int],
) -> None:
    patients, count = cohort
    folds = make_folds(patients, Folds(count=count), "held-out")
    sizes = [len(parts["test"]) for parts in parts_of(folds)]
    largest = max(list(patients.values()).count(patient) for patient in patients.values())
    assert max(sizes) - min(sizes) <= largest


@settings(max_examples=30, deadline=None)
@given(cohorts(spare=0))
def test_published_selects_on_the_test_cases(cohort: tuple[dict[str, str], int]) -> None:
    patients, count = cohort
    folds = make_folds(patients, Folds(count=count), "published")
    assert folds["protocol"] == "published"
    for parts in parts_of(folds):
        assert parts["selection"] == parts["test"]
        assert sorted(parts["training"] + parts["test"]) == sorted(patients)


def singles(count: int) -> dict[str, str]:
    return {f"case_{number}": f"case_{number}" for number in range(1, count + 1)}


def test_selection_cases_are_the_wanted_share() -> None:
    folds = make_folds(singles(100), Folds(count=5, selection_share=0.25), "held-out")
    for parts in parts_of(folds):
        assert [len(parts[part]) for part in PARTS] == [60, 20, 20]


def test_both_protocols_test_on_the_same_cases_and_seeds_on_others() -> None:
    one = parts_of(make_folds(singles(20), Folds(), "held-out"))
    other = parts_of(make_folds(singles(20), Folds(), "published"))
    assert [parts["test"] for parts in one] == [parts["test"] for parts in other]
    assert one != parts_of(make_folds(singles(20), Folds(seed=1), "held-out"))


def test_only_the_folds_to_run_and_the_same_as_among_all() -> None:
    every = make_folds(singles(20), Folds(), "held-out")["folds"]
    some = make_folds(singles(20), Folds(run=[3, 1]), "held-out")["folds"]
    assert some == {"1": every["1"], "3": every["3"]}


def test_too_few_patients_for_the_folds_are_refused() -> None:
    patients = {f"case_{number}": "one" for number in range(6)}
    with pytest.raises(InputError, match=r"5 folds, but the data set has 1 patient") as caught:
        make_folds(patients, Folds(), "held-out")
    assert "at most 1" in str(caught.value)


def test_two_folds_partition_the_cases() -> None:
    for parts in parts_of(make_folds(singles(8), Folds(count=2), "held-out")):
        assert [len(parts[part]) for part in PARTS] == [3, 1, 4]


def test_a_fold_without_selection_cases_is_refused() -> None:
    with pytest.raises(InputError, match="fold 0 has no selection cases"):
        make_folds(singles(2), Folds(count=2), "held-out")


@pytest.fixture
def given_split(tmp_path: Path) -> Any:
    def write(content: Any, name: str = "split.json", **others: Any) -> Folds:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return Folds(file=str(path), **others)

    return write


def entries(**folds: int) -> dict[str, Any]:
    return {"training": [{"case": case, "fold": fold} for case, fold in folds.items()]}


def test_a_datalist_gives_the_folds(given_split: Any) -> None:
    content = entries(**{f"case_{number}": number % 2 for number in range(1, 9)}, case_9=-1)
    folds = make_folds(singles(10), given_split(content, count=2), "held-out")["folds"]
    assert folds["0"]["test"] == ["case_2", "case_4", "case_6", "case_8"]
    assert folds["1"]["test"] == ["case_1", "case_3", "case_5", "case_7"]
    for parts in folds.values():
        assert "case_9" in parts["training"]
        assert parts["selection"]
        # Not in the file, so in no part.
        assert "case_10" not in [case for part in PARTS for case in parts[part]]


def test_training_only_cases_are_never_selected_on(given_split: Any) -> None:
    content = entries(case_1=0, case_2=1, case_3=-1, case_4=-1, case_5=-1, case_6=-1)
    for seed in range(10):
        split = given_split(content, count=2, seed=seed, selection_share=0.7, run=[0])
        with_one = make_folds(singles(6), split, "held-out")["folds"]["0"]
        assert with_one["selection"] == ["case_2"]
    content = entries(case_1=0, case_2=-1, case_3=-1)
    with pytest.raises(InputError, match="fold 0 has no selection cases"):
        make_folds(singles(3), given_split(content, count=2, run=[0]), "held-out")


def test_an_entry_without_fold_is_for_training_only(given_split: Any) -> None:
    marked = entries(case_1=0, case_2=1, case_3=1, case_4=-1)
    unmarked = entries(case_1=0, case_2=1, case_3=1)
    unmarked["training"].append({"case": "case_4"})
    one, other = (
        make_folds(singles(4), given_split(content, name, count=2, run=[0]), "held-out")
        for content, name in ((marked, "marked.json"), (unmarked, "unmarked.json"))
    )
    assert one == other
    assert "case_4" in other["folds"]["0"]["training"]


@pytest.mark.parametrize("form", ["datalist", "nnunet"])
def test_a_case_that_cannot_be_used_is_left_out_of_a_given_split(
    given_split: Any, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    content: Any = entries(case_1=0, case_2=0, case_3=1, case_4=1, case_5=1)
    if form == "nnunet":
        content = [{"train": ["case_3", "case_4", "case_5"], "val": ["case_1", "case_2"]}]
    usable = {case: patient for case, patient in singles(4).items() if case != "case_2"}
    split = given_split(content, count=2, run=[0])
    with caplog.at_level("INFO"):
        folds = make_folds(usable, split, "held-out", left_out=["case_2", "case_5"])["folds"]["0"]
    assert folds["test"] == ["case_1"]
    assert sorted(folds["training"] + folds["selection"]) == ["case_3", "case_4"]
    for case in ("case_2", "case_5"):
        assert f"case {case} is left out, see rejected.tsv" in caplog.text
    with pytest.raises(InputError, match="not have: case_5"):
        make_folds(usable, split, "held-out", left_out=["case_2"])


def test_entries_of_a_datalist_are_found_by_their_files(given_split: Any) -> None:
    patients = singles(12) | {"case_1_b": "case_1_b"}
    content = {
        "training": [
            {"fold": 0, "image": ["TrainingData/case_10/case_10_flair.nii.gz"], "label": "s.nii"},
            {"fold": 0, "image": "imagesTr/case_1.nii.gz"},
            {"fold": 1, "image": ["case_1_b-t1.nii.gz"], "label": "seg.nii.gz"},
            {"fold": 1, "image": "case_11/flair.nii.gz"},
            {"fold": 1, "image": "a\\case_12\\flair.nii.gz"},
            {"fold": 0, "label": "labelsTr/case_2.nii.gz"},
        ]
    }
    folds = make_folds(patients, given_split(content, count=2), "published")["folds"]
    assert folds["0"]["test"] == ["case_1", "case_10", "case_2"]
    assert folds["1"]["test"] == ["case_11", "case_12", "case_1_b"]


def test_a_split_file_of_nnunet_gives_its_folds(given_split: Any) -> None:
    content = [
        {"train": [f"case_{n}" for n in range(3, 9)], "val": ["case_2", "case_1"]},
        {"train": ["case_1", "case_2", "case_5"], "val": ["case_3"]},
    ]
    folds = make_folds(singles(9), given_split(content, count=2), "held-out")["folds"]
    assert folds["0"]["test"] == ["case_1", "case_2"]
    assert len(folds["0"]["selection"]) == 1
    assert sorted(folds["0"]["training"] + folds["0"]["selection"]) == content[0]["train"]
    assert sorted(folds["1"]["training"] + folds["1"]["selection"]) == content[1]["train"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("3", r"another form \(int\)"),
        ({"train": []}, r"another form \(dict\)"),
        ({"training": [{"case": "case_1", "fold": None}]}, r"entry 0 .* no usable `fold` \(None\)"),
        ({"training": [{"case": "case_1"}]}, r"has no fold 0 \(its folds: none\)"),
        ({"training": ["case_1"]}, "entry 0 .* no usable `fold`"),
        (entries(case_1=-2), r"no usable `fold` \(-2\)"),
        (entries(case_1=0, strange=1), "names 1 case.* does not have: strange"),
        ({"training": [{"fold": 0, "image": "case_77.nii.gz"}]}, "not have: case_77.nii.gz"),
        ({"training": [{"fold": 0}]}, "an entry without `case` and `image`"),
        ({"training": 2 * [{"fold": 0, "case": "case_1"}]}, "several entries .* case_1"),
        (entries(case_1=0, case_2=0, case_3=2), r"has no fold 1 \(its folds: 0, 2\)"),
        (entries(case_1=-1), r"has no fold 0 \(its folds: none\)"),
        (entries(case_1=0, case_2=1), "fold 0 has no selection cases"),
        (entries(left=0, right=1, case_1=0, case_2=1), "left and trains on case right, both of"),
        ([{"train": ["case_1"], "val": []}], r"has no fold 1 \(its folds: 0\)"),
        (2 * [{"train": ["case_1", "case_2"], "val": []}], "fold 0 has no test cases"),
        (2 * [{"train": [], "val": ["case_1"]}], "fold 0 has no (training|selection) cases"),
        (2 * [{"train": ["case_1"]}], "fold 0 is not of nnU-Net's form"),
        (2 * [{"train": [1], "val": ["case_1"]}], "fold 0 is not of nnU-Net's form"),
        (2 * ["case_1"], "fold 0 is not of nnU-Net's form"),
        (2 * [{"train": ["case_1"], "val": ["other"]}], "does not have: other"),
        (2 * [{"train": ["case_1", "case_2"], "val": ["case_1"]}], "case_1 in both"),
        (2 * [{"train": ["left", "case_1"], "val": ["right"]}], "both of patient twins"),
    ],
)
def test_an_unusable_split_file_is_refused(given_split: Any, content: Any, message: str) -> None:
    patients = singles(8) | {"left": "twins", "right": "twins"}
    split = given_split(content, count=2)
    with pytest.raises(InputError, match=message) as caught:
        make_folds(patients, split, "held-out")
    assert caught.value.where == split.file
    assert caught.value.fix


def test_a_missing_split_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        make_folds(singles(8), Folds(file=str(tmp_path / "none.json")), "held-out")


def test_a_straddling_patient_matters_only_where_the_fold_tests_on_it(given_split: Any) -> None:
    patients = singles(4) | {"left": "twins", "right": "twins"}
    content = entries(left=0, right=1, case_1=2, case_2=0, case_3=1, case_4=1)
    folds = make_folds(patients, given_split(content, count=3, run=[2]), "held-out")["folds"]
    assert folds["2"]["test"] == ["case_1"]
    assert ("left" in folds["2"]["selection"]) == ("right" in folds["2"]["selection"])


def test_a_fold_without_an_annotation_of_a_region_is_refused() -> None:
    patients, folds = singles(20), Folds(count=5)
    parts = parts_of(make_folds(patients, folds, "held-out"))
    annotated = set(patients) - set(parts[3]["test"])
    with pytest.raises(InputError, match="fold 3 has no test case in which region ET is") as caught:
        make_folds(patients, folds, "held-out", annotated={"ET": annotated})
    assert "folds.balance: [regions]" in caught.value.fix
    found = make_folds(patients, folds, "held-out", annotated={"ET": set(patients)})
    assert found == make_folds(patients, folds, "held-out")
