"""`snakemake predict`, run for real on tiny scans with a model of random weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.model_files import save_model
from support.runs import SETTINGS
from support.workflows import planned, snakemake
from voxelsoup.common.files import read_json, write_json
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.prediction.outcomes import forget_lost
from voxelsoup.study.sections.data import Phantom

CASES = ["Phantom-0000-000", "Phantom-0001-000", "Phantom-0002-000"]


def write_study(folder: Path, **predict: Any) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | {"predict": predict}))
    return file


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results/predictions.tsv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream, delimiter="\t")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three scans, of which one is damaged, and two models."""
    write_phantom(tmp_path / "scans", Phantom(cases=4, shape=[24, 28, 24]))
    for case in (tmp_path / "scans").iterdir():
        if case.name not in CASES:
            case.rename(tmp_path / "whole")
    (tmp_path / "scans" / CASES[1] / f"{CASES[1]}-t2w.nii.gz").write_bytes(b"junk")
    for seed in (0, 1):
        save_model(tmp_path / f"{seed}.safetensors", seed)
    return tmp_path


def test_batches_write_good_cases_and_the_last_step_names_the_bad_ones(folder: Path) -> None:
    models = ["0.safetensors", "1.safetensors"]
    given = {"input": "scans", "layout": "brats", "models": models}
    study = write_study(folder, **given, cases_per_job=2, overlap=0.25)
    printed = snakemake(folder, "--cores", "2", "predict", config=study, succeeds=False)
    assert f"{CASES[1]}: scans/{CASES[1]}/{CASES[1]}-t2w.nii.gz: cannot be read" in printed
    assert "Finished jobid" in printed and "Traceback" not in printed
    found = rows(folder)
    assert [found[case]["outcome"] for case in CASES] == ["predicted", "bad", "predicted"]
    predictions = folder / "results/predictions"
    assert sorted(path.name for path in predictions.glob("*.nii.gz")) == [
        f"{case}.nii.gz" for case in CASES if case != CASES[1]
    ]
    record = read_json(predictions / f".voxelsoup/{CASES[0]}.json")
    assert len(record["models"]) == 2 and record["overlap"] == 0.25
    batches = read_json(folder / "results/.predict/scans.json")["batches"]
    assert [list(batch) for batch in batches.values()] == [CASES[:2], CASES[2:]]

    # Once it is whole, it is predicted, and the others are not predicted again.
    for file in (folder / "whole").glob("*-t2w.nii.gz"):
        file.rename(folder / "scans" / CASES[1] / f"{CASES[1]}-t2w.nii.gz")
    before = {path: path.stat().st_mtime_ns for path in predictions.glob("*.nii.gz")}
    printed = snakemake(folder, "--cores", "2", "predict", config=study)
    assert "batch 0000" in printed and "batch 0001" not in printed
    outcomes = [rows(folder)[case]["outcome"] for case in CASES]
    assert outcomes == ["kept", "predicted", "predicted"]
    assert {path: path.stat().st_mtime_ns for path in before} == before

    # So is one whose label map is gone, as a plan says too; then nothing is left to do.
    (predictions / f"{CASES[2]}.nii.gz").unlink()
    for dry in (["-n"], []):
        printed = snakemake(folder, "--cores", "2", *dry, "predict", config=study)
        assert "batch 0001" in printed and "batch 0000" not in printed
    assert [rows(folder)[case]["outcome"] for case in CASES] == ["kept", "predicted", "predicted"]
    assert "batch 000" not in snakemake(folder, "-n", "predict", config=study)


def test_a_bad_case_has_no_label_map_to_lose(tmp_path: Path) -> None:
    table, batch = tmp_path / "predictions.tsv", tmp_path / "0000.json"
    table.touch()
    write_json(batch, [{"case": "good", "outcome": "kept"}, {"case": "bad", "outcome": "bad"}])
    (tmp_path / "good.nii.gz").touch()
    forget_lost(table, [batch], tmp_path)
    assert table.exists() and batch.exists()
    forget_lost(table, [batch], tmp_path, probabilities=True)
    assert not table.exists() and not batch.exists()


def test_predict_without_scans_names_the_missing_key(folder: Path) -> None:
    printed = snakemake(folder, "-n", "predict", config=write_study(folder), succeeds=False)
    assert "`predict.input` names no scans" in printed


def test_predict_uses_the_soups_of_all_folds_and_is_not_part_of_all(folder: Path) -> None:
    study = write_study(folder, input="scans")
    jobs = planned(snakemake(folder, "-n", "predict", "--quiet", "rules", config=study))
    # The batches are not known yet; what is planned is their listing.
    assert jobs["scans"] == jobs["predictions"] == jobs["predict"] == 1
    jobs = planned(snakemake(folder, "-n", "--quiet", "rules", config=study))
    assert "predict" not in jobs and "scans" not in jobs
