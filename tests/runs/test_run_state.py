"""What a run is doing, and what the plan says of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from support.runs import small_study
from voxelsoup.common.files import write_json
from voxelsoup.runs.lease import Lease
from voxelsoup.runs.record import RECORD, SAVED_BEFORE, RunRecord, SavedState
from voxelsoup.runs.run_state import plan
from voxelsoup.study.study import Study
from voxelsoup.training.run import run_settings

STEPS_PER_EPOCH = 10


def study_of(**settings: dict[str, object]) -> Study:
    training = {"steps_per_epoch": STEPS_PER_EPOCH} | settings.pop("training", {})
    return small_study(training=training, **settings)


def planned(folder: Path, study: Study, epochs: int) -> str:
    settings = run_settings(study, study.optimizer, epochs)
    return plan(str(folder), epochs, settings, lease_seconds=60)


def trained(folder: Path, study: Study, step: int, epochs: int) -> RunRecord:
    saved = SavedState({"settings": run_settings(study, study.optimizer, epochs)}, step)
    record = RunRecord("stopped", "", steps=epochs * STEPS_PER_EPOCH, saved=saved)
    write_json(folder / RECORD, asdict(record))
    return record


def test_a_run_without_states_is_trained(tmp_path: Path) -> None:
    assert planned(tmp_path, study_of(), 4) == "trains 4 epochs"


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
def test_a_schedule_free_run_resumes(tmp_path: Path, step: int, epochs: int, said: str) -> None:
    trained(tmp_path, study_of(), step, epochs=4)
    assert planned(tmp_path, study_of(), epochs) == said


def test_the_plan_names_the_process_whose_run_is_taken_over(tmp_path: Path) -> None:
    record = trained(tmp_path, study_of(), step=10, epochs=4)
    write_json(tmp_path / RECORD, asdict(record) | {"state": "running"})
    with Lease(tmp_path, 60) as lease:
        said = f"takes over from {lease.owner} and continues after epoch 1 of 4"
        assert planned(tmp_path, study_of(), 4) == said
    assert planned(tmp_path, study_of(), 4) == "continues after epoch 1 of 4"


def test_a_scheduled_run_resumes_only_at_the_same_length(tmp_path: Path) -> None:
    study = study_of(optimizer={"schedule": "cosine"})
    trained(tmp_path, study, step=20, epochs=4)
    assert planned(tmp_path, study, 4) == "continues after epoch 2 of 4"
    said = "starts over with 8 epochs: its schedule was made for 4 epochs"
    assert planned(tmp_path, study, 8) == said


def test_the_plan_names_a_changed_setting(tmp_path: Path) -> None:
    trained(tmp_path, study_of(), step=20, epochs=4)
    study = study_of(optimizer={"lr": 0.02})
    said = "starts over with 4 epochs: `optimizer.lr` was 0.01 and is 0.02"
    assert planned(tmp_path, study, 4) == said


def test_device_and_speed_settings_do_not_change_a_runs_identity(tmp_path: Path) -> None:
    trained(tmp_path, study_of(), step=40, epochs=4)
    study = study_of(training={"workers": 3, "device": "cpu"}, recovery={"save_minutes": 1})
    assert planned(tmp_path, study, 4) == "is trained already (4 epochs)"


def test_regions_in_another_order_are_another_run(tmp_path: Path) -> None:
    study = study_of()
    trained(tmp_path, study, step=40, epochs=4)
    turned = study.model_copy(update={"regions": dict(reversed(study.regions.items()))})
    assert planned(tmp_path, turned, 4).startswith("starts over with 4 epochs: `regions` was")


@pytest.mark.parametrize("with_record", [False, True])
def test_the_plan_reads_what_earlier_versions_wrote(tmp_path: Path, with_record: bool) -> None:
    """They kept what the newest state is of in `progress.json`, beside the record."""
    record = trained(tmp_path, study_of(), step=10, epochs=4)
    assert record.saved is not None
    before = {"identity": record.saved.identity, "step": 20, "steps": 40}
    write_json(tmp_path / SAVED_BEFORE, before)
    old = asdict(record)
    del old["saved"]
    write_json(tmp_path / RECORD, old)
    if not with_record:
        (tmp_path / RECORD).unlink()
    assert planned(tmp_path, study_of(), 4) == "continues after epoch 2 of 4"
