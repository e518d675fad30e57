"""What souping costs: segsoup beside the published study's procedure and model-soups' algorithm.

Twenty tiny models (branches of one stem) are souped greedily over twenty selection cases:

    published     all N evaluated to sort them, then for every ingredient the candidate AND the
                  incumbent again: 3 N - 2 evaluations, three whole models in memory
    model-soups   Wortsman et al.'s reference: all N evaluated, then N - 1 candidates
    segsoup       single scores reused from the evaluation that ran, candidates stopped early

Averaging alone is measured on files of the size of MedNeXt-B. The last line is one JSON object:

    inferences_vs_published     their case inferences over ours
    inferences_vs_model_soups   their case inferences over ours
    same_ingredients            whether all three keep the same
    seconds_vs_published, seconds_vs_model_soups   their time over ours
    early_stop_saves            share of the candidates' case inferences that the bound saves
    race_saves                  share that the race at 1 % error saves; race_same_ingredients
    average_vs_read             our time over that of reading the files (below 1.5 is the aim)
    average_vs_floor            the same over reading into one buffer that is used again
    peak_mb_n5, peak_mb_n40     peak memory of averaging 5 and 40 files
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REAL = REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"
MODELS = 20
SELECTION = 20
TRAINING = 16
STEM_STEPS, BRANCH_STEPS = 160, 25


def declare(folder: Path) -> Any:
    """The example study with a patch that takes most cases in one window."""
    from segsoup.study import load

    study = yaml.safe_load((REPOSITORY / "examples" / "hippocampus.yaml").read_text())
    study["dataset"]["root"] = str(REAL)
    study["evaluation"] = {"overlap": 0}
    study["training"] |= {"patch": [40, 56, 40], "batch_size": 1, "epochs": 1}
    study["training"]["steps_per_epoch"] = BRANCH_STEPS
    rates = [0.01, 0.014, 0.02, 0.03]
    study["sweep"] = {"grid": {"optimizer.lr": rates, "training.seed": list(range(5))}}
    if not REAL.is_dir():
        study["dataset"] |= {"layout": "phantom", "channels": ["t1n"]}
        study["regions"] = {"TC": [1, 3], "WT": [1, 2, 3]}
    return load(study)


def prepare(study: Any, folder: Path) -> tuple[list[str], list[str]]:
    """Preprocess; returns training and selection cases."""
    from segsoup.cases.index import index_cases
    from segsoup.cases.phantom import write_phantom
    from segsoup.preprocess import preprocess_all
    from segsoup.study import Phantom

    root = REAL
    if not REAL.is_dir():
        root = folder / "phantom"
        write_phantom(root, Phantom(cases=TRAINING + SELECTION, shape=[36, 44, 36]))
    found, _ = index_cases(study.dataset, study.regions, root, workers=2)
    chosen = found[: TRAINING + SELECTION]
    manifest = folder / "manifest.tsv"
    preprocess_all(chosen, root, study.preprocess, study.training.patch, folder, manifest, 2)
    names = [case.name for case in chosen]
    return names[:TRAINING], names[TRAINING:]


def train_models(study: Any, folder: Path, cases: list[str]) -> dict[str, Path]:
    """One stem, and its branches: trial -> model file."""
    import torch

    from segsoup import checkpoints
    from segsoup.runs import stem_run, trial_run
    from segsoup.sweep import trials
    from segsoup.training import train

    cpu = torch.device("cpu")
    longer = study.training.model_copy(update={"steps_per_epoch": STEM_STEPS})
    stem_study = study.model_copy(
        update={"training": longer, "stem": study.stem.model_copy(update={"epochs": 1})}
    )
    stem = folder / "stem.safetensors"
    checkpoints.save(stem, train(stem_run(stem_study, 0, cases, folder), cpu).weights, {})
    paths = {}
    for trial in trials(study)[:MODELS]:
        paths[trial.id] = folder / f"{trial.id}.safetensors"
        run = trial_run(trial, 0, cases, folder, stem)
        checkpoints.save(paths[trial.id], train(run, cpu).weights, {})
    return paths


def evaluator(study: Any, fold: dict[str, list[str]], folder: Path) -> Any:
    """A real scorer that counts its case inferences."""
    import torch

    from segsoup.evaluation import WeightsScorer

    class Counting(WeightsScorer):
        inferences = 0

        def score(self, case: str) -> dict[str, float]:
            self.inferences += 1
            return super().score(case)

    return Counting(study, fold, folder, torch.device("cpu"))


def evaluate(scorer: Any, weights: Any, cases: list[str]) -> dict[str, dict[str, float]]:
    """All cases with given weights."""
    scorer.use(weights)
    return {case: scorer.score(case) for case in cases}


def published(scorer: Any, paths: dict[str, Path], cases: list[str]) -> list[str]:
    """The published study's procedure, three whole models in memory."""
    return naive(scorer, paths, cases, again=True)


