"""Configurations of a study: each is a study of its own, with the cases and folds of the first."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from support.studies import TINY
from voxelsoup.common.errors import InputError
from voxelsoup.data.preprocessing.store import end_sharing, share_arrays
from voxelsoup.study.configurations import handed_over
from voxelsoup.study.loading import contents_of_configurations, load, load_with_configurations
from voxelsoup.study.study import Study
from voxelsoup.training.run import trial_target

WIDE = {"network": {"arguments": {"init_filters": 4}}}
COARSE = {"preprocess": {"spacing": [2.0, 2.0, 2.0]}}


def study_with(**configurations: Any) -> dict[str, Any]:
    return copy.deepcopy(TINY) | {"results": "out", "configurations": configurations}


def loaded(**configurations: Any) -> dict[str, Study]:
    return load_with_configurations(study_with(**configurations))


def test_a_configuration_is_the_study_with_its_settings_in_place() -> None:
    first, wide = loaded(wide=WIDE).values()
    assert (first.results, wide.results) == ("out", "out/configurations/wide")
    assert first.network.arguments["init_filters"] == 2
    # What it does not name stays, within the section too.
    assert wide.network.arguments == first.network.arguments | {"init_filters": 4}
    assert (wide.training, wide.sweep, wide.folds) == (first.training, first.sweep, first.folds)


def test_another_network_takes_over_no_setting_of_the_study_s() -> None:
    arguments = {"channels": [4, 8], "strides": [2]}
    _, other = loaded(unet={"network": {"name": "UNet", "arguments": arguments}}).values()
    assert (other.network.name, other.network.arguments) == ("UNet", arguments)


def test_what_belongs_to_the_study_as_a_whole_is_no_configuration_s() -> None:
    config = study_with(wide=WIDE)
    config |= {
        "predict": {"input": "scans"},
        "ingredients": [{"file": "weights.pt", "seen": "none"}],
    }
    wide = contents_of_configurations(config, load(config))["wide"]
    assert not {"predict", "ingredients", "configurations"} & wide.keys()


def test_configurations_that_preprocess_in_the_same_way_share_the_arrays() -> None:
    both = COARSE | WIDE
    found = loaded(wide=WIDE, coarse=COARSE, both=both)
    parts = {name: study.part_of for name, study in found.items()}
    contents = contents_of_configurations(
        study_with(wide=WIDE, coarse=COARSE, both=both), found["first"]
    )
    shared = {name: content["part_of"].get("preprocessed") for name, content in contents.items()}
    assert shared == {"wide": "out", "coarse": None, "both": "out/configurations/coarse"}
    assert parts["first"] is None


def test_a_first_configuration_trains_what_the_study_without_others_trains() -> None:
    alone, first = load(study_with()), load(study_with(wide=WIDE))
    assert trial_target(alone) == trial_target(first)
    assert "configurations" not in alone.model_dump() and "part_of" not in first.model_dump()


@pytest.mark.parametrize(
    ("configurations", "others", "words"),
    [
        ({"wide": {"network": {"kernel": 5}}}, {}, ["configuration `wide`", "`network.kernel`"]),
        ({"wide": {"soup": {}}}, {}, ["`configurations.wide.soup`", "allowed: network"]),
        ({"slow": {"optimizer": {"lr": 0.001}}}, {}, ["configuration `first`", "sweep.grid"]),
        ({"a": WIDE, "b": WIDE}, {}, ["configuration `b`", "configuration `a`"]),
        ({"first": WIDE}, {}, ["is called `first`", "rename"]),
        ({"no name": WIDE}, {}, ["no name"]),
        ({"wide": WIDE}, {"final": True}, ["`final` with `configurations`"]),
        ({"odd": {"training": {"patch": [17, 16, 16]}}}, {}, ["configuration `odd`", "17"]),
    ],
)
def test_what_is_no_configuration_is_refused_by_name(
    configurations: dict[str, Any], others: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        load(study_with(**configurations) | others)
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_swept_network_is_refused_with_the_key_that_is_meant() -> None:
    from voxelsoup.study.trials import trials

    swept = copy.deepcopy(TINY) | {"sweep": {"grid": {"network.kernel_size": [3, 5]}}}
    with pytest.raises(InputError, match="`configurations`"):
        trials(load(swept), "study.yaml")


@pytest.mark.parametrize(
    ("soup", "model"),
    [
        ({"recipes": ["greedy", "ensemble"]}, "soups/greedy"),
        ({"recipes": ["ensemble"]}, "best"),
        ({"recipes": ["greedy"], "finish": {}}, "soups/finished"),
    ],
)
def test_a_configuration_hands_over_one_network(soup: dict[str, Any], model: str) -> None:
    assert handed_over(load(copy.deepcopy(TINY) | {"soup": soup})) == model


def test_arrays_are_shared_by_a_link_that_never_writes_to_the_other_s(tmp_path: Path) -> None:
    first, own = tmp_path / "results/preprocessed", tmp_path / "results/configurations/a"
    first.mkdir(parents=True)
    (first / "case.json").write_text("of the first")
    folder = own / "preprocessed"
    folder.mkdir(parents=True)
    (folder / "case.json").write_text("of settings before")
    for _ in range(2):
        share_arrays(folder, first)
        assert (folder / "case.json").read_text() == "of the first"
    (tmp_path / "results").rename(tmp_path / "moved")
    moved = tmp_path / "moved/configurations/a/preprocessed"
    assert (moved / "case.json").read_text() == "of the first"
    # The configuration is edited and preprocesses by itself.
    for _ in range(2):
        end_sharing(moved)
        moved.mkdir(exist_ok=True)
    (moved / "case.json").write_text("its own")
    assert (tmp_path / "moved/preprocessed/case.json").read_text() == "of the first"
    end_sharing(moved)
    assert (moved / "case.json").read_text() == "its own"
