"""The record of a run: read from every version; a damaged one counts as missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voxelsoup.common.files import read_json, write_json
from voxelsoup.runs.lease import Owner
from voxelsoup.runs.record import (
    RECORD,
    SAVED_BEFORE,
    Recorder,
    first_difference,
    read_record,
    read_saved,
)


def test_a_record_survives_a_round_trip(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, Owner.this_process(), steps=20)
    recorder.start(taken_from=Owner.this_process())
    recorder.trains_on("cpu", None)
    recorder.resumes(0, [])
    recorder.first_step_done()
    recorder.epoch_done([{"epoch": 1, "step": 10, "training_loss": 0.5, "lr": 0.01}])
    recorder.state_saved(10, {"settings": {"a": [1]}})
    recorder.ended(ValueError("no"))
    assert read_record(tmp_path) == recorder.record
    assert (recorder.record.state, recorder.record.epoch) == ("stopped", 1)
    # Another attempt keeps what is known of the earlier one.
    again = Recorder(tmp_path, Owner.this_process(), steps=20)
    again.start()
    record = read_record(tmp_path)
    assert record is not None
    assert record.attempts[0] == recorder.record.attempts[0]
    assert (record.saved, record.state) == (recorder.record.saved, "running")


def test_fields_of_another_version_are_ignored(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, Owner.this_process(), steps=20)
    recorder.start()
    content = read_json(tmp_path / RECORD)
    content["attempts"][0] |= {"new": 1}
    write_json(tmp_path / RECORD, content | {"new": 2})
    assert read_record(tmp_path) == recorder.record


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"identity'])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    for name in (RECORD, SAVED_BEFORE):
        (tmp_path / name).write_text(content)
    assert read_record(tmp_path) is None
    assert read_saved(tmp_path) is None


def test_a_new_attempt_adopts_what_an_earlier_version_saved(tmp_path: Path) -> None:
    (tmp_path / SAVED_BEFORE).write_text(json.dumps({"identity": {}, "step": 7, "steps": 9}))
    Recorder(tmp_path, Owner.this_process(), steps=9).start()
    saved = read_json(tmp_path / RECORD)["saved"]
    assert (saved["identity"], saved["step"]) == ({}, 7)


def test_differences_are_found_however_deep() -> None:
    assert first_difference({"a": {"b": [1]}}, {"a": {"b": [1]}}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {}}) == "`a.b` was 1 and is None"
    assert first_difference({}, {"a": 2}) == "`a` was None and is 2"
