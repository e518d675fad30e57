"""Studies of other kinds than the shipped one, run through the workflow on a tiny phantom."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from support.workflows import REPOSITORY, planned, snakemake, write_study
from voxelsoup.commands.verify import verify
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, sha256
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.deploy.file_manifest import read_entries
from voxelsoup.evaluation.case_scores import mean_dice, read_rows
from voxelsoup.models import weight_files
from voxelsoup.soups.candidates import read_candidates
from voxelsoup.soups.soup import rebuild
from voxelsoup.status.study_status import StatusReader
from voxelsoup.study.loading import read
from voxelsoup.study.sections.data import Phantom
from voxelsoup.study.trials import trial_labels, trials

PROFILE = ["--profile", str(REPOSITORY / "profiles" / "local")]
# What BraTS called its contrasts up to 2021, when the enhancing tumour was label 4.
CONTRASTS = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
TRAINING = {"patch": [16, 16, 16], "epochs": 1, "steps_per_epoch": 2}
DIVERGES = {"optimizer.lr": 1e30}
NETWORK = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2]}}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine cases of eight patients."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(folder, Phantom(cases=9, shape=[24, 28, 24]))
    return folder


def volumes_of(case: Path) -> dict[str, nib.Nifti1Image]:
    return {end: nib.load(case / f"{case.name}-{end}.nii.gz") for end in (*CONTRASTS, "seg")}


def write_brats_2021(phantom: Path, root: Path) -> list[str]:
    names = []
    for number, case in enumerate(sorted(phantom.iterdir())):
        name = f"BraTS2021_{number:05d}"
        (root / name).mkdir(parents=True)
        for end, image in volumes_of(case).items():
            voxels = np.asarray(image.dataobj)
            if end == "seg":
                voxels = np.where(voxels == 3, 4, voxels).astype(np.float32)
            file = f"{name}_{CONTRASTS.get(end, end)}.nii" + ("" if number % 2 else ".gz")
            nib.save(nib.Nifti1Image(voxels, image.affine), root / name / file)
        names.append(name)
    return names


def write_nnunet(phantom: Path, root: Path) -> list[str]:
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in phantom.iterdir():
        *images, label = volumes_of(case).values()
        for number, image in enumerate(images):
            nib.save(image, root / "imagesTr" / f"{case.name}_{number:04d}.nii.gz")
        nib.save(label, root / "labelsTr" / f"{case.name}.nii.gz")
    channels = {str(number): name for number, name in enumerate(CONTRASTS.values())}
    description = {"channel_names": channels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
    return sorted(case.name for case in phantom.iterdir())


def dataset(layout: str, **settings: Any) -> dict[str, Any]:
    return {"layout": layout, "root": "data", "channels": [*CONTRASTS.values()], **settings}


@pytest.fixture(scope="module")
def published(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study as a BraTS 2021 team has it, with one case that was cut off on its way, and beside
    its models another tool, whose label maps of the test cases are the ground truth.
    """
    folder = tmp_path_factory.mktemp("published")
    names = write_brats_2021(phantom, folder / "data")
    (folder / "maps").mkdir()
    for name in (names[2], names[4], names[6]):
        (label,) = (folder / "data" / name).glob("*_seg.*")
        (folder / "maps" / label.name.replace("_seg", "")).write_bytes(label.read_bytes())
    broken = folder / "data" / names[0] / f"{names[0]}_t1ce.nii.gz"
    broken.write_bytes(broken.read_bytes()[:500])
    entries = [
        {"image": [f"TrainingData/{name}/{name}_t1.nii.gz"], "fold": number % 2}
        for number, name in enumerate(names)
    ]
    entries[7]["fold"] = -1
    del entries[8]["fold"]
    (folder / "datalist.json").write_text(json.dumps({"training": entries}))
    rows = [f"{name},{name if number < 7 else 'both'}" for number, name in enumerate(names)]
    (folder / "patients.csv").write_text("\n".join(["case,patient", *rows]))
    study = write_study(
        folder / "study.yaml",
        dataset=dataset("brats", patients="patients.csv", on_bad_case="skip"),
        regions={"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]},
        folds={"file": "datalist.json", "count": 2, "run": [0]},
        evaluation={"protocol": "published", "overlap": 0.0},
        network=NETWORK,
        training=TRAINING,
        stem="none",
        sweep={
            "grid": {"optimizer.schedule": ["schedule-free", "polynomial"]},
            "trials": [DIVERGES],
        },
        soup={"recipes": ["greedy"]},
        comparison={"other_tools": {"nnU-Net": "maps"}},
    )
    (folder / "printed.txt").write_text(snakemake(folder, *PROFILE, config=study))
    return folder


def test_label_maps_of_another_tool_stand_beside_the_models_as_what_they_are(
    published: Path,
) -> None:
    results = published / "results"
    rows = pd.read_csv(results / "comparison" / "overview.csv").set_index(["model", "region"])
    tool = rows.loc["nnU-Net (other tool)"]
    # The data set's own values: 4 is the enhancing tumour.
    assert tool["dice_mean"].to_dict() == {"mean": 1, "TC": 1, "WT": 1, "ET": 1}
    assert tool.loc["mean", ["loss_mean", "training_steps"]].isna().all()
    assert tool.loc["mean", ["ingredients", "models_per_prediction"]].tolist() == ["–", "–"]
    pairs = pd.read_csv(results / "comparison" / "other_tools.csv").dropna(subset="p_holm")
    assert pairs[["first", "second"]].to_numpy().tolist() == [
        ["Greedy Soup", "nnU-Net"],
        ["Best Model", "nnU-Net"],
    ]
    (best,) = pairs[pairs["first"] == "Best Model"]["difference"]
    assert best == pytest.approx(-tool.loc["mean", "dice_difference"])
    printed = (published / "printed.txt").read_text()
    assert "nnU-Net" in printed and "greedy soup and nnU-Net (" in printed
    assert "Label maps that nnU-Net had made" in (results / "report" / "methods.md").read_text()
    assert "other tools" in (results / "report.html").read_text()


def test_a_given_split_passes_over_the_case_that_cannot_be_used(published: Path) -> None:
    rejected = pd.read_csv(published / "results" / "rejected.tsv", sep="\t")
    assert rejected["case"].tolist() == ["BraTS2021_00000"]
    fold = json.loads((published / "results" / "folds.json").read_text())["folds"]["0"]
    assert fold["test"] == fold["selection"] == [f"BraTS2021_0000{number}" for number in (2, 4, 6)]
    assert fold["training"] == [f"BraTS2021_0000{number}" for number in (1, 3, 5, 7, 8)]
    log = (published / "results" / "logs" / "folds.log").read_text()
    assert "case BraTS2021_00000 is left out" in log


def test_every_number_of_the_published_protocol_is_marked(published: Path) -> None:
    results = published / "results"
    # No seed is swept: that table has no numbers.
    tables = [f for f in (results / "comparison").iterdir() if f.name != "seeds.csv"]
    # Training losses are of training cases. What a PNG shows is what the SVG of its name says.
    figures = [
        f
        for f in (results / "figures").iterdir()
        if f.suffix != ".png" and f.stem != "training_curves"
    ]
    assert (len(tables), len(figures)) == (37, 2 * 7)
    shown = [*tables, *figures, results / "models" / "manifest.tsv"]
    for file in shown:
        assert "optimistic" in file.read_text().lower(), file
    assert OPTIMISTIC in (published / "printed.txt").read_text().lower()
    assert "All numbers are optimistic" in (results / "report.html").read_text()


def test_a_study_goes_on_without_a_trial_that_diverges(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(published)
    results = published / "results"
    found = trials(read(published / "study.yaml"))
    *trained, diverged = (trial.id for trial in found)
    of_fold = results / "fold0"
    models = [one.model for one in read_candidates(of_fold / "candidates.tsv")]
    assert models == sorted(trained)
    folder = of_fold / "trials" / diverged
    assert read_json(folder / "run.json")["diverged"] == {"epoch": 1, "step": 2}
    assert pd.read_csv(folder / "selection.csv").empty
    with pytest.raises(InputError, match="its run diverged"):
        weight_files.load(folder / "model.safetensors")
    # It stands where a reader looks for it.
    label = trial_labels(found)[diverged]
    left_out = f"{label} in fold 0 at epoch 1, step 2"
    for file in ("comparison/answer.html", "comparison/fold0.md", "comparison/hyperparameters.md"):
        assert left_out in (results / file).read_text(), file
    methods = (results / "report/methods.md").read_text()
    assert "3 trials per fold, 2 trained models in all" in methods and left_out in methods
    rows = {row.run: row for row in StatusReader(published / "study.yaml").look().rows}
    assert (rows[diverged].state, rows[diverged].detail) == ("diverged", "at epoch 1, step 2")
    listed = {entry.file for entry in read_entries(results / "provenance.tsv")}
    assert f"fold0/trials/{diverged}/model.safetensors" in listed
    assert not verify(results, published / "data")


def test_a_study_without_a_stem_trains_none(published: Path) -> None:
    assert not (published / "results" / "fold0" / "stem").exists()
    manifest = pd.read_csv(published / "results" / "models" / "manifest.tsv", sep="\t")
    assert manifest["kind"].tolist() == ["trial", "trial", "soup"]


def test_only_a_scan_of_other_content_is_prepared_again_and_only_its_runs_train(
    published: Path, tmp_path: Path
) -> None:
    subprocess.run(["cp", "-a", f"{published}/.", str(tmp_path)], check=True)
    results, study = tmp_path / "results", tmp_path / "study.yaml"
    fold = read_json(results / "folds.json")["folds"]["0"]
    # One stands for all.
    trials = [one.model for one in read_candidates(results / "fold0" / "candidates.tsv")][:1]
    targets = [f"results/fold0/trials/{trial}/model.safetensors" for trial in trials]

    def again() -> tuple[set[str], set[str]]:
        """Which cases a further start prepares, and which trials it trains a step of."""
        prepared = {p: p.stat().st_mtime_ns for p in (results / "preprocessed").glob("*.json")}
        logs = {trial: results / "logs" / "fold0" / "trials" / f"{trial}.log" for trial in trials}
        for log in logs.values():
            log.unlink()
            log.touch()
        snakemake(tmp_path, *PROFILE, *targets, config=study)
        changed = {p.stem for p, time in prepared.items() if p.stat().st_mtime_ns != time}
        return changed, {t for t, log in logs.items() if "epoch 1 of 1" in log.read_text()}

    def edit(case: str) -> None:
        file = next((tmp_path / "data" / case).glob("*_t1ce.*"))
        image = nib.load(file)
        # Another contrast: one that is only brighter would be normalised to the same voxels.
        nib.save(nib.Nifti1Image(np.sqrt(np.asarray(image.dataobj)), image.affine), file)

    for file in (tmp_path / "data").rglob("*_t1.*"):
        file.touch()
    assert again() == (set(), set())
    edit(fold["test"][0])
    assert again() == ({fold["test"][0]}, set())
    edit(fold["training"][0])
    assert again() == ({fold["training"][0]}, set(trials))


def test_fine_tuning_of_a_checkpoint_on_nnunets_folders_and_folds(
    phantom: Path, published: Path, tmp_path: Path
) -> None:
    names = write_nnunet(phantom, tmp_path / "data")
    split = [{"train": names[3:], "val": names[:3]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(split))
    (checkpoint,) = (published / "results" / "models").glob("*soup_greedy*")
    study = write_study(
        tmp_path / "study.yaml",
        dataset=dataset("nnunet"),
        folds={"file": "splits_final.json", "count": 2, "run": [0]},
        network=NETWORK,
        training=TRAINING,
        stem=str(checkpoint),
        sweep={"grid": {}},
    )
    run = "results/fold0/trials/44136fa3/run.json"
    snakemake(tmp_path, *PROFILE, run, config=study)
    assert json.loads((tmp_path / run).read_text())["initial_sha256"] == sha256(checkpoint)
    folds = json.loads((tmp_path / "results" / "folds.json").read_text())["folds"]["0"]
    assert folds["test"] == names[:3]


def write_with_ensemble(
    file: Path, recipes: list[str], long_run: bool = False, **soup: Any
) -> Path:
    """A study of one fold and three trials."""
    return write_study(
        file,
        dataset={
            "layout": "phantom",
            "channels": ["t1n", "t1c", "t2w", "t2f"],
            "phantom": {"cases": 8, "shape": [24, 28, 24]},
        },
        folds={"count": 2, "run": [0], "selection_share": 0.4},
        network=NETWORK,
        training=TRAINING,
        stem="none",
        sweep={"grid": {"optimizer.lr": [0.01, 0.02, 0.03]}},
        soup={"recipes": recipes, **soup},
        **({"comparison": {"long_run": True}, "final": True} if long_run else {}),
    )


SOUPS = ["greedy", "uniform"]
ALL_RECIPES = [*SOUPS, "ensemble"]
FINISHED = ["finished", "finished-best", "long-run"]
ENSEMBLE = Path("results/fold0/soups/ensemble")


@pytest.fixture(scope="module")
def with_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that sets an ensemble beside its soups."""
    folder = tmp_path_factory.mktemp("ensemble")
    finish = {"rates": [0.01, 0.003]}
    study = write_with_ensemble(folder / "study.yaml", ALL_RECIPES, long_run=True, finish=finish)
    (folder / "printed.txt").write_text(snakemake(folder, *PROFILE, config=study))
    return folder


def test_an_ensemble_is_scored_like_a_model_and_writes_no_weights(with_ensemble: Path) -> None:
    folder = with_ensemble / ENSEMBLE
    assert sorted(file.name for file in folder.iterdir()) == [
        "postprocessed.csv",
        "recipe.json",
        "selection.csv",
        "test.csv",
    ]
    fold = read_json(with_ensemble / "results/folds.json")["folds"]["0"]
    record, rows = read_json(folder / "recipe.json"), read_rows(folder / "selection.csv")
    assert rows["case"].unique().tolist() == fold["selection"]
    assert read_rows(folder / "test.csv")["case"].unique().tolist() == fold["test"]
    assert record["score"] == mean_dice(rows)
    assert record["models_per_prediction"] == len(record["ingredients"]) == 3
    assert record["case_inferences"] == 3 * len([*fold["selection"], *fold["test"]])
    assert record["seconds_per_case"]["ensemble"] > record["seconds_per_case"]["one_model"] > 0
    manifest = pd.read_csv(with_ensemble / "results/models/manifest.tsv", sep="\t")
    assert "ensemble" not in set(manifest["trial"]) and "greedy" in set(manifest["trial"])


def test_a_finished_model_comes_from_the_rate_that_scored_best_on_selection_cases(
    with_ensemble: Path,
) -> None:
    fold = with_ensemble / "results/fold0"
    for name, start in (("finished", "greedy"), ("finished-best", "best")):
        record, rows = read_json(fold / f"soups/{name}/recipe.json"), fold / f"soups/{name}"
        tried = {one["lr"]: one["selection_score"] for one in record["finish"]["tried"]}
        assert list(tried) == [0.01, 0.003]
        assert record["of"] == start and record["score"] == max(tried.values())
        assert record["score"] == mean_dice(read_rows(rows / "selection.csv"))
        chosen = fold / f"finish/{start}/{record['finish']['lr']}"
        digest = sha256(chosen / "model.safetensors")
        assert sha256(rows / "model.safetensors") == digest
        run = read_json(chosen / "run.json")
        began = fold / ("best" if start == "best" else f"soups/{start}") / "model.safetensors"
        assert run["initial_sha256"] == sha256(began) != digest
        assert run["settings"]["finish"] == {"ensemble_share": 0.5}
        assert run["settings"]["optimizer"]["lr"] == record["finish"]["lr"]
    kept = [part["trial"] for part in read_json(fold / "soups/greedy/recipe.json")["ingredients"]]
    record = read_json(fold / "soups/finished/recipe.json")
    assert [part["trial"] for part in record["ingredients"]] == kept
    cases = read_json(with_ensemble / "results/folds.json")["folds"]["0"]
    targets = with_ensemble / "results/.state/fold0/targets"
    assert sorted(path.stem for path in targets.glob("*.npy")) == cases["training"]


def test_finished_models_and_the_long_run_stand_in_every_table(with_ensemble: Path) -> None:
    results = with_ensemble / "results"
    titles = {"Finished Soup", "Finished Best Model", "Long Run"}
    for table in ("overview", "overview_postprocessed"):
        rows = pd.read_csv(results / f"comparison/{table}.csv")
        assert titles <= set(rows["model"])
    manifest = pd.read_csv(results / "models/manifest.tsv", sep="\t")
    assert {*FINISHED} <= set(manifest["trial"])
    for name in FINISHED:
        assert (results / f"figures/differences_{name}.svg").exists()
        scores = read_rows(results / f"fold0/soups/{name}/test.csv")
        assert {"hd95", "lesion_dice"} <= set(scores.columns)
    # One epoch of each of three trials, and of a finish with each of two rates; there is no stem.
    assert read_json(results / "fold0/soups/long-run/run.json")["epochs"] == 5


def test_the_final_model_is_made_of_what_greedy_kept_and_is_what_is_handed_over(
    with_ensemble: Path,
) -> None:
    final, fold = with_ensemble / "results/final", with_ensemble / "results/fold0"
    plan, record = read_json(final / "plan.json"), read_json(final / "recipe.json")
    kept = {one["trial"] for one in read_json(fold / "soups/greedy/recipe.json")["ingredients"]}
    assert {one["model"] for one in plan["models"]} == kept
    (cases,) = read_json(final / "folds.json")["folds"].values()
    parts = read_json(with_ensemble / "results/folds.json")["folds"]["0"]
    assert cases["training"] == sorted(case for part in parts.values() for case in part)
    targets = with_ensemble / "results/.state/final/targets"
    assert sorted(path.stem for path in targets.glob("*.npy")) == cases["training"]
    run = read_json(final / "finish/run.json")
    assert run["training_cases"] == record["training_cases"] == len(cases["training"])
    assert run["initial_sha256"] == sha256(final / "soup/model.safetensors")
    digest = sha256(final / "model.safetensors")
    assert digest == record["sha256"] == sha256(final / "finish/model.safetensors")
    # Its expected score is that of the finished soup of the only fold.
    expected = record["expected"]["mean"]["dice"]
    assert expected == pytest.approx(mean_dice(read_rows(fold / "soups/finished/test.csv")))
    bundle = with_ensemble / "results/bundle"
    assert sha256(bundle / "models/model.safetensors") == digest
    card = (bundle / "docs/README.md").read_text()
    assert all(sentence in card for sentence in record["statement"])
    rows = pd.read_csv(with_ensemble / "results/provenance.tsv", sep="\t")
    assert "final/model.safetensors" in set(rows["file"])


@pytest.mark.parametrize("recipe", SOUPS)
def test_every_soup_rebuilt_from_its_recipe_is_bit_identical(
    with_ensemble: Path, recipe: str
) -> None:
    folder = with_ensemble / f"results/fold0/soups/{recipe}"
    again = rebuild(read_json(folder / "recipe.json"), with_ensemble)
    saved, _ = weight_files.load(folder / "model.safetensors")
    assert again.keys() == saved.keys()
    assert all(torch.equal(again[name], value) for name, value in saved.items())


def test_the_ensemble_and_its_cost_are_shown_beside_the_soups(with_ensemble: Path) -> None:
    results = with_ensemble / "results"
    scored = mean_dice(read_rows(with_ensemble / ENSEMBLE / "test.csv"))
    overview = pd.read_csv(
        results / "comparison/overview.csv", index_col=[0, 1], float_precision="round_trip"
    )
    assert overview.loc[("Ensemble", "mean"), "dice_mean"] == pytest.approx(scored, rel=1e-12)
    assert overview.loc[("Ensemble", "mean"), "models_per_prediction"] == 3
    assert overview.loc[("Greedy Soup", "mean"), "models_per_prediction"] == 1
    printed = (with_ensemble / "printed.txt").read_text()
    assert "Ensemble" in printed and "models per" in printed
    page = (results / "report.html").read_text()
    assert '{"result": "ensemble, fold 0"}' in page
    assert "averages the probabilities of the models instead of their weights" in page
    assert "a <em>soup</em> (greedy, uniform)" in page
    assert "<!-- Ensemble -->" in (results / "figures/selection_against_test.svg").read_text()
    again = snakemake(with_ensemble, *PROFILE, config=with_ensemble / "study.yaml")
    assert "Nothing to be done" in again


# What shows the scores of an ensemble and of soups.
SCORED = {"postprocessing": 1, "evaluate_soups": 1, "ensemble": 1}
SHOWN = (
    *("basins", "case_slices", "collect", "compare", "figures", "methods", "run_times", "report"),
    *("final", "bundle", "manifest"),
)


# What starts from the soups: runs find that they are trained, and targets that they are there.
AGAIN = {"finish_targets": 1, "finish": 4, "finished": 2}
AGAIN |= dict.fromkeys(("final_plan", "final_soup", "final_targets", "final_finish"), 1)


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        # Soups are made again from the scores that they were made by.
        (
            {"metrics": {"surface_tolerance": 2.0}},
            {"evaluate": 3, "candidates": 1, "best": 1, "soup": 2, "basin": 1, **SCORED, **AGAIN},
        ),
        ({"postprocessing": {"thresholds": [0.2, 0.5]}}, SCORED),
    ],
    ids=["metrics", "post-processing"],
)
def test_changed_scoring_repeats_no_model(
    with_ensemble: Path, tmp_path: Path, changes: dict[str, Any], jobs: dict[str, int]
) -> None:
    study = yaml.safe_load((with_ensemble / "study.yaml").read_text())
    for section, values in changes.items():
        study[section] = study.get(section, {}) | values
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    plan = snakemake(
        with_ensemble, "-n", "--quiet", "rules", "--cores", "1", config=tmp_path / "changed.yaml"
    )
    found = planned(plan)
    assert found.pop("total") == sum(found.values())
    assert found == jobs | dict.fromkeys((*SHOWN, "all"), 1)


def test_test_scores_have_all_metrics_and_selection_scores_have_none(with_ensemble: Path) -> None:
    fold = with_ensemble / "results/fold0"
    cases = read_json(with_ensemble / "results/folds.json")["folds"]["0"]
    metrics = ["hd95", "nsd", "sensitivity", "precision", "lesion_dice", "lesion_hd95"]
    models = [*(fold / "trials").iterdir(), *(fold / "soups").iterdir()]
    assert len(models) == 3 + len(ALL_RECIPES) + len(FINISHED)
    for model in models:
        rows = read_rows(model / "selection.csv")
        assert list(rows.columns) == ["case", "region", "dice", "loss"]
        assert sorted(set(rows["case"])) == sorted(cases["selection"])
    tests = [model / "test.csv" for model in [*models, fold / "best"]]
    tests += [model / "postprocessed.csv" for model in [fold / "best", *(fold / "soups").iterdir()]]
    for file in tests:
        rows = read_rows(file)
        assert list(rows.columns) == ["case", "region", "dice", "loss", *metrics], file
        assert sorted(set(rows["case"])) == sorted(cases["test"])
        assert rows.notna().all(axis=None)


def test_the_best_model_is_that_of_the_selection_cases_with_its_scores(with_ensemble: Path) -> None:
    fold = with_ensemble / "results/fold0"
    scores = {
        trial: mean_dice(read_rows(trial / "selection.csv"))
        for trial in sorted((fold / "trials").iterdir())
    }
    best = max(scores, key=lambda trial: scores[trial])
    assert len(set(scores.values())) == 3
    for name in ("model.safetensors", "test.csv"):
        assert sha256(fold / "best" / name) == sha256(best / name)
    # Predictions lie on the disk only while a post-processing is chosen.
    assert (
        read_json(fold / "postprocessing.json")["cases"]
        == read_rows(best / "selection.csv")["case"].nunique()
    )
    assert not (with_ensemble / "results/.state/fold0/predictions").exists()


def test_an_interrupted_ensemble_evaluates_no_case_again(with_ensemble: Path) -> None:
    folder = with_ensemble / ENSEMBLE
    before = (folder / "test.csv").read_bytes()
    kept = with_ensemble / "results/.state/fold0/ensemble.jsonl"
    lines = kept.read_text().splitlines()
    assert len(lines) == read_json(folder / "recipe.json")["case_inferences"] / 3
    # Killed while it wrote down its second last case.
    kept.write_text("\n".join([*lines[:-2], lines[-2][:40]]) + "\n")
    for file in folder.iterdir():
        file.unlink()
    snakemake(
        with_ensemble, *PROFILE, str(ENSEMBLE / "test.csv"), config=with_ensemble / "study.yaml"
    )
    assert read_json(folder / "recipe.json")["case_inferences"] == 2 * 3
    assert (folder / "test.csv").read_bytes() == before


def test_an_ensemble_may_use_the_ingredients_of_a_soup(with_ensemble: Path, tmp_path: Path) -> None:
    study = write_with_ensemble(tmp_path / "kept.yaml", ALL_RECIPES, ensemble_of="greedy")
    plan = snakemake(with_ensemble, "-n", "--quiet", "rules", "--cores", "1", config=study)
    assert planned(plan)["ensemble"] == 1 and "soup" not in planned(plan)
    snakemake(with_ensemble, *PROFILE, str(ENSEMBLE / "recipe.json"), config=study)
    soup = read_json(with_ensemble / "results/fold0/soups/greedy/recipe.json")
    record = read_json(with_ensemble / ENSEMBLE / "recipe.json")
    assert record["ensemble_of"] == "greedy"
    kept = {part["trial"]: part["sha256"] for part in soup["ingredients"]}
    assert {part["trial"]: part["sha256"] for part in record["ingredients"]} == kept
    assert record["models_per_prediction"] == len(kept)


def test_an_ensemble_without_any_soup_can_be_planned(tmp_path: Path) -> None:
    study = write_with_ensemble(tmp_path / "alone.yaml", ["ensemble"])
    plan = snakemake(tmp_path, "-n", "--quiet", "rules", "--cores", "1", config=study)
    assert planned(plan)["ensemble"] == 1
    assert not {"soup"} & planned(plan).keys()