def model_soups(scorer: Any, paths: dict[str, Path], cases: list[str]) -> list[str]:
    """The reference algorithm."""
    return naive(scorer, paths, cases, again=False)


def naive(scorer: Any, paths: dict[str, Path], cases: list[str], again: bool) -> list[str]:
    """Greedy without reuse; ``again`` evaluates the incumbent beside every candidate."""
    from segsoup.checkpoints import load
    from segsoup.selection import mean_score

    single = {t: mean_score(evaluate(scorer, load(p)[0], cases)) for t, p in paths.items()}
    order = sorted(paths, key=lambda trial: (-single[trial], trial))
    kept, best = [order[0]], single[order[0]]
    soup = {name: value.double() for name, value in load(paths[order[0]])[0].items()}
    for trial in order[1:]:
        added = load(paths[trial])[0]
        count = len(kept)
        candidate = {n: (v * count + added[n].double()) / (count + 1) for n, v in soup.items()}
        score = mean_score(evaluate(scorer, {n: v.float() for n, v in candidate.items()}, cases))
        if again:
            best = mean_score(evaluate(scorer, {n: v.float() for n, v in soup.items()}, cases))
        if score > best:
            kept, best, soup = [*kept, trial], score, candidate
    return kept


def ours(
    scorer: Any, ingredients: list[Any], cases: list[str], race: float | None = None
) -> list[str]:
    """segsoup's greedy; the single scores are there already."""
    from segsoup.recipes import greedy
    from segsoup.selection import Cache, Selection

    return greedy(ingredients, Selection(cases, [scorer], Cache(None, ""), race)).trials


def measure_greedy(folder: Path) -> dict[str, Any]:
    """All procedures on the same models and cases."""
    import torch

    from segsoup.checkpoints import load
    from segsoup.files import sha256
    from segsoup.soups import Ingredient

    torch.set_num_threads(1)
    study = declare(folder)
    training, cases = prepare(study, folder)
    paths = train_models(study, folder, training)
    scorer = evaluator(study, {"training": training}, folder)
    # What the workflow's evaluation of single models has done long before.
    ingredients = [
        Ingredient(trial, path, sha256(path), evaluate(scorer, load(path)[0], cases))
        for trial, path in paths.items()
    ]
    kept, inferences, seconds = {}, {}, {}
    procedures: dict[str, Callable[[], list[str]]] = {
        "published": lambda: published(scorer, paths, cases),
        "model-soups": lambda: model_soups(scorer, paths, cases),
        "segsoup": lambda: ours(scorer, ingredients, cases),
        "race": lambda: ours(scorer, ingredients, cases, race=0.01),
    }
    for name, procedure in procedures.items():
        scorer.inferences, began = 0, time.monotonic()
        kept[name] = procedure()
        inferences[name], seconds[name] = scorer.inferences, time.monotonic() - began
    print_procedures(kept, inferences, seconds)
    full = (MODELS - 1) * len(cases)
    return {
        "models": MODELS,
        "cases": len(cases),
        "accepted": len(kept["segsoup"]),
        "inferences_vs_published": round(inferences["published"] / inferences["segsoup"], 2),
        "inferences_vs_model_soups": round(inferences["model-soups"] / inferences["segsoup"], 2),
        "same_ingredients": kept["published"] == kept["model-soups"] == kept["segsoup"],
        "seconds_vs_published": round(seconds["published"] / seconds["segsoup"], 2),
        "seconds_vs_model_soups": round(seconds["model-soups"] / seconds["segsoup"], 2),
        "early_stop_saves": round(1 - inferences["segsoup"] / full, 3),
        "race_saves": round(1 - inferences["race"] / full, 3),
        "race_same_ingredients": kept["race"] == kept["segsoup"],
    }


