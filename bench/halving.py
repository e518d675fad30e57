"""What successive halving spares, and what it costs in the final soup.

One study is run twice: halved, and with the full grid. The greedy soup of each fold is scored on
the test cases by both, and their difference is given with its interval. The full study resumes
from what the halved one has trained: a run at a rung is bit-identical to the beginning of the
complete run.

Without arguments a short form runs, of one fold and six trials. `--whole` takes the shipped
hippocampus example with twice as many seeds: 3 folds of 12 trials, half an hour and more on two
cores. The last line is one JSON object:

    epochs_share      epochs trained by the halved study's trials, as a share of the full grid's
    loss_dice         mean test Dice of the full grid's greedy soup minus the halved one's
    ci_low, ci_high   its 95 % interval over the test cases of all folds
    p                 Wilcoxon signed-rank, cases ranked within their fold
    folds, cases, trials
    accepted          ingredients of the soups: [full, halved] per fold
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from printing import print_figures

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REAL = REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"
HALVING = {"rungs": 2, "keep": 0.25}


def study_of(whole: bool) -> dict[str, Any]:
    """The study: the shipped example on real scans, or the shipped phantom where there are none."""
    example = REPOSITORY / ("examples/hippocampus.yaml" if REAL.is_dir() else "config.yaml")
    study: dict[str, Any] = yaml.safe_load(example.read_text())
    study["results"] = "results"
    if REAL.is_dir():
        study["dataset"]["root"] = str(REAL)
    study["training"] |= {"checkpoints": 1, "epochs": 9}
    study["optimizer"] |= {"schedule": "schedule-free"}
    seeds = list(range(4 if whole else 2))
    study["sweep"] = {"grid": {"optimizer.lr": [0.01, 0.03, 0.06], "training.seed": seeds}}
    study["soup"] = {"recipes": ["greedy"]}
    study["postprocessing"] = {"thresholds": [0.5], "smallest_components": [0]}
    study["metrics"] = {"names": []}
    study["evaluation"] = {"overlap": 0.25}
    if not whole:
        study["folds"] |= {"run": [0]}
        study["stem"] |= {"epochs": 4}
        study["training"] |= {"steps_per_epoch": 10}
    return study


def run(folder: Path, study: dict[str, Any], folds: list[int]) -> None:
    """Run a study up to the scores of its greedy soups."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += [f"results/fold{fold}/soups/greedy/test.csv" for fold in folds]
    command += ["--profile", str(REPOSITORY / "profiles" / "local"), "--configfile", "study.yaml"]
    with (folder / "printed.txt").open("w") as printed:
        done = subprocess.run(command, cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit((folder / "printed.txt").read_text()[-4000:])


def epochs_trained(folder: Path) -> int:
    """Epochs that all trials have trained, by their records."""
    from voxelsoup.runs.record import read_record

    found = map(read_record, folder.glob("results/.state/fold*/trials/*"))
    return sum(
        attempt.to_epoch - attempt.from_step * record.epoch // record.step
        for record in found
        if record
        for attempt in record.attempts
    )


def measure(folder: Path, whole: bool) -> dict[str, Any]:
    """All figures."""
    from voxelsoup.common.files import read_json
    from voxelsoup.comparison.statistics import paired_difference
    from voxelsoup.evaluation.case_scores import by_case, read_rows
    from voxelsoup.study.loading import load

    full = study_of(whole)
    folds = load(full).folds.numbers
    halved = full | {"sweep": full["sweep"] | {"halving": HALVING}}
    homes = {"halved": folder / "halved", "full": folder / "full"}
    homes["halved"].mkdir()
    run(homes["halved"], halved, folds)
    shutil.copytree(homes["halved"], homes["full"], symlinks=True)
    run(homes["full"], full, folds)
    scores, accepted = {}, []
    for fold in folds:
        soups = {name: home / f"results/fold{fold}/soups/greedy" for name, home in homes.items()}
        found = {name: by_case(read_rows(soup / "test.csv")) for name, soup in soups.items()}
        scores[fold] = (found["full"] - found["halved"]).to_numpy()
        records = [read_json(soups[name] / "recipe.json") for name in ("full", "halved")]
        accepted.append([len(record["ingredients"]) for record in records])
    difference = paired_difference(list(scores.values()))
    return {
        "epochs_share": round(epochs_trained(homes["halved"]) / epochs_trained(homes["full"]), 3),
        "loss_dice": round(difference.mean, 5),
        "ci_low": round(difference.low, 5),
        "ci_high": round(difference.high, 5),
        "p": round(difference.p, 3),
        "folds": len(folds),
        "cases": difference.cases,
        "trials": len(list(homes["full"].glob("results/fold0/trials/*/run.json"))),
        "accepted": accepted,
    }


def main() -> None:
    """Measure in a folder of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true", help="three folds of twelve trials")
    whole = parser.parse_args().whole
    print("Hippocampus, real scans" if REAL.is_dir() else "Phantom: no real scans are at hand")
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), whole)
    print_figures("Halved against the full grid", result)


if __name__ == "__main__":
    main()
