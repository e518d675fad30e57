"""Channels matched by name: synonyms, other orders, other names, and lists that contradict."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, IndexedCase, Source
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.channel_names import (
    SYNONYMS,
    match_channels,
    match_endings,
    meaning,
    names_in_order,
)
from voxelsoup.data.layouts.detect import guess
from voxelsoup.data.preprocessing.preprocess import fingerprint
from voxelsoup.study.sections.data import Dataset, Preprocess

BRATS = ["t1n", "t1c", "t2w", "t2f"]
DECATHLON = ["FLAIR", "T1w", "t1gd", "T2w"]


def find(layout: Any, root: Path, channels: list[str], **settings: Any) -> list[Case]:
    dataset = Dataset(layout=layout, root="unused", channels=channels, **settings)
    return find_cases(dataset, root)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def describe(root: Path, **content: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_names_of_any_generation_are_matched_in_any_order(order: tuple[int, ...]) -> None:
    """The oracle is the table of the challenges' own names, a column per challenge."""
    columns = [
        ("t1n", "t1c", "t2w", "t2f"),
        ("t1", "t1ce", "t2", "flair"),
        ("T1w", "t1gd", "T2w", "FLAIR"),
        ("T1", "T1-Gd", "T2", "T2_FLAIR"),
        ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"),
    ]
    for wanted, there in itertools.product(columns, columns):
        found = match_channels(wanted, [there[n] for n in order], "here")
        assert found.remarks == ()
        assert {name: order[place] for name, place in found.places.items()} == {
            name: n for n, name in enumerate(wanted)
        }


def test_no_name_means_two_channels() -> None:
    names = [name for one, others in SYNONYMS.items() for name in (one, *others)]
    assert len(set(names)) == len(names)


def test_one_channel_of_another_name_is_taken_and_reported() -> None:
    found = match_channels(BRATS, ["T1", "PD", "FLAIR", "T1Gd"], "here")
    assert found.places == {"t1n": 0, "t1c": 3, "t2w": 1, "t2f": 2}
    assert "the channel PD is taken as t2w" in found.remarks[0]
    found = match_channels(["CT"], ["Thorax"], "here")
    assert found.places == {"CT": 0} and "Thorax is taken as CT" in found.remarks[0]


def test_a_known_channel_is_not_taken_as_another_known_one() -> None:
    with pytest.raises(InputError, match="t2w = ADC"):
        match_channels(BRATS, ["T1", "ADC", "FLAIR", "T1Gd"], "here")


def test_other_names_are_refused_with_the_match_that_would_be_meant() -> None:
    with pytest.raises(InputError, match="t1n = T1, t1c = a, t2w = b, t2f = FLAIR") as caught:
        match_channels(BRATS, ["a", "T1", "b", "FLAIR"], "here")
    assert "--channels T1,a,b,FLAIR" in caught.value.fix
    # What is proposed works: at prediction, and in a study.
    stated = dict(zip(BRATS, ["T1", "a", "b", "FLAIR"], strict=True))
    found = match_channels(BRATS, ["a", "T1", "b", "FLAIR"], "here", stated)
    assert found.places == {"t1n": 1, "t1c": 0, "t2w": 2, "t2f": 3}
    assert "{t1n: T1, t1c: a, t2w: b, t2f: FLAIR}" in caught.value.fix


@pytest.mark.parametrize("there", [["0", "1"], ["channel_0", "channel_1"], ["noNorm", "zscore"]])
def test_places_decide_only_where_there_are_no_names(there: list[str]) -> None:
    found = match_channels(["t1n", "t1c"], there, "here")
    assert found.places == {"t1n": 0, "t1c": 1}
    assert "no names of channels to go by" in found.remarks[0]
    with pytest.raises(InputError, match="has channels named x and y"):
        match_channels(["t1n", "t1c"], ["x", "y"], "here")


def test_channels_that_nobody_wants_are_left_out_and_reported() -> None:
    found = match_channels(["t2f", "t1c"], DECATHLON, "here")
    assert found.places == {"t2f": 0, "t1c": 2}
    assert found.remarks == ("not used of here: T1w and T2w",)


@pytest.mark.parametrize(
    "described",
    [
        ["a", "b", "c"],
        {"0": "a", "2": "c", "1": "b"},
        {"c": 2, "a": 0, "b": "1"},
        {1: "a", 2: "b", 3: "c"},
    ],
)
def test_channel_names_have_three_forms(described: object) -> None:
    assert names_in_order(described, Path("dataset.json")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "described", [{"0": "a", "2": "b"}, {"a": 0, "b": 0}, {"a": "x"}, "MR", None]
)
def test_channel_names_of_other_forms_are_refused(described: object) -> None:
    with pytest.raises(InputError, match="its channels as"):
        names_in_order(described, Path("dataset.json"))


