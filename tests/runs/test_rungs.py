"""What the rungs of a halved study leave on disk."""

from __future__ import annotations

from pathlib import Path

from support.fabricated_results import trials_in, write_study
from voxelsoup.common.files import write_json
from voxelsoup.runs.rungs import dropped_trials
from voxelsoup.study.loading import read

SEEDS = {"grid": {"training.seed": [0, 1, 2, 3]}}


def test_trials_are_dropped_after_the_rung_of_their_fold_that_does_not_keep_them(
    tmp_path: Path,
) -> None:
    file = write_study(tmp_path, sweep=SEEDS | {"halving": {"rungs": 3, "keep": 0.5}})
    first, second, third, fourth = (trial.id for trial in trials_in(file))
    rungs = tmp_path / "results" / "fold0" / "rungs"
    scores = {first: 0.1, second: 0.2, third: 0.3, fourth: 0.4}
    write_json(rungs / "1.json", {"scores": scores, "kept": [third, fourth]})
    assert dropped_trials(read(file)) == {0: {first: 1, second: 1}, 1: {}}
    write_json(rungs / "2.json", {"scores": {third: 0.3, fourth: 0.4}, "kept": [fourth]})
    assert dropped_trials(read(file)) == {0: {first: 1, second: 1, third: 2}, 1: {}}


def test_without_halving_no_trial_is_dropped_also_after_rungs_of_before(tmp_path: Path) -> None:
    file = write_study(tmp_path, sweep=SEEDS)
    first, second, *_ = (trial.id for trial in trials_in(file))
    record = {"scores": {first: 0.1, second: 0.2}, "kept": [second]}
    write_json(tmp_path / "results" / "fold0" / "rungs" / "1.json", record)
    assert dropped_trials(read(file)) == {0: {}, 1: {}}
