"""What `make demo` takes, beside the bare sum of its training and its forward passes.

`config.yaml` as shipped is run from nothing into a temporary folder. The bare sum is what torch
alone needs for it: the seconds that the runs have trained, and for each prediction of the study
the seconds of one, measured afterwards in one process with the study's own model and windows. The
rest is what starting processes, reading files, scoring, tables and pages take. The last line is one
JSON object:

    demo_s             elapsed seconds, on all cores
    cpu_s              CPU seconds of all processes
    bare_s             the bare sum, on one core
    vs_bare            cpu_s over bare_s
    jobs               jobs that leave a benchmark
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))
REPEATS = 5


def run(folder: Path) -> tuple[float, float]:
    """Run the study; elapsed and CPU seconds."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--profile", str(REPOSITORY / "profiles/local")]
    command += ["--configfile", str(REPOSITORY / "config.yaml")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after, elapsed = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_of_training(results: Path) -> float:
    """What all runs have trained."""
    from voxelsoup.runs.record import read_record

    folders = [*results.glob(".state/fold*/stem"), *results.glob(".state/fold*/trials/*")]
    records = [read_record(folder) for folder in folders]
    return sum(record.seconds for record in records if record)


def predictions(results: Path, folds: dict[str, Any]) -> int:
    """How often a model has predicted a case."""
    from voxelsoup.evaluation.postprocessing import Postprocessing, unchanged

    number = 0
    for fold in results.glob("fold[0-9]*"):
        parts = folds[fold.name.removeprefix("fold")]
        selection, test = len(parts["selection"]), len(parts["test"])
        trials = {path.read_bytes() for path in fold.glob("trials/**/model.safetensors")}
        number += (selection + test) * (len(trials) + 1)
        records = [*fold.glob("soups/*/recipe.json"), fold / "basin.json"]
        number += sum(json.loads(path.read_text())["case_inferences"] for path in records)
        # Post-processing on selection cases, then scores on test cases: those of a trial's weights
        # are known, but for what post-processing changes.
        files = [fold / "best/model.safetensors", *fold.glob("soups/*/model.safetensors")]
        compared = {path.read_bytes() for path in files}
        chosen = json.loads((fold / "postprocessing.json").read_text())["postprocessing"]
        changes = Postprocessing.from_record(chosen) != unchanged(list(chosen["regions"]))
        scored = compared if changes else compared - trials
        number += selection * len(compared) + test * len(scored)
    return number


def seconds_of_prediction(results: Path) -> float:
    """One prediction of a case by one of the study's models."""
    from voxelsoup.data.preprocessing.store import load_case
    from voxelsoup.evaluation.score import load_model, predict
    from voxelsoup.models import devices
    from voxelsoup.study.loading import load

    study = load(yaml.safe_load((REPOSITORY / "config.yaml").read_text()))
    device = devices.prepare("cpu", 1)
    model = load_model(results / "fold0/stem/model.safetensors", study, device)
    cases = sorted(path.stem for path in (results / "preprocessed").glob("*.json"))
    taken = []
    with torch.inference_mode():
        for name in cases[:REPEATS]:
            case = load_case(results / "preprocessed", name)
            began = time.process_time()
            predict(model, case, study, device)
            taken.append(time.process_time() - began)
    return statistics.median(taken)


def main() -> None:
    """Run the demo and count."""
    with tempfile.TemporaryDirectory() as name:
        elapsed, cpu = run(Path(name))
        results = Path(name) / "results"
        folds = json.loads((results / "folds.json").read_text())["folds"]
        trained, number = seconds_of_training(results), predictions(results, folds)
        bare = trained + number * seconds_of_prediction(results)
        figures = {
            "demo_s": round(elapsed, 1),
            "cpu_s": round(cpu, 1),
            "trained_s": round(trained, 1),
            "predictions": number,
            "bare_s": round(bare, 1),
            "vs_bare": round(cpu / bare, 2),
            "jobs": len(list((results / "benchmarks").rglob("*.tsv"))),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
