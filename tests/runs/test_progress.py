"""What a plan says of a run before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.runs import small_study
from voxelsoup.runs.progress import PROGRESS, first_difference, plan, read_progress, write_progress
from voxelsoup.study.study import Study
from voxelsoup.training.run import run_settings

STEPS_PER_EPOCH = 10


def settings_of(study: Study, epochs: int) -> dict[str, Any]:
    training = study.training.model_copy(update={"epochs": epochs})
    return run_settings(study.model_copy(update={"training": training}))


def planned(folder: Path, study: Study, epochs: int) -> str:
    return plan(str(folder), settings_of(study, epochs), epochs, STEPS_PER_EPOCH)


def trained(folder: Path, study: Study, step: int, epochs: int) -> None:
    identity = {"settings": settings_of(study, epochs)}
    write_progress(folder, identity, step, epochs * STEPS_PER_EPOCH)


def test_a_run_without_states_is_trained(tmp_path: Path) -> None:
    assert planned(tmp_path, small_study(), 4) == "trains 4 epochs"


@pytest.mark.parametrize(
    ("step", "epochs", "said"),
    [
        (10, 4, "continues after epoch 1 of 4"),
        (25, 4, "continues after epoch 2.5 of 4"),
        (40, 4, "is trained already (4 epochs)"),
        (40, 8, "continues after epoch 4 of 8"),
        (40, 3, "starts over with 3 epochs: it was trained for 4"),
    ],
)
def test_a_schedule_free_run_continues(tmp_path: Path, step: int, epochs: int, said: str) -> None:
    trained(tmp_path, small_study(), step, epochs=4)
    assert planned(tmp_path, small_study(), epochs) == said


def test_a_scheduled_run_continues_only_at_the_same_length(tmp_path: Path) -> None:
    study = small_study(optimizer={"schedule": "cosine"})
    trained(tmp_path, study, step=20, epochs=4)
    assert planned(tmp_path, study, 4) == "continues after epoch 2 of 4"
    said = "starts over with 8 epochs: its schedule was made for 4 epochs"
    assert planned(tmp_path, study, 8) == said


def test_a_changed_setting_is_named(tmp_path: Path) -> None:
    trained(tmp_path, small_study(), step=20, epochs=4)
    study = small_study(optimizer={"lr": 0.02})
    said = "starts over with 4 epochs: `optimizer.lr` was 0.01 and is 0.02"
    assert planned(tmp_path, study, 4) == said


def test_where_and_how_fast_a_run_trains_changes_nothing(tmp_path: Path) -> None:
    trained(tmp_path, small_study(), step=40, epochs=4)
    study = small_study(training={"workers": 3, "device": "cpu"}, recovery={"save_minutes": 1})
    assert planned(tmp_path, study, 4) == "is trained already (4 epochs)"


def test_regions_in_another_order_are_another_run(tmp_path: Path) -> None:
    study = small_study()
    trained(tmp_path, study, step=40, epochs=4)
    turned = study.model_copy(update={"regions": dict(reversed(study.regions.items()))})
    assert planned(tmp_path, turned, 4).startswith("starts over with 4 epochs: `regions` was")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"identity'])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / PROGRESS).write_text(content)
    assert read_progress(tmp_path) is None


def test_differences_are_found_however_deep() -> None:
    assert first_difference({"a": {"b": [1]}}, {"a": {"b": [1]}}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {}}) == "`a.b` was 1 and is None"
    assert first_difference({}, {"a": 2}) == "`a` was None and is 2"
