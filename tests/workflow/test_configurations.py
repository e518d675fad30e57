"""A study of several configurations: what a further one adds, and the choice among them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from support.studies import run_locally, write_tiny
from support.workflows import planned, snakemake, write_study
from voxelsoup.commands.cli import main
from voxelsoup.commands.verify import Problem, verify
from voxelsoup.comparison.configurations import read_configurations
from voxelsoup.deploy.file_manifest import MANIFEST, SCANS, entries_of, write_manifest
from voxelsoup.evaluation.case_scores import mean_dice, read_rows

# Another network, and arrays of other voxels in another crop.
CONFIGURATIONS = {
    "wide": {"network": {"arguments": {"init_filters": 4}}},
    "coarse": {"preprocess": {"spacing": [2.0, 2.0, 2.0], "crop": False}},
}
SHORT = {"epochs": 2, "steps_per_epoch": 10}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three configurations with one trial each, run to the table over them."""
    folder = tmp_path_factory.mktemp("configurations")
    write_tiny(
        folder,
        training=SHORT,
        stem={"source": "none"},
        sweep={"grid": {"optimizer.lr": [0.02]}},
        soup={"recipes": ["uniform"]},
        configurations=CONFIGURATIONS,
    )
    run_locally(folder, "results/comparison/configurations.csv")
    return folder


