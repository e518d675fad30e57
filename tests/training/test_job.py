"""A run ends soon, with one message and without leftovers, whatever ends it; none is trained twice.

``bench/run_ends.py`` tries all of them; here every end meets each number of workers, and one as
well as two processes (of which ``test_launch`` has NaN).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.model_files import save_model
from support.run_ends import end_of_run
from support.runs import preprocess_phantom, small_study
from voxelsoup.common.files import read_json, sha256, write_json
from voxelsoup.data.preprocessing.store import read_manifest
from voxelsoup.models import weight_files
from voxelsoup.soups.averaging import average, equal_parts
from voxelsoup.training.job import run_job, take_over_results, write_run
from voxelsoup.training.run import Job, finish_run, run_identity

COVERING = [
    ("error", 0, 1), ("error", 2, 2), ("error", 6, 1),
    ("NaN", 0, 1), ("NaN", 2, 1), ("NaN", 6, 1),
    ("TERM", 0, 2), ("TERM", 2, 1), ("TERM", 6, 1),
    ("USR1", 0, 1), ("USR1", 2, 2), ("USR1", 6, 1),
    ("worker killed", 2, 1), ("worker killed", 6, 2),
    ("parent killed", 0, 1), ("parent killed", 2, 2), ("parent killed", 6, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preprocessed")
    preprocess_phantom(phantom_folder, folder)
    return folder


@pytest.mark.parametrize(("end", "workers", "ranks"), COVERING)
def test_a_run_ends_soon_with_one_message_and_without_leftovers(
    cases: Path, tmp_path: Path, end: str, workers: int, ranks: int
) -> None:
    ended = end_of_run(end, workers, ranks, cases, tmp_path)
    assert not ended.fault(end), f"{ended.fault(end)}: {ended.printed}"
    # What had been trained is not lost.
    assert ended.saved > 0 or end in ("error", "NaN")


# Two finishes that start from the same weights are one run, which is trained once.

CHANGES: dict[str, Any] = {
    "training": {"patch": [16, 16, 16], "epochs": 1, "steps_per_epoch": 1},
    "soup": {"finish": {"epochs": 1, "rates": [0.01], "ensemble_share": 0}},
}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The best single model, a greedy soup that kept it alone, and another model."""
    folder = tmp_path_factory.mktemp("starts")
    best = save_model(folder / "best.safetensors", 0, **CHANGES)
    soup = folder / "soup.safetensors"
    weight_files.save(
        soup, average(equal_parts([(best, sha256(best))])), weight_files.load(best)[1]
    )
    other = save_model(folder / "other.safetensors", 1, **CHANGES)
    return {"best": best, "greedy": soup, "uniform": other}


def job_of(start: str, starts: dict[str, Path], cases: Path, folder: Path) -> tuple[Job, Path]:
    """The finish of a model of fold 0, and where its own model goes."""
    study = small_study(**CHANGES)
    fingerprints = read_manifest(cases / "manifest.tsv")
    run = finish_run(study, 0, sorted(fingerprints)[:2], cases, starts[start], 0.01, None)
    job = Job(
        run,
        fold=0,
        name=f"finish/{start}/0.01",
        label=f"finish/{start}/0.01",
        parameters={},
        identity=run_identity(run, fingerprints),
        states=folder / "states" / start,
        events=None,
        log=folder / "log.txt",
        threads=1,
    )
    model = folder / start / "model.safetensors"
    model.parent.mkdir(parents=True, exist_ok=True)
    return job, model


@pytest.fixture(scope="module")
def trained(starts: dict[str, Path], cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the greedy soup has been finished."""
    folder = tmp_path_factory.mktemp("finish")
    job, model = job_of("greedy", starts, cases, folder)
    with run_job(job) as done:
        write_run(job, done, model, beside=[])
    return folder


def take(start: str, starts: dict[str, Path], cases: Path, folder: Path) -> tuple[bool, Path]:
    job, model = job_of(start, starts, cases, folder)
    places = folder / "states/greedy", folder / "greedy"
    return take_over_results(job, model, "finish/greedy/0.01", *places), model.parent


def test_a_soup_of_one_model_is_finished_once(
    starts: dict[str, Path], cases: Path, trained: Path
) -> None:
    taken, found = take("best", starts, cases, trained)
    assert taken
    for name in ("model.safetensors", "history.csv"):
        assert (found / name).read_bytes() == (trained / "greedy" / name).read_bytes()
    record, other = read_json(found / "run.json"), read_json(trained / "greedy/run.json")
    assert record["run"] == "finish/best/0.01" and record["taken_from"] == "finish/greedy/0.01"
    assert record["initial"] == str(starts["best"]) and "taken_from" not in other
    assert record["attempts"] == [] and len(other["attempts"]) == 1
    for same in ("models", "settings", "seed", "initial_sha256", "steps"):
        assert record[same] == other[same]


def test_a_finish_of_other_weights_is_trained(
    starts: dict[str, Path], cases: Path, trained: Path
) -> None:
    taken, found = take("uniform", starts, cases, trained)
    assert not taken and not list(found.iterdir())


def test_results_that_are_not_there_or_were_changed_are_not_taken(
    starts: dict[str, Path], cases: Path, trained: Path, tmp_path: Path
) -> None:
    job, model = job_of("best", starts, cases, tmp_path)
    states, results = trained / "states/greedy", tmp_path / "greedy"
    assert not take_over_results(job, model, "greedy", states, results)
    results.mkdir()
    for name in ("model.safetensors", "history.csv"):
        (results / name).write_bytes((trained / "greedy" / name).read_bytes())
    record = read_json(trained / "greedy/run.json")
    write_json(results / "run.json", record | {"models": {"model.safetensors": "another"}})
    assert not take_over_results(job, model, "greedy", states, results)
    write_json(results / "run.json", record)
    assert take_over_results(job, model, "greedy", states, results)
