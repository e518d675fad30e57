"""Does a finished soup pay? The workflow itself on real scans, against all that it has to beat.

For each data set and training seed one study with three folds: a stem, trials, soups, their
ensemble, the finished soup, and as controls the best single model finished in the same way and one
long run with all their steps. Everything is chosen on selection cases and scored once on test
cases. After each fold the figures are written to ``FOLDER/soup_gain.json``; started again, the
bench goes on where it was.

    python bench/soup_gain.py FOLDER [--data hippocampus acdc] [--seeds 0 1]

The last line is one JSON object for each data set, all seeds together, in Dice points:

    gain_dice              finished soup minus best single model, mean over the test cases
    ci_low, ci_high        95 % bootstrap of the cases (patients, where they have several) in folds
    vs_ensemble, vs_long_run, vs_finished_single
                           finished soup minus each of these, likewise [mean, low, high]
    rows                   every compared model minus the best single one, likewise
    data, folds, cases, seeds, minutes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

FOLDS = 3
RECIPES = ["greedy", "uniform", "ensemble"]
# Not a recipe of the project: the stem is its anchor.
STOCK = "model-stock"
RESAMPLES = 10_000
POINTS = 100
# What the shipped examples do not say, the same for all folds and seeds.
STUDIES: dict[str, dict[str, Any]] = {
    "hippocampus": {"soup": {"finish": {"rates": [0.01], "epochs": 21}}},
    "acdc": {"soup": {"finish": {"rates": [0.002], "epochs": 9}}},
}
# Nothing that decides between models.
FIXED = {"postprocessing": {"thresholds": [0.5], "smallest_components": [0]}}


def study_of(name: str, seed: int, results: Path) -> dict[str, Any]:
    """The shipped example with a training seed, all recipes, a finish and a long run."""
    study: dict[str, Any] = yaml.safe_load((REPOSITORY / "examples" / f"{name}.yaml").read_text())
    root = REPOSITORY / study["dataset"]["root"]
    grid = study["sweep"]["grid"]
    seeds = [seed * 10 + one for one in grid["training.seed"]]
    return {
        **study,
        **FIXED,
        "results": str(results),
        "dataset": study["dataset"] | {"root": str(root)},
        "training": study["training"] | {"seed": seed * 10},
        "sweep": {"grid": grid | {"training.seed": seeds}},
        "soup": {"recipes": RECIPES, **STUDIES[name]["soup"]},
        "comparison": {"long_run": True},
    }


def run_fold(study: Path, results: Path, fold: int, models: list[str]) -> None:
    """Train and score a fold, or what is missing of it, with the workflow itself."""
    scores = [results / f"fold{fold}" / model / "test.csv" for model in models]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--configfile", str(study), "--cores", "2", "--quiet", "all", "--retries", "1"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    targets = [str(path) for path in scores]
    subprocess.run([*command, *targets], check=True, cwd=REPOSITORY, env=environment)


def score_model_stock(study: Path, results: Path, fold: int) -> None:
    """Score the trials' average, drawn towards the stem layer by layer, on a fold's test cases.

    Jang, Yun and Han, Model Stock: all we need is just a few fine-tuned models, ECCV 2024, eq. 3:
    of N trials whose differences from the stem have the mean cosine c, a layer is t times their
    average and 1 - t times the stem, t = N c / (1 + (N - 1) c). Its scores are kept.
    """
    scores = results / f"fold{fold}" / STOCK / "test.csv"
    if scores.exists():
        return
    import torch

    from voxelsoup.data.preprocessing.intensities import study_of_fold
    from voxelsoup.evaluation.case_scores import write_rows
    from voxelsoup.evaluation.score import model_of, score_cases
    from voxelsoup.models import weight_files
    from voxelsoup.soups.soup import ingredients_of_fold

    of_fold, folder = results / f"fold{fold}", results / "preprocessed"
    content = yaml.safe_load(study.read_text())
    checked, parts = study_of_fold(content, results / "folds.json", fold, folder)
    stem = weight_files.load(of_fold / "stem" / "model.safetensors")[0]
    found = ingredients_of_fold(of_fold / "candidates.tsv")
    trials = [weight_files.load(one.path)[0] for one in found]
    mixed = {}
    for name, start in stem.items():
        moved = torch.stack([(trial[name] - start).double().flatten() for trial in trials])
        units = moved / moved.norm(dim=1, keepdim=True).clamp_min(1e-12)
        count = len(trials)
        cosine = float(((units @ units.T).sum() - count) / (count * (count - 1)))
        share = max(0.0, count * cosine / (1 + (count - 1) * cosine))
        mixed[name] = (start + share * moved.mean(dim=0).reshape(start.shape)).to(start.dtype)
    device = torch.device("cpu")
    model = model_of(mixed, checked, device, scores)
    scores.parent.mkdir(parents=True, exist_ok=True)
    write_rows(scores, score_cases(model, sorted(parts["test"]), folder, checked, device))


def scores_of_fold(results: Path, fold: int, models: list[str]) -> pd.DataFrame:
    """Mean Dice over the regions: a row per test case, a column per model."""
    found = {}
    for model in models:
        rows = pd.read_csv(results / f"fold{fold}" / model / "test.csv")
        found[model.rpartition("/")[2]] = rows.groupby("case")["dice"].mean()
    return pd.DataFrame(found).assign(fold=fold).reset_index()


def interval(differences: pd.Series, fold: pd.Series, patient: pd.Series) -> list[float]:
    """Mean with its 95 % percentile bootstrap, in Dice points; patients are drawn within folds."""
    by_patient = pd.DataFrame({"d": differences, "fold": fold, "patient": patient})
    sums = by_patient.groupby(["fold", "patient"])["d"].agg(["sum", "count"]).reset_index()
    random, totals, counts = np.random.default_rng(0), np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for _, part in sums.groupby("fold"):
        drawn = random.integers(len(part), size=(RESAMPLES, len(part)))
        totals += part["sum"].to_numpy()[drawn].sum(axis=1)
        counts += part["count"].to_numpy()[drawn].sum(axis=1)
    low, high = np.quantile(totals / counts, [0.025, 0.975])
    return [round(POINTS * float(value), 3) for value in (differences.mean(), low, high)]


def figures(scores: pd.DataFrame, patient: pd.Series) -> dict[str, Any]:
    """The figures of a data set: cases of several seeds are averaged over the seeds first."""
    models = [column for column in scores if column not in ("case", "fold", "seed")]
    cases = scores.groupby(["fold", "case"])[models].mean().reset_index()
    who = cases["case"].map(patient)

    def minus(first: str, second: str) -> list[float]:
        return interval(cases[first] - cases[second], cases["fold"], who)

    gain, low, high = minus("finished", "best")
    return {
        "gain_dice": gain,
        "ci_low": low,
        "ci_high": high,
        "vs_ensemble": minus("finished", "ensemble"),
        "vs_long_run": minus("finished", "long-run"),
        "vs_finished_single": minus("finished", "finished-best"),
        "best_dice": round(float(cases["best"].mean()), 4),
        "rows": {model: minus(model, "best") for model in models if model != "best"},
        "by_seed": {
            int(seed): interval(
                part["finished"] - part["best"], part["fold"], part["case"].map(patient)
            )
            for seed, part in scores.groupby("seed")
        },
        "cases": len(cases),
    }


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write all figures so far."""
    temporary = folder / "soup_gain.json.new"
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    temporary.replace(folder / "soup_gain.json")