def print_procedures(
    kept: dict[str, list[str]], inferences: dict[str, int], seconds: dict[str, float]
) -> None:
    """The procedures side by side."""
    data = "hippocampus, real scans" if REAL.is_dir() else "phantom"
    table = Table(title=f"Greedy souping of {MODELS} models over {SELECTION} cases ({data})")
    for name in ("procedure", "case inferences", "seconds", "ingredients kept"):
        table.add_column(name, justify="left" if name == "procedure" else "right")
    for name in kept:
        table.add_row(name, str(inferences[name]), f"{seconds[name]:.1f}", str(len(kept[name])))
    Console().print(table)


def write_large(folder: Path, count: int) -> list[Path]:
    """Files of the size of MedNeXt-B; five different ones, for the rest are links to them."""
    from segsoup import checkpoints
    from segsoup.networks import build, seeded
    from segsoup.study import Network

    paths = []
    for number in range(count):
        path = folder / f"large{number}.safetensors"
        if number < 5:
            with seeded(number):
                weights = build(Network(size="B"), 4, 3).state_dict()
            checkpoints.save(path, weights, {})
        else:
            path.hardlink_to(folder / f"large{number % 5}.safetensors")
        paths.append(path)
    return paths


def measure_average(folder: Path) -> dict[str, Any]:
    """Averaging of large files against reading them, and its peak memory."""
    from segsoup.averaging import average, equal_parts

    paths = write_large(folder, 40)
    mixture = equal_parts([(path, path.name) for path in paths[:MODELS]])
    timed: dict[str, float] = {}
    for _ in range(5):
        for name, work in (
            ("average", lambda: average(mixture)),
            ("read", lambda: [path.read_bytes() for path in paths[:MODELS]]),
            ("floor", lambda: read_into_one_buffer(paths[:MODELS])),
        ):
            began = time.perf_counter()
            work()
            timed[name] = min(timed.get(name, 1e9), time.perf_counter() - began)
    peaks = {count: peak_memory(folder, count) for count in (5, 40)}
    size = paths[0].stat().st_size / 1e6
    print(f"{MODELS} files of {size:.0f} MB: {MODELS * size:.0f} MB read, each once")
    return {
        "average_vs_read": round(timed["average"] / timed["read"], 2),
        "average_vs_floor": round(timed["average"] / timed["floor"], 2),
        "average_s": round(timed["average"], 3),
        "peak_mb_n5": peaks[5],
        "peak_mb_n40": peaks[40],
    }


def read_into_one_buffer(paths: list[Path]) -> None:
    """The least that reading files can cost."""
    buffer = bytearray(max(path.stat().st_size for path in paths))
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            stream.readinto(buffer)


def peak_memory(folder: Path, count: int) -> int:
    """Peak memory in MB of a process that averages so many files."""
    command = [sys.executable, __file__, "--average", str(folder), str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def average_only(folder: Path, count: int) -> None:
    """What ``peak_memory`` measures."""
    from segsoup.averaging import average, equal_parts

    average(equal_parts([(folder / f"large{n}.safetensors", str(n)) for n in range(count)]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Measure both, and print."""
    with tempfile.TemporaryDirectory() as name:
        result = {**measure_greedy(Path(name)), **measure_average(Path(name))}
    table = Table()
    table.add_column("measure")
    table.add_column("value", justify="right")
    for key, value in result.items():
        table.add_row(key, str(value))
    Console().print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--average"]:
        average_only(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