def test_each_configuration_has_runs_and_models_of_its_own(
    compared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compared)
    assert main(["status", "study.yaml", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    states = {(row["configuration"], row["fold"], row["state"]) for row in rows}
    assert states == {("", 0, "done"), ("wide", 0, "done"), ("coarse", 0, "done")}
    results = [Path("results"), *(Path("results/configurations", n) for n in CONFIGURATIONS)]
    models = {(r / "fold0/soups/uniform/model.safetensors").read_bytes() for r in results}
    assert len(models) == 3
    # Arrays that are the same are there once.
    assert Path("results/configurations/wide/preprocessed").is_symlink()
    assert not Path("results/configurations/coarse/preprocessed").is_symlink()
    assert main(["check", "study.yaml"]) == 0
    assert "configuration coarse, 1 trials x 1 folds" in capsys.readouterr().out


def test_what_has_the_weights_of_a_trial_has_its_scores_without_predicting_again(
    compared: Path,
) -> None:
    first = compared / "results"
    for results in (first, *(first / "configurations" / name for name in CONFIGURATIONS)):
        # The only trial is the best single model, and the soup.
        (scores,) = results.glob("fold0/trials/*/test.csv")
        for model in ("best", "soups/uniform"):
            assert (results / "fold0" / model / "test.csv").read_bytes() == scores.read_bytes()
        predicted = (results / "logs/fold0/evaluate_soups.log").read_text().splitlines()
        cases = [line.split()[1] for line in predicted if "mean Dice" in line]
        assert len(cases) == len({*cases})
        assert all(line.endswith("after post-processing") for line in predicted)


def test_the_choice_and_the_table_rest_on_the_scores_of_all_candidates(compared: Path) -> None:
    results = compared / "results"
    chosen = json.loads((results / "configurations/chosen.json").read_text())
    scores = chosen["selection_dice"]
    assert list(scores)[:4] == ["first", "wide", "coarse", "first + wide"]
    assert len(scores) == 7
    # What the configurations' own rules have scored, with the same models on the same cases.
    folders = {name: results / "configurations" / name for name in CONFIGURATIONS}
    for name, folder in ({"first": results} | folders).items():
        own = read_rows(folder / "fold0/soups/uniform/selection.csv")
        assert scores[name] == pytest.approx(mean_dice(own), abs=1e-12)
    singles = {name: score for name, score in scores.items() if "+" not in name}
    assert chosen["configuration"] == max(singles, key=singles.__getitem__)

    table = read_configurations(results / "comparison/configurations.csv")
    assert table["selection_dice"].to_dict() == {name: scores[name] for name in table.index}
    ensemble = " + ".join(chosen["ensemble"])
    tested = read_rows(results / "configurations/fold0/test.csv")
    assert table.loc[ensemble, "test_dice"] == mean_dice(tested)
    assert table.loc[ensemble, "networks"] == len(chosen["ensemble"])
    assert (table["seconds_per_case"] > 0).all()
    assert (table["memory_mb"] > 0).all()


def test_the_ensemble_is_the_mean_of_probabilities_in_the_scan(compared: Path) -> None:
    import torch
    import yaml

    from voxelsoup.data.preprocessing.geometry import to_scanner
    from voxelsoup.data.preprocessing.store import load_case, load_ground_truth
    from voxelsoup.evaluation.score import load_model, prediction_in_the_scan
    from voxelsoup.study.loading import load_with_configurations

    study = yaml.safe_load((compared / "study.yaml").read_text())
    study["results"] = str(compared / "results")
    fold = json.loads((compared / "results/folds.json").read_text())["folds"]["0"]
    case, total = sorted(fold["test"])[0], 0.0
    names = json.loads((compared / "results/configurations/chosen.json").read_text())["ensemble"]
    for name, own in load_with_configurations(study).items():
        if name in names:
            model = load_model(
                Path(own.results, "fold0/soups/uniform/model.safetensors"), own, torch.device("cpu")
            )
            folder = Path(own.results, "preprocessed")
            with torch.inference_mode():
                scan = prediction_in_the_scan(model, case, folder, own, torch.device("cpu"))
            geometry = load_case(folder, case).geometry
            # On the scanner's own grid, which no configuration crops.
            total = total + np.stack([to_scanner(p, geometry) for p in scan.probabilities])
            truth = to_scanner(load_ground_truth(folder, case), geometry)
    mask = total / len(names) > 0.5
    rows = read_rows(compared / "results/configurations/fold0/test.csv")
    found = rows[rows["case"] == case].set_index("region")["dice"]
    for place, (region, labels) in enumerate(study["regions"].items()):
        true, predicted = np.isin(truth, labels), mask[place]
        both = true.sum() + predicted.sum()
        dice = 2 * (true & predicted).sum() / both if both else 1.0
        assert found[region] == pytest.approx(dice)


def test_a_changed_model_of_a_further_configuration_is_noticed(
    compared: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(compared / "results", results)
    # The study was not run to its report, which says where its scans are.
    found = entries_of(results, [0], 1, list(CONFIGURATIONS))
    entries = [entry for entry in found if entry.part != SCANS]
    write_manifest(results / MANIFEST, entries)
    parts = {entry.file: entry.part for entry in entries}
    model = "configurations/wide/fold0/soups/uniform/model.safetensors"
    assert parts[model] == "models"
    assert parts["configurations/fold0/test.csv"] == "scores"
    assert parts["configurations/chosen.json"] == "data"
    assert verify(results) == []
    with (results / model).open("ab") as stream:
        stream.write(b"x")
    assert verify(results) == [Problem("models", model, "changed")]


def test_a_finished_study_of_configurations_plans_nothing(compared: Path) -> None:
    printed = run_locally(compared, "-n", "results/comparison/configurations.csv")
    assert "Nothing to be done" in printed


def test_a_further_configuration_retrains_nothing_of_a_finished_study(
    demo: Path, tmp_path: Path
) -> None:
    study = write_study(
        tmp_path / "more.yaml", configurations={"k5": {"network": {"kernel_size": 5}}}
    )
    printed = snakemake(demo, "-n", "--quiet", "rules", "--cores", "1", config=study)
    jobs = planned(printed)
    assert (jobs["k5_stem"], jobs["k5_trial"], jobs["k5_preprocess"]) == (2, 8, 1)
    again = {"methods", "run_times", "report", "bundle", "manifest", "all", "total"}
    over = {f"{name}_configurations" for name in ("score", "test", "compare")}
    of_the_first = {name for name in jobs if not name.startswith("k5_")}
    assert of_the_first <= again | over | {"choose_configuration"}