def main() -> None:
    """All data sets, seeds and folds, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    models = ["best", *(f"soups/{name}" for name in RECIPES)]
    models += [f"soups/{name}" for name in ("finished", "finished-best", "long-run")]
    record = folder / "soup_gain.json"
    found: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    for name in asked.data:
        scores: list[pd.DataFrame] = []
        minutes = found.get(name, {}).get("minutes", 0.0)
        for seed in asked.seeds:
            results, study = folder / f"{name}-{seed}", folder / f"{name}-{seed}.yaml"
            content = study_of(name, seed, results)
            study.write_text(yaml.safe_dump(content, sort_keys=False))
            for fold in asked.folds:
                began = time.monotonic()
                run_fold(study, results, fold, models)
                score_model_stock(study, results, fold)
                minutes += (time.monotonic() - began) / 60
                compared = [*models, STOCK]
                scores.append(scores_of_fold(results, fold, compared).assign(seed=seed))
                cases = pd.read_csv(results / "cases.tsv", sep="\t", dtype=str)
                patient = cases.set_index("case")["patient"]
                of_data = figures(pd.concat(scores), patient)
                ran = {"data": name, "folds": asked.folds, "seeds": asked.seeds}
                found[name] = {**ran, **of_data, "minutes": round(minutes, 1), "study": content}
                write(folder, found)
                shown = {key: of_data[key] for key in ("gain_dice", "ci_low", "ci_high")}
                print(f"{name}, seed {seed}, fold {fold}: {minutes:.0f} min, {shown}", flush=True)
    for of_data in found.values():
        print(json.dumps({key: value for key, value in of_data.items() if key != "study"}))


if __name__ == "__main__":
    main()
