"""The workflow itself: Snakemake run for real on phantom data."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from support.studies import epochs_trained
from support.workflows import REPOSITORY, planned, snakemake, write_study
from voxelsoup.commands.cli import main
from voxelsoup.common.files import sha256
from voxelsoup.evaluation.case_scores import mean_dice, read_rows
from voxelsoup.models import weight_files
from voxelsoup.runs.invocation import recorded_studies
from voxelsoup.soups.candidates import ranking, read_candidates
from voxelsoup.study.loading import read
from voxelsoup.study.trials import trials

FOLD = "results/fold0"


def trials_of(demo: Path) -> list[str]:
    return sorted(path.name for path in (demo / FOLD / "trials").iterdir())


def models_of(demo: Path) -> list[str]:
    """All ingredients, each once: a scheduled optimizer has one kind of weights."""
    return sorted(candidate.model for candidate in read_candidates(demo / FOLD / "candidates.tsv"))


def test_the_demo_ends_with_the_comparison_and_the_report(demo: Path) -> None:
    printed = (demo / "printed.txt").read_text()
    assert "Report: results/report.html" in printed
    assert "Greedy Soup" in printed
    assert re.search(r"Fold 1: These models are( not)? linearly mode-connected", printed)
    page = (demo / "results/report.html").read_text()
    for shown in (
        "overview",
        "training_curves",
        "manifest",
        "recipe.json",
        "basin",
        "barriers.html",
    ):
        assert shown in page


def test_every_result_in_the_report_can_be_reached(demo: Path) -> None:
    page = (demo / "results/report.html").read_text()
    (content,) = re.findall(
        r'<script id="results">\s*var results = (\{.*?\});?\s*</script>', page, re.S
    )
    # The report lists results by their labels: of two with the same ones, only one is shown.
    labels = [
        json.dumps(result["labels"], sort_keys=True) for result in json.loads(content).values()
    ]
    assert len(set(labels)) == len(labels) > 10
    for table in ("1 overview", "2 fold 0", "2 fold 1"):
        assert json.dumps({"table": table}) in labels
    for part in ("do the models share a basin?", "barriers", "distances of the weights"):
        assert json.dumps({"result": part}) in labels


def test_the_demo_ends_with_a_bundle_of_all_folds_and_a_manifest_that_verifies(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = demo / "results/bundle"
    kind = json.loads((bundle / "configs/metadata.json").read_text())["voxelsoup"]["kind"]
    folder = {"Best Model": "best"}.get(kind, f"soups/{kind.partition(' ')[0].lower()}")
    for fold in (0, 1):
        packed = sha256(bundle / f"models/model_fold{fold}.safetensors")
        assert packed == sha256(demo / f"results/fold{fold}/{folder}/model.safetensors")
    assert kind in (bundle / "docs/README.md").read_text()
    monkeypatch.chdir(demo)
    assert main(["verify", "results"]) == 0
    listed = (demo / "results/provenance.tsv").read_text()
    for name in ("bundle/docs/README.md", "report.html", "fold1/soups/greedy/model.safetensors"):
        assert f"\t{name}\t{sha256(demo / 'results' / name)}\n" in listed
    assert "SHA-256" in capsys.readouterr().out


def test_a_second_call_does_nothing(demo: Path) -> None:
    printed = snakemake(demo, "--profile", str(REPOSITORY / "profiles" / "local"))
    assert "Nothing to be done" in printed


def test_repeated_trials_are_bit_identical(demo: Path, tmp_path: Path) -> None:
    # One of each schedule, with all its ingredients, and the scores of one. The data are prepared
    # again in test_installed, stems trained again in test_recovery, and soups made again from their
    # recipes in test_studies.
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / FOLD / "trials")
    for part in (tmp_path / "results/.state/fold0").iterdir():
        if part.is_dir() and part.name != "stem":
            shutil.rmtree(part)
    compared = (trials_of(demo)[0], trials_of(demo)[-1])
    names = [f"{FOLD}/trials/{compared[0]}/test.csv"]
    for trial in compared:
        models = [model for model in models_of(demo) if model.split("/")[0] == trial]
        names += [f"{FOLD}/trials/{model}/model.safetensors" for model in models]
        names.append(f"{FOLD}/trials/{trial}/history.csv")
    profile = str(REPOSITORY / "profiles" / "local")
    snakemake(tmp_path, "--profile", profile, *names)
    for name in names:
        assert sha256(tmp_path / name) == sha256(demo / name), name


def test_tables_hold_the_numbers_of_the_per_case_scores(demo: Path) -> None:
    scores = {
        trial: mean_dice(read_rows(demo / FOLD / "trials" / trial / "selection.csv"))
        for trial in models_of(demo)
    }
    best = max(sorted(scores), key=lambda trial: scores[trial])
    table = pd.read_csv(
        demo / "results/comparison/fold0.csv", index_col=0, float_precision="round_trip"
    )
    for column, rows in (
        ("Best Model (Fold 0)", demo / FOLD / "trials" / best / "test.csv"),
        ("Greedy Soup (Fold 0)", demo / FOLD / "soups/greedy/test.csv"),
    ):
        case_scores = read_rows(rows)
        assert table.loc["test_avg", column] == pytest.approx(case_scores["dice"].mean(), rel=1e-12)
        for region, part in case_scores.groupby("region"):
            assert table.loc[f"test_{region.lower()}", column] == pytest.approx(
                part["dice"].mean(), rel=1e-12
            )


def test_the_greedy_soup_is_the_average_that_its_recipe_names(demo: Path) -> None:
    recipe = json.loads((demo / FOLD / "soups/greedy/recipe.json").read_text())
    assert len(recipe["decisions"]) == len(models_of(demo)) == 12
    weights = [
        weight_files.load(demo / FOLD / "trials" / part["trial"] / "model.safetensors")[0]
        for part in recipe["ingredients"]
    ]
    soup, _ = weight_files.load(demo / FOLD / "soups/greedy/model.safetensors")
    for name, value in soup.items():
        mean = sum(w[name].double() for w in weights) / len(weights)
        assert (value.double() - mean).abs().max() < 1e-7
    rows = read_rows(demo / FOLD / "soups/greedy/selection.csv")
    assert mean_dice(rows) == recipe["score"]
    assert recipe["score"] >= max(decision["single_score"] for decision in recipe["decisions"])


def test_the_soup_and_the_best_model_choose_among_all_ingredients(demo: Path) -> None:
    trials, models = demo / FOLD / "trials", models_of(demo)
    # Two checkpoints of four trials; the two schedule-free ones have raw weights beside averages.
    assert len(models) == 12
    scores = {name: mean_dice(read_rows(trials / name / "selection.csv")) for name in models}
    recipe = json.loads((demo / FOLD / "soups" / "greedy" / "recipe.json").read_text())
    assert sorted(decision["trial"] for decision in recipe["decisions"]) == models
    table = (demo / "results/comparison/fold0.md").read_text()
    assert f"({ranking(scores)[0]}), whose mean Dice on the selection cases" in table
    assert f"is the highest of {len(models)} models of the trials" in table


def test_a_lost_model_comes_out_of_its_runs_last_state(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "results", tmp_path / "results")
    shutil.copytree(demo / ".snakemake", tmp_path / ".snakemake")
    name = next(name for name in models_of(demo) if "/raw-1" in name)
    lost = Path(FOLD, "trials", name, "model.safetensors")
    (tmp_path / lost).unlink()
    study = write_study(tmp_path / "study.yaml")
    snakemake(tmp_path, "--cores", "1", str(lost), config=study)
    assert (tmp_path / lost).read_bytes() == (demo / lost).read_bytes()
    # Without another step.
    states = tmp_path / "results/.state/fold0/trials" / name.partition("/")[0]
    assert epochs_trained(states) == epochs_trained(demo / states.relative_to(tmp_path))


def test_every_fold_reports_whether_its_models_are_linearly_mode_connected(demo: Path) -> None:
    for fold in (0, 1):
        record = json.loads((demo / f"results/fold{fold}/basin.json").read_text())
        folder = demo / f"results/fold{fold}/trials"
        scores = {
            trial: mean_dice(read_rows(folder / trial / "selection.csv"))
            for trial in models_of(demo)
        }
        assert record["best_score"] == max(scores.values())
        assert sorted(record["models"]) == sorted(scores)
        assert len(record["cases"]) == 4
        # The ends of a line are what the evaluation found.
        ends = [(record["best"], 0), *((line["trial"], -1) for line in record["lines"])]
        for (trial, end), line in zip(ends, [record["lines"][0], *record["lines"]], strict=True):
            rows = read_rows(folder / trial / "selection.csv")
            rows = rows[rows["case"].isin(record["cases"])]
            assert line["losses"][end] == pytest.approx(rows["loss"].mean(), rel=1e-12)
            assert line["dices"][end] == pytest.approx(rows["dice"].mean(), rel=1e-12)
        assert 0 < record["distances"][0][1] < 2
        assert record["sentence"] in (demo / "results/comparison/basin.md").read_text()
    # Eleven lines, three points, four cases; the greedy recipe may have seen some of them.
    assert record["case_inferences"] <= 11 * 3 * 4
    table = pd.read_csv(demo / "results/comparison/basin.csv")
    assert table.groupby("fold").size().to_dict() == {0: 12, 1: 12}


def test_every_model_is_collected_with_its_hash(demo: Path) -> None:
    manifest = pd.read_csv(demo / "results/models/manifest.tsv", sep="\t")
    # Two folds, each with a stem, four trials of which two have four models and two have two, and
    # two soups.
    assert len(manifest) == 2 * (1 + 2 * 4 + 2 * 2 + 2)
    for row in manifest.itertuples():
        assert sha256(demo / "results" / "models" / Path(row.path).name) == row.sha256


def test_a_new_value_plans_its_own_runs_and_what_depends_on_them(
    demo: Path, tmp_path: Path
) -> None:
    grid = {"training.seed": [0, 2, 1], "optimizer.schedule": ["constant", "schedule-free"]}
    study = write_study(tmp_path / "more.yaml", sweep={"grid": grid})
    printed = snakemake(demo, "-n", "--quiet", "rules", "--cores", "1", config=study)
    assert planned(printed) == {
        "trial": 4,
        "evaluate": 4,
        "soup": 4,
        "candidates": 2,
        "best": 2,
        "postprocessing": 2,
        "evaluate_soups": 2,
        "ensemble": 2,
        "basin": 2,
        "basins": 1,
        "case_slices": 1,
        "compare": 1,
        "figures": 1,
        "collect": 1,
        "methods": 1,
        "run_times": 1,
        "report": 1,
        "bundle": 1,
        "manifest": 1,
        "all": 1,
        "total": 35,
    }


def test_a_sweep_in_another_order_or_in_several_blocks_repeats_only_tables(
    demo: Path, tmp_path: Path
) -> None:
    schedules = ["constant", "schedule-free"]
    blocks = [
        {"zip": {"training.seed": [seed]}, "grid": {"optimizer.schedule": schedules}}
        for seed in (1, 0)
    ]
    study = write_study(tmp_path / "split.yaml", sweep={"also": blocks})
    printed = snakemake(demo, "-n", "--quiet", "rules", "--cores", "1", config=study)
    assert not planned(printed).keys() & {"stem", "trial", "evaluate", "soup", "ensemble", "basin"}


def test_a_further_block_trains_its_own_trials_only(demo: Path, tmp_path: Path) -> None:
    schedules = ["schedule-free", "constant"]
    finished = {"optimizer.schedule": schedules, "training.seed": [0, 1]}
    wider = finished | {"optimizer.weight_decay": [0, 0.01]}
    sweep = {"grid": finished, "also": [{"grid": wider}]}
    study = write_study(tmp_path / "wider.yaml", sweep=sweep)
    printed = snakemake(demo, "-n", "--quiet", "rules", "--cores", "1", config=study)
    # Four new trials in two folds; the old ones are those of the new axis that have 0.
    assert planned(printed)["trial"] == 8
    assert "stem" not in planned(printed)


def test_a_removed_value_keeps_its_results_and_is_used_nowhere(demo: Path, tmp_path: Path) -> None:
    grid = {"optimizer.schedule": ["schedule-free", "constant"], "training.seed": [0]}
    study = write_study(tmp_path / "fewer.yaml", sweep={"grid": grid})
    kept = {trial.id for trial in trials(read(study))}
    removed = set(trials_of(demo)) - kept
    assert len(kept) == len(removed) == 2
    plan = planned(snakemake(demo, "-n", "--quiet", "rules", "--cores", "1", config=study))
    assert not plan.keys() & {"stem", "trial", "evaluate"}
    assert {"candidates", "soup", "ensemble", "basin", "compare", "collect"} <= plan.keys()
    # All files that the jobs of the study write, those that are up to date among them.
    summary = snakemake(demo, "--summary", config=study).splitlines()
    files = " ".join(line.partition("\t")[0] for line in summary)
    assert all(trial in files for trial in kept)
    assert not any(trial in files for trial in removed)
    assert set(trials_of(demo)) == kept | removed


def test_results_record_the_study_file(demo: Path) -> None:
    assert recorded_studies(demo / "results") == [(REPOSITORY / "config.yaml",)]


def test_fewer_recipes_train_nothing(demo: Path, tmp_path: Path) -> None:
    soup = {"recipes": ["greedy"], "weights": ["averaged", "raw"]}
    study = write_study(tmp_path / "soup.yaml", soup=soup)
    printed = snakemake(demo, "-n", "--quiet", "rules", "--cores", "1", config=study)
    # One post-processing serves all that is compared, which are fewer now.
    assert planned(printed) == {
        "postprocessing": 2,
        "evaluate_soups": 2,
        "case_slices": 1,
        "compare": 1,
        "figures": 1,
        "basins": 1,
        "collect": 1,
        "methods": 1,
        "run_times": 1,
        "report": 1,
        "bundle": 1,
        "manifest": 1,
        "all": 1,
        "total": 15,
    }


@pytest.mark.parametrize("example", sorted((REPOSITORY / "examples").glob("*.yaml")))
def test_examples_can_be_planned(example: Path, tmp_path: Path) -> None:
    printed = snakemake(tmp_path, "-n", "--quiet", "rules", "--cores", "1", config=example)
    assert "trial" in printed


def test_the_full_size_example_has_over_a_hundred_runs(tmp_path: Path) -> None:
    printed = snakemake(
        tmp_path,
        "-n",
        "--quiet",
        "rules",
        "--cores",
        "1",
        config=REPOSITORY / "examples" / "brats2024.yaml",
    )
    counts = planned(printed)
    assert counts["trial"] + counts["stem"] > 100


def test_the_rule_graph_is_drawn(tmp_path: Path) -> None:
    dot = shutil.which("dot")
    if dot is None:
        assert "CI" not in os.environ, "CI has to install graphviz"
        pytest.skip("graphviz is not installed")
    config = ["--configfile", str(REPOSITORY / "config.yaml"), "--rulegraph"]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    graph = subprocess.run([*command, *config], cwd=tmp_path, capture_output=True, check=True)
    picture = subprocess.run([dot, "-Tsvg"], input=graph.stdout, capture_output=True, check=True)
    for rule in ("phantom", "index", "folds", "preprocess", "stem", "trial", "evaluate", "soup"):
        assert f">{rule}</text>".encode() in picture.stdout


def test_a_mistake_in_the_study_stops_before_any_job(tmp_path: Path) -> None:
    study = write_study(tmp_path / "wrong.yaml", optimiser={"lr": 0.1})
    printed = snakemake(tmp_path, "-n", config=study, succeeds=False)
    assert "`optimiser`: there is no such key; did you mean `optimizer`?" in printed
    assert "Traceback" not in printed


def test_a_missing_data_set_stops_before_any_job(tmp_path: Path) -> None:
    dataset = {"layout": "brats", "root": "nowhere", "channels": ["t1n"]}
    study = write_study(tmp_path / "wrong.yaml", dataset=dataset)
    printed = snakemake(tmp_path, "--cores", "1", config=study, succeeds=False)
    assert "there is no folder nowhere" in printed
    assert "correct `dataset.root`" in printed
    assert not (tmp_path / "results" / "logs").exists()


def test_a_checkpoint_that_does_not_fit_stops_before_any_job(tmp_path: Path) -> None:
    import torch

    weight_files.save(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, {})
    study = write_study(tmp_path / "wrong.yaml", stem="other.safetensors")
    printed = snakemake(tmp_path, "--cores", "1", config=study, succeeds=False)
    assert "other.safetensors: does not fit the network" in printed
    assert not (tmp_path / "results" / "logs").exists()


def test_a_training_far_above_the_cards_memory_stops_before_any_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 'Toy, 64'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{driver.parent}:{os.environ['PATH']}")
    study = write_study(tmp_path / "study.yaml")
    printed = snakemake(tmp_path, "--cores", "1", config=study, succeeds=False)
    assert "times the 0.06 GiB of Toy (this machine)" in printed
    assert "`resources.accept_gpu_memory: true` starts it nevertheless" in printed
    assert not (tmp_path / "results" / "logs").exists()


def test_a_bad_case_is_named_and_finished_work_is_kept(demo: Path, tmp_path: Path) -> None:
    phantom = tmp_path / "data"
    subprocess.run(["cp", "-r", str(demo / "results" / "phantom"), str(phantom)], check=True)
    dataset = {"layout": "brats", "root": "data", "channels": ["t1n", "t1c", "t2w", "t2f"]}
    study = write_study(tmp_path / "study.yaml", dataset=dataset)
    snakemake(tmp_path, "--cores", "1", "results/preprocessed.tsv", config=study)
    kept = sorted((tmp_path / "results" / "preprocessed").iterdir())

    broken = phantom / "Phantom-0001-000" / "Phantom-0001-000-t1c.nii.gz"
    broken.write_bytes(broken.read_bytes()[:1000])
    printed = snakemake(
        tmp_path, "--cores", "1", "results/preprocessed.tsv", config=study, succeeds=False
    )
    assert "Phantom-0001-000-t1c.nii.gz" in printed
    assert "fix:" in printed
    assert sorted((tmp_path / "results" / "preprocessed").iterdir()) == kept
