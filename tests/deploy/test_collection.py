"""The collection: readable names, right hashes, nothing stale."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.deploy import collection
from voxelsoup.deploy.collection import CollectedModel, collect
from voxelsoup.evaluation.case_scores import write_rows

TEST = {"test_avg": 1 / 3, "test_tc": 0.1 + 0.2, "test_loss": 1e-7}
PARAMETERS = {"optimizer.lr": 0.01, "training.loss": "dice"}


@pytest.fixture
def entries(tmp_path) -> list[CollectedModel]:
    kinds = [
        ("greedy", "soup", {}, None),
        ("1a2b3c4d", "trial", PARAMETERS, 3),
        ("stem", "stem", {}, 6),
    ]
    found = []
    for name, kind, parameters, epochs in kinds:
        model = tmp_path / "fold0" / name / "model.safetensors"
        model.parent.mkdir(parents=True)
        model.write_bytes(f"weights of {name}".encode())
        found.append(CollectedModel(0, name, kind, parameters, epochs, model, 2 / 3, TEST))
    return found


def manifest_of(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_models_get_readable_names_and_right_hashes(entries, tmp_path):
    folder = tmp_path / "models"
    collect(entries, folder, folder / "manifest.tsv", "held-out")
    rows = manifest_of(folder / "manifest.tsv")
    assert [row["path"] for row in rows] == [
        "fold0_stem.safetensors",
        "fold0_trial_1a2b3c4d_lr=0.01,loss=dice.safetensors",
        "fold0_soup_greedy.safetensors",
    ]
    assert list(rows[0]) == [
        "fold",
        "trial",
        "kind",
        "parameters",
        "epochs",
        "protocol",
        "selection_score",
        "test_avg",
        "test_tc",
        "test_loss",
        "sha256",
        "path",
    ]
    for row in rows:
        content = (folder / row["path"]).read_bytes()
        assert content == f"weights of {row['trial']}".encode()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert float(row["selection_score"]) == 2 / 3
        assert {name: float(row[name]) for name in TEST} == TEST
    assert [row["epochs"] for row in rows] == ["6", "3", ""]
    assert json.loads(rows[1]["parameters"]) == PARAMETERS


def test_links_take_no_space_and_copies_serve_where_links_fail(entries, tmp_path, monkeypatch):
    linked = collect(entries, tmp_path / "linked", tmp_path / "linked" / "manifest.tsv", "held-out")
    assert (tmp_path / "linked" / "fold0_stem.safetensors").samefile(entries[2].model)

    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    copied = collect(entries, tmp_path / "copied", tmp_path / "copied" / "manifest.tsv", "held-out")
    assert not (tmp_path / "copied" / "fold0_stem.safetensors").samefile(entries[2].model)
    pd.testing.assert_frame_equal(linked, copied)


def test_stale_files_go_and_their_models_stay(entries, tmp_path):
    folder = tmp_path / "models"
    collect(entries, folder, folder / "manifest.tsv", "held-out")
    (folder / ".collect.crashed").mkdir()
    (folder / "old.safetensors").write_bytes(b"old")
    collect(entries[:1], folder, folder / "manifest.tsv", "held-out")
    assert sorted(path.name for path in folder.iterdir()) == [
        "fold0_soup_greedy.safetensors",
        "manifest.tsv",
    ]
    assert all(entry.model.exists() for entry in entries)


def test_collecting_again_changes_nothing_and_follows_new_models(entries, tmp_path):
    folder = tmp_path / "models"
    collect(entries, folder, folder / "manifest.tsv", "held-out")
    before = (folder / "manifest.tsv").read_bytes()
    collect(entries[::-1], folder, folder / "manifest.tsv", "held-out")
    assert (folder / "manifest.tsv").read_bytes() == before
    assert len(list(folder.iterdir())) == 4
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"retrained")
    fresh.replace(entries[2].model)
    collect(entries, folder, folder / "manifest.tsv", "held-out")
    assert (folder / "fold0_stem.safetensors").read_bytes() == b"retrained"


def test_numbers_of_the_published_protocol_are_marked(entries, tmp_path):
    collect(entries, tmp_path / "models", tmp_path / "manifest.tsv", "published")
    rows = manifest_of(tmp_path / "manifest.tsv")
    assert rows and all(OPTIMISTIC in row["protocol"] for row in rows)


def test_long_and_odd_parameters_make_a_legal_name(entries):
    odd = {f"training.key{number}": "a/b c\n*" for number in range(60)}
    name = replace(entries[1], parameters=odd).name
    assert len(name.encode()) <= 255 and "/" not in name and "\n" not in name
    assert name.startswith("fold0_trial_1a2b3c4d_") and name.endswith(".safetensors")


def test_entries_are_read_from_result_files(tmp_path):
    rows = pd.DataFrame({"case": ["a"], "region": ["TC"], "dice": [0.25], "loss": [0.5]})
    write_rows(tmp_path / "rows.csv", rows)
    (tmp_path / "run.json").write_text(json.dumps({"parameters": PARAMETERS, "epochs": 3}))
    (tmp_path / "recipe.json").write_text(json.dumps({"ingredients": [{"trial": "1a2b3c4d"}]}))
    paths = tmp_path / "rows.csv", tmp_path / "rows.csv"
    model = tmp_path / "model.safetensors"
    run = collection.run_entry(1, "trials/1a2b3c4d", model, tmp_path / "run.json", *paths)
    assert run.name == "fold1_trial_1a2b3c4d_lr=0.01,loss=dice.safetensors"
    assert (run.selection_score, run.test["test_tc"], run.epochs) == (0.25, 0.25, 3)
    assert collection.run_entry(1, "stem", model, tmp_path / "run.json", *paths).kind == "stem"
    soup = collection.soup_entry(1, "greedy", model, tmp_path / "recipe.json", *paths)
    assert soup.name == "fold1_soup_greedy.safetensors"
    assert soup.parameters == {"ingredients": ["1a2b3c4d"]} and soup.epochs is None
