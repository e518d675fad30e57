"""Trials that diverge: when a fold can do without them, and what is said of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from voxelsoup.common.errors import InputError, describe
from voxelsoup.common.files import write_json
from voxelsoup.runs.divergence import (
    Diverged,
    DivergedTrial,
    check_divergence,
    divergence_of,
    forget_note,
    left_out,
    read_note,
    write_note,
)
from voxelsoup.runs.failures import end_by_error

LABELS = {"aaaa0000": "lr 0.01", "bbbb0000": "lr 1e+30", "cccc0000": "lr 1e+29"}
TRIALS = [*LABELS]
SECOND, THIRD = (DivergedTrial(0, trial, epoch=2, step=7) for trial in TRIALS[1:])


def test_a_fold_does_without_diverged_trials_as_long_as_two_are_left() -> None:
    check_divergence("skip", [], TRIALS[:1], LABELS)
    check_divergence("skip", [SECOND], TRIALS, LABELS)
    check_divergence("stop", [], TRIALS, LABELS)
    with pytest.raises(InputError, match="2 of 3 trials diverged") as error:
        check_divergence("skip", [SECOND, THIRD], TRIALS, LABELS)
    assert error.value.found.endswith(
        "lr 1e+30 (bbbb0000) at epoch 2, step 7 and lr 1e+29 (cccc0000) at epoch 2, step 7"
    )
    assert "at least 2 trials" in error.value.expected
    assert "lower `optimizer.lr`" in error.value.fix


def test_a_study_may_stop_at_the_first_diverged_trial() -> None:
    with pytest.raises(InputError, match="1 of 3 trials diverged: lr 1e\\+30") as error:
        check_divergence("stop", [SECOND], TRIALS, LABELS)
    assert "`sweep.on_diverged: stop`" in error.value.expected


def test_a_note_holds_for_the_run_of_its_identity_until_it_is_forgotten(tmp_path: Path) -> None:
    identity = {"settings": {"optimizer": {"lr": 1e30}}, "seed": (0, 1)}
    error = Diverged(2, 7, "the training loss")
    write_note(tmp_path, identity, error, diverged=True)
    note = read_note(tmp_path, identity)
    assert note is not None and note.diverged and str(note.error) == str(error)
    assert read_note(tmp_path, identity | {"seed": (0, 2)}) is None
    forget_note(tmp_path)
    assert read_note(tmp_path, identity) is None


def test_the_error_keeps_its_parts_between_processes_and_in_a_record() -> None:
    error = Diverged(2, 7, "the training loss").of_run("fold 0, stem")
    assert str(error).startswith("fold 0, stem, epoch 2, step 7: the training loss is NaN or inf")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.epoch, again.step, again.what) == (Diverged, 2, 7, error.what)
    failure = end_by_error(describe(error))
    assert failure is not None and failure.words == "diverged" and failure.fix == error.fix


def test_results_say_where_a_trial_diverged(tmp_path: Path) -> None:
    folder = tmp_path / "bbbb0000"
    assert divergence_of(0, folder) is None
    write_json(folder / "run.json", {"models": {"model.safetensors": "00"}})
    assert divergence_of(0, folder) is None
    write_json(folder / "run.json", {"models": {}, "diverged": {"epoch": 2, "step": 7}})
    assert divergence_of(0, folder) == SECOND


def test_readers_are_told_which_trials_are_left_out() -> None:
    assert left_out([], LABELS) == ""
    assert left_out([SECOND], LABELS) == (
        "One run diverged (NaN or infinite loss or weights) and is left out: lr 1e+30 in fold 0 at "
        "epoch 2, step 7."
    )
    assert "2 runs diverged" in left_out([SECOND, THIRD], LABELS)