def test_file_names_end_in_synonyms_of_several_words() -> None:
    stems = ["p_1_T2_FLAIR", "p_1-t1", "sub-2_ce-gadolinium_T1w", "p_1_seg", "flair"]
    assert match_endings(stems, BRATS) == {
        "p_1_T2_FLAIR": ("p_1", "t2f"),
        "p_1-t1": ("p_1", "t1n"),
        "sub-2_ce-gadolinium_T1w": ("sub-2", "t1c"),
        "flair": ("", "t2f"),
    }


# --- layouts --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["list", "number", "name"])
def test_a_study_takes_the_channels_of_a_4d_file_by_name(tmp_path: Path, form: str) -> None:
    forms: dict[str, object] = {
        "list": DECATHLON,
        "number": {str(n): name for n, name in enumerate(DECATHLON)},
        "name": {name: n for n, name in enumerate(DECATHLON)},
    }
    entries = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    describe(tmp_path, modality=forms[form], training=entries)
    (case,) = find("decathlon", tmp_path, BRATS)
    assert [source.component for source in case.channels.values()] == [1, 2, 3, 0]
    assert case.components == 4 and case.notes == ()


@pytest.mark.parametrize("layout", ["nnunet", "monai", "listed"])
def test_a_study_takes_files_by_the_names_of_their_places(tmp_path: Path, layout: str) -> None:
    files = [f"imagesTr/a_{number:04d}.nii.gz" for number in range(4)]
    touch(tmp_path, *files, "labelsTr/a.nii.gz")
    content: dict[str, Any] = {"channel_names": {str(n): name for n, name in enumerate(DECATHLON)}}
    if layout == "monai":
        content["training"] = [{"image": files, "label": "labelsTr/a.nii.gz"}]
    if layout == "listed":
        content["dataset"] = {"a": {"images": files, "label": "labelsTr/a.nii.gz"}}
    describe(tmp_path, **content)
    (case,) = find("nnunet" if layout == "listed" else layout, tmp_path, BRATS)
    assert [source.file.name[2:6] for source in case.channels.values()] == [
        *("0001", "0002", "0003", "0000"),
    ]
    assert case.problem is None


def test_brats_folders_of_another_year_are_read(tmp_path: Path) -> None:
    touch(tmp_path, *(f"B_1/B_1_{end}.nii.gz" for end in ("t1", "t1ce", "t2", "flair", "seg")))
    touch(tmp_path, *(f"B-2/B-2-{end}.nii.gz" for end in ("t1n", "t1c", "t2w", "t2f", "seg", "t1")))
    first, second = sorted(find("brats", tmp_path, BRATS), key=lambda case: case.name[-1])
    ends = [source.file.name[4:-7] for source in first.channels.values()]
    assert ends == ["t1", "t1ce", "t2", "flair"]
    # The channel's own name comes before a synonym.
    assert second.channels["t1n"].file.name == "B-2-t1n.nii.gz"
    assert second.extra == ("t1",) and first.extra == ()


def test_two_synonyms_in_one_folder_are_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "B_1/B_1_t1ce.nii.gz", "B_1/B_1_t1gd.nii.gz")
    (case,) = find("brats", tmp_path, ["t1c"])
    assert "t1ce" in str(case.problem) and "t1gd" in str(case.problem)


def test_brats_folders_of_other_names_are_refused_until_they_are_stated(tmp_path: Path) -> None:
    touch(tmp_path, *(f"B_1/B_1_{end}.nii.gz" for end in ("x", "y", "seg")))
    with pytest.raises(InputError, match="t1n = x, t2w = y"):
        find("brats", tmp_path, ["t1n", "t2w"])
    (case,) = find("brats", tmp_path, ["t1n", "t2w"], channel_names={"t1n": "y", "t2w": "x"})
    assert case.channels["t1n"].file.name == "B_1_y.nii.gz"


def test_a_known_channel_that_no_case_has_is_missing_whatever_else_there_is(
    tmp_path: Path,
) -> None:
    touch(tmp_path, *(f"B_1/B_1_{end}.nii.gz" for end in ("t1", "adc", "seg")))
    (case,) = find("brats", tmp_path, ["t1n", "t2f"])
    assert [source.file.is_file() for source in case.channels.values()] == [True, False]


def test_columns_of_a_table_are_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case,T1,FLAIR,age,label\na,x1.nii,x2.nii,61,l.nii\n")
    (case,) = find("table", tmp_path, ["t2f", "t1n"])
    assert [source.file.name for source in case.channels.values()] == ["x2.nii", "x1.nii"]


@pytest.mark.parametrize(
    "said",
    [
        ["t1c", "t1n"],
        {0: "t1c", 1: "t1n"},
        {"t1n": 1, "t1c": 0},
        {"t1n": "b", "t1c": "a"},
    ],
)
def test_the_study_overrules_what_the_data_set_says(tmp_path: Path, said: Any) -> None:
    entries = [{"image": "i/a.nii.gz", "label": "l/a.nii.gz"}]
    describe(tmp_path, modality={"0": "a", "1": "b"}, training=entries)
    (case,) = find("decathlon", tmp_path, ["t1n", "t1c"], channel_names=said)
    assert {name: source.component for name, source in case.channels.items()} == {
        "t1n": 1,
        "t1c": 0,
    }


