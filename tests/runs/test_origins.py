"""What results were made from, and whether they are still those of the study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from voxelsoup.runs.origins import (
    Origin,
    changed_code,
    differences,
    in_words,
    path_of_origin,
    placed,
    read_origin,
    sizes,
    why_outdated,
    write_origin,
)

MADE = Origin(
    rule="trial",
    settings={"epochs": 3, "optimizer": {"lr": 0.01, "betas": [0.9, 0.999]}},
    inputs={"<results>/folds.json": "a1"},
    code={"models.losses": "11", "training.train": "22"},
)


def test_an_origin_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = path_of_origin(tmp_path, "fold0/trials/0a1b2c3d/model.safetensors")
    stopped = replace(MADE, finished=False, outputs={"<results>/x": 3}).keeping({"m": "33"})
    for origin in (MADE, stopped):
        write_origin(path, origin)
        assert read_origin(path) == origin


@pytest.mark.parametrize("content", ["", "[1]", '{"rule": "trial"}', '{"unknown": 1}'])
def test_a_damaged_origin_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "origin.json").write_text(content)
    assert read_origin(str(tmp_path / "origin.json")) is None
    assert read_origin(str(tmp_path / "absent.json")) is None


def test_the_id_is_that_of_a_repetition_and_of_nothing_else() -> None:
    assert replace(MADE, outputs={"<results>/x": 3}, kept=[{"m": "3"}]).id == MADE.id
    others = [
        replace(MADE, settings=MADE.settings | {"epochs": 4}),
        replace(MADE, inputs={"<results>/folds.json": "a2"}),
        replace(MADE, code={"models.losses": "12", "training.train": "22"}),
    ]
    assert len({origin.id for origin in [MADE, *others]}) == 4


def test_changed_settings_are_named_with_both_values() -> None:
    now = replace(MADE, settings={"epochs": 5, "optimizer": {"lr": 0.02, "betas": [0.9, 0.999]}})
    words = why_outdated(MADE, now, "results")
    assert words == "`epochs` 3 -> 5, `optimizer.lr` 0.01 -> 0.02"


def test_of_many_changed_settings_some_are_named() -> None:
    before, now = ({str(key): key + add for key in range(9)} for add in (0, 1))
    assert in_words(list(differences(before, now))).endswith("`2` 2 -> 3 and 6 more")


def test_changed_scans_are_called_so() -> None:
    before, now = (replace(MADE, settings={"listing": text}) for text in ("a1", "b2"))
    assert why_outdated(before, now, "results") == "the scans changed"


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"<results>/folds.json": "a2"}, "folds.json changed"),
        ({}, "folds.json changed"),
        ({"<results>/folds.json": "a1", "/other/file": "1"}, "/other/file changed"),
        ({"<results>/folds.json": "b", "<results>/x": "1"}, "folds.json and 1 more changed"),
    ],
)
def test_changed_inputs_are_named(inputs: dict[str, str], named: str) -> None:
    assert why_outdated(MADE, replace(MADE, inputs=inputs), "results") == named


def test_what_an_interrupted_job_left_is_outdated_also_by_its_old_settings() -> None:
    assert why_outdated(replace(MADE, finished=False), MADE, "results") is not None
    assert why_outdated(MADE, MADE, "results") is None


def test_files_that_were_copied_in_part_are_outdated(tmp_path: Path) -> None:
    results = str(tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "model").write_bytes(b"12345")
    made = replace(MADE, outputs=sizes([f"{results}/model", str(tmp_path)], results))
    assert made.outputs == {"<results>/model": 5}
    assert why_outdated(made, MADE, results) is None
    (tmp_path / "results" / "model").write_bytes(b"123")
    assert why_outdated(made, MADE, results) == "model has 3 bytes instead of 5"


def test_settings_of_removed_recipes_change_no_page_of_a_study_that_did_not_use_them() -> None:
    unused = {"group_by": None, "learned": {"per": "model", "steps": 40, "lr": 0.1}}
    now = replace(MADE, settings={"study": {"soup": {"race": None}}})
    before = replace(MADE, settings={"study": {"soup": {"race": None, **unused}}})
    assert why_outdated(before, now, "results") is None
    used = replace(MADE, settings={"study": {"soup": {"race": None, "group_by": ["a"]}}})
    assert "`study.soup.group_by`" in str(why_outdated(used, now, "results"))


def test_code_that_was_kept_is_taken_for_that_of_the_results() -> None:
    other = {"models.losses": "12", "training.train": "22"}
    assert MADE.is_by(MADE.code or {}) and not MADE.is_by(other)
    assert MADE.keeping(other).is_by(other) and MADE.keeping(other).is_by(MADE.code or {})
    assert changed_code(MADE.code, other) == "code changed: losses"
    with_former = replace(MADE, code=(MADE.code or {}) | {"soups.recipes.learned": "33"})
    assert with_former.is_by(MADE.code or {}) and not with_former.is_by(other)
    assert with_former.keeping(other).is_by(other)
    assert "did not write down its code" in changed_code(None, other)


def test_places_have_names_so_that_results_and_scans_may_be_moved() -> None:
    places = {"/data": "<scans>", "/data/results": "<results>"}
    settings = {
        "folder": "/data/results/preprocessed",
        "paths": ("/data/results", Path("/data/t1/a.nii"), "/database/x"),
        "lr": 0.1,
    }
    assert placed(settings, places) == {
        "folder": "<results>/preprocessed",
        "paths": ["<results>", "<scans>/t1/a.nii", "/database/x"],
        "lr": 0.1,
    }