@pytest.mark.parametrize("said", [["t1n"], {"x": 0}, {"t1n": "z"}, {"t1n": 7}])
def test_stated_names_have_to_be_there(tmp_path: Path, said: Any) -> None:
    describe(tmp_path, modality={"0": "a", "1": "b"}, training=[{"image": "i/a.nii.gz"}])
    with pytest.raises((InputError, ValueError), match="channel"):
        find("decathlon", tmp_path, ["t1n", "t1c"], channel_names=said)


def datalist(root: Path, orders: list[list[str]], **more: Any) -> list[dict[str, Any]]:
    entries = [
        {"image": [f"p{n}_{end}.nii.gz" for end in ends], "label": f"p{n}_seg.nii.gz"}
        for n, ends in enumerate(orders)
    ]
    describe(root, training=entries, **more)
    return entries


def test_an_entry_in_another_order_than_the_others_is_taken_by_its_endings(tmp_path: Path) -> None:
    usual = ["t1", "t1ce", "t2", "flair"]
    datalist(tmp_path, [usual, usual, ["flair", "t1", "t1ce", "t2"]])
    assert guess(tmp_path).dataset.channels == usual
    for case in find("monai", tmp_path, BRATS):
        ends = [source.file.name[3:-7] for source in case.channels.values()]
        assert ends == usual and case.problem is None
        assert bool(case.notes) == (case.name == "p2")
        if case.notes:
            assert "entry 2 of `training`" in case.notes[0]


def test_an_entry_whose_endings_contradict_the_named_places_is_a_bad_case(tmp_path: Path) -> None:
    orders = [["t1", "flair"], ["flair", "t1"]]
    datalist(tmp_path, orders, modality={"0": "T1", "1": "FLAIR"})
    good, bad = find("monai", tmp_path, ["t1n", "t2f"])
    assert good.problem is None
    assert "p1_flair.nii.gz" in str(bad.problem) and "entry 1" in str(bad.problem)
    # A study that says which is which knows better.
    stated = find("monai", tmp_path, ["t1n", "t2f"], channel_names=["t1n", "t2f"])
    assert [case.problem for case in stated] == [None, None]
    (tmp_path / "cases.csv").write_text("case,t1n,t2f,label\na,a_flair.nii,a_t1.nii,l.nii\n")
    (case,) = find("table", tmp_path, ["t1n", "t2f"])
    assert "row 2" in str(case.problem)


def test_a_datalist_without_names_is_taken_in_its_order_and_says_so(tmp_path: Path) -> None:
    describe(tmp_path, training=[{"image": "a.nii.gz", "label": "l.nii.gz"}])
    (case,) = find("monai", tmp_path, ["t1n", "t2f"])
    assert "no names of channels to go by" in case.notes[0]
    (alone,) = find("monai", tmp_path, ["t1n"])
    assert alone.notes == ()


# --- names that end in four digits ----------------------------------------------------------


def test_one_channel_takes_four_digits_as_part_of_a_name(tmp_path: Path) -> None:
    describe(tmp_path, channel_names={"0": "CT"}, file_ending=".nii.gz")
    cases = ("amos_0001", "amos_0004")
    touch(tmp_path, *(f"{f}/{c}.nii.gz" for c in cases for f in ("imagesTr", "labelsTr")))
    touch(tmp_path, "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz")
    assert guess(tmp_path).dataset.layout == "nnunet"
    found = find("nnunet", tmp_path, ["CT"])
    assert [case.name for case in found] == ["amos_0001", "amos_0004", "b"]
    assert all(case.problem is None and case.label is not None for case in found)
    # The same name with 0000 and 0001 seems to have two channels.
    touch(tmp_path, "imagesTr/b_0001.nii.gz")
    bad = find("nnunet", tmp_path, ["CT"])[2]
    assert "b_0001" in str(bad.problem) and "b_0000" in str(bad.problem)


def test_arrays_of_other_volumes_of_a_4d_file_are_others() -> None:
    def of(*components: int | None) -> str:
        names = ("t1n", "t2f")
        sources = {
            name: Source(Path("a.nii.gz"), component)
            for name, component in zip(names, components, strict=True)
        }
        case = IndexedCase("a", "a", sources, None, (1, 1, 1), (1, 1, 1), [], "hash")
        return fingerprint(case, Preprocess(), [16, 16, 16])

    assert of(0, 1) == of(None, None) != of(1, 0) != of(1, 2)


def test_meanings_are_compared_without_marks_and_case() -> None:
    assert meaning("T1-Gd") == meaning("t1_CE") == "t1c"
    assert meaning("Ünbekannt") == "ünbekannt"
