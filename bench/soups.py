"""What souping costs: voxelsoup beside the published study's procedure and model-soups' algorithm.

Twenty tiny models are souped greedily over twenty selection cases:

    published     all N evaluated to sort them, then for every ingredient the candidate AND the
                  incumbent again: 3 N - 2 evaluations, three whole models in memory
    model-soups   Wortsman et al.'s reference: all N evaluated, then N - 1 candidates
    voxelsoup       single scores reused from the evaluation that ran, candidates stopped early
    race          the same with ``soup.race`` at 1 % error

with branches of one stem, which are nearly equal. The last two also with branches of two stems,
half of which cannot be averaged with the other half: the other extreme of what stopping early
saves. Averaging alone is measured on files of the size of MedNeXt-B. The last line is one JSON
object:

    inferences_vs_published     their case inferences over ours
    inferences_vs_model_soups   their case inferences over ours
    same_ingredients            whether all keep the same
    seconds_vs_published, seconds_vs_model_soups   their time over ours
    read_vs_published, read_vs_model_soups         bytes of model files read, theirs over ours
    early_stop_saves            share of the candidates' case inferences that the bound saves
    race_saves                  share that the race at 1 % error saves; race_same_ingredients
    two_stems_...               these two with models of two stems
    average_vs_read             our time over that of reading the files (below 1.5 is the aim)
    average_vs_floor            the same over reading into one buffer that is used again
    peak_mb_n5, peak_mb_n40     memory that averaging 5 and 40 files takes beside the program
    peak_mb_candidate           that of one more file to a running sum: what greedy does
    peak_mb_published           that of the published procedure's three models for it
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from printing import print_figures
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REAL = REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"
MODELS = 20
SELECTION = 20
TRAINING = 16
STEM_STEPS, BRANCH_STEPS = 160, 25
RATES, SEEDS = [0.01, 0.014, 0.02, 0.03], [0, 1, 2, 3, 4]


def declare(folder: Path) -> Any:
    """The example study with a patch that takes most cases in one window."""
    from voxelsoup.study.loading import load

    study = yaml.safe_load((REPOSITORY / "examples" / "hippocampus.yaml").read_text())
    study["dataset"]["root"] = str(REAL)
    study["evaluation"] = {"overlap": 0}
    study["training"] |= {"patch": [40, 56, 40], "batch_size": 1, "epochs": 1}
    study["training"]["steps_per_epoch"] = BRANCH_STEPS
    study["sweep"] = {"grid": {"optimizer.lr": RATES, "training.seed": SEEDS}}
    if not REAL.is_dir():
        study["dataset"] |= {"layout": "phantom", "channels": ["t1n"]}
        study["regions"] = {"TC": [1, 3], "WT": [1, 2, 3]}
    return load(study)


def prepare(study: Any, folder: Path) -> tuple[list[str], list[str]]:
    """Preprocess; returns training and selection cases."""
    from voxelsoup.data.index.index import index_cases
    from voxelsoup.data.layouts.phantom import write_phantom
    from voxelsoup.data.preprocessing.preprocess import preprocess_all
    from voxelsoup.study.sections.data import Phantom

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


def train_stem(study: Any, folder: Path, cases: list[str], seed: int) -> Path:
    """A stem of its own; returns its model file."""
    import torch

    from voxelsoup.models import weight_files
    from voxelsoup.training.run import stem_run
    from voxelsoup.training.train import train

    training = study.training.model_copy(update={"steps_per_epoch": STEM_STEPS, "seed": seed})
    stem = study.stem.model_copy(update={"epochs": 1})
    run = stem_run(study.model_copy(update={"training": training, "stem": stem}), 0, cases, folder)
    path = folder / f"stem{seed}.safetensors"
    weight_files.save(path, train(run, torch.device("cpu")).weights, {})
    return path


def train_models(
    study: Any, folder: Path, cases: list[str], stem_of: Callable[[int], Path]
) -> dict[str, Path]:
    """The branches, each of the stem that its seed has: trial -> model file."""
    import torch

    from voxelsoup.models import weight_files
    from voxelsoup.study.trials import trials
    from voxelsoup.training.run import trial_run
    from voxelsoup.training.train import train

    paths = {}
    for trial in trials(study):
        stem = stem_of(trial.parameters["training.seed"])
        paths[trial.id] = folder / f"{stem.stem}-{trial.id}.safetensors"
        trained = train(trial_run(trial, 0, cases, folder, stem), torch.device("cpu"))
        weight_files.save(paths[trial.id], trained.weights, {})
    return paths


def evaluator(study: Any, fold: dict[str, list[str]], folder: Path) -> Any:
    """A real scorer that counts its case inferences."""
    import torch

    from voxelsoup.soups.scorer import WeightsScorer

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
    from voxelsoup.evaluation.case_scores import mean_score
    from voxelsoup.models.weight_files import load

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
    """voxelsoup's greedy; the single scores are there already."""
    from voxelsoup.soups.recipes import greedy
    from voxelsoup.soups.selection import Cache, Selection

    return greedy(ingredients, Selection(cases, [scorer], Cache(None, ""), race)).trials


def measure_greedy(folder: Path) -> dict[str, Any]:
    """All procedures on models of one stem, ours on models of two."""
    import torch

    torch.set_num_threads(1)
    study = declare(folder)
    training, cases = prepare(study, folder)
    scorer = evaluator(study, {"training": training}, folder)
    stems = [train_stem(study, folder, training, seed) for seed in (0, 1)]
    one = train_models(study, folder, training, lambda _: stems[0])
    two = train_models(study, folder, training, lambda seed: stems[seed % 2])
    found = compare_procedures(scorer, one, cases, "one stem")
    of_two = compare_procedures(scorer, two, cases, "two stems", others=False)
    return {
        "models": MODELS,
        "cases": len(cases),
        **found,
        **{f"two_stems_{name}": value for name, value in of_two.items()},
    }


def compare_procedures(
    scorer: Any, paths: dict[str, Path], cases: list[str], title: str, others: bool = True
) -> dict[str, Any]:
    """Procedures on the same models and cases, theirs or ours alone: what they kept and cost."""
    from voxelsoup.common.files import sha256
    from voxelsoup.models.weight_files import load
    from voxelsoup.soups.soup import Ingredient

    # What the workflow's evaluation of single models has done long before.
    ingredients = [
        Ingredient(trial, path, sha256(path), evaluate(scorer, load(path)[0], cases))
        for trial, path in paths.items()
    ]
    theirs: dict[str, Callable[[], list[str]]] = {
        "published": lambda: published(scorer, paths, cases),
        "model-soups": lambda: model_soups(scorer, paths, cases),
    }
    procedures: dict[str, Callable[[], list[str]]] = {
        **(theirs if others else {}),
        "voxelsoup": lambda: ours(scorer, ingredients, cases),
        "race": lambda: ours(scorer, ingredients, cases, race=0.01),
    }
    kept: dict[str, list[str]] = {}
    cost: dict[str, dict[str, float]] = {}
    for name, procedure in procedures.items():
        with counted_reading() as read:
            scorer.inferences, began = 0, time.monotonic()
            kept[name] = procedure()
            seconds = time.monotonic() - began
        cost[name] = {"inferences": scorer.inferences, "seconds": seconds, "read": sum(read)}
    print_procedures(kept, cost, title)
    return ratios(kept, cost, (MODELS - 1) * len(cases))


@contextmanager
def counted_reading() -> Iterator[list[int]]:
    """Sizes of the model files that are opened meanwhile."""
    from voxelsoup.models import weight_files

    sizes: list[int] = []
    opened = weight_files._opened

    def counting(path: Path) -> Any:
        sizes.append(path.stat().st_size)
        return opened(path)

    weight_files._opened = counting
    try:
        yield sizes
    finally:
        weight_files._opened = opened


def ratios(
    kept: dict[str, list[str]], cost: dict[str, dict[str, float]], full: int
) -> dict[str, Any]:
    """Their cost over ours; ``full`` case inferences would see all cases of all candidates."""
    plain, race = cost["voxelsoup"]["inferences"], cost["race"]["inferences"]
    found: dict[str, Any] = {
        "accepted": len(kept["voxelsoup"]),
        "early_stop_saves": round(1 - plain / full, 3),
        "race_saves": round(1 - race / full, 3),
        "race_same_ingredients": kept["race"] == kept["voxelsoup"],
    }
    others = [name for name in cost if name not in ("voxelsoup", "race")]
    for measure in ("inferences", "seconds", "read"):
        for other in others:
            ratio = cost[other][measure] / cost["voxelsoup"][measure]
            found[f"{measure}_vs_{other.replace('-', '_')}"] = round(ratio, 2)
    if others:
        found["same_ingredients"] = all(kept[name] == kept["voxelsoup"] for name in others)
    return found


def print_procedures(
    kept: dict[str, list[str]], cost: dict[str, dict[str, float]], title: str
) -> None:
    """The procedures side by side."""
    data = "hippocampus" if REAL.is_dir() else "phantom"
    table = Table(title=f"{MODELS} models of {title}, {SELECTION} cases ({data})")
    for name in ("procedure", "case inferences", "seconds", "MB read", "kept"):
        table.add_column(name, justify="left" if name == "procedure" else "right")
    for name, of_it in cost.items():
        table.add_row(
            name,
            str(of_it["inferences"]),
            f"{of_it['seconds']:.1f}",
            f"{of_it['read'] / 1e6:.1f}",
            str(len(kept[name])),
        )
    Console().print(table)


def write_large(folder: Path, count: int) -> list[Path]:
    """Files of the size of MedNeXt-B; five different ones, for the rest are links to them."""
    from voxelsoup.models import weight_files
    from voxelsoup.models.networks import build, seeded
    from voxelsoup.study.sections.training import Network

    paths = []
    for number in range(count):
        path = folder / f"large{number}.safetensors"
        if number < 5:
            with seeded(number):
                weights = build(Network(size="B"), 4, 3).state_dict()
            weight_files.save(path, weights, {})
        else:
            path.hardlink_to(folder / f"large{number % 5}.safetensors")
        paths.append(path)
    return paths


def measure_average(folder: Path) -> dict[str, Any]:
    """Averaging of large files against reading them, and its peak memory."""
    from voxelsoup.soups.averaging import average, equal_parts

    paths = write_large(folder, 40)
    parts = equal_parts([(path, path.name) for path in paths[:MODELS]])
    timed: dict[str, float] = {}
    for _ in range(5):
        for name, work in (
            ("average", lambda: average(parts)),
            ("read", lambda: [path.read_bytes() for path in paths[:MODELS]]),
            ("floor", lambda: read_into_one_buffer(paths[:MODELS])),
        ):
            began = time.perf_counter()
            work()
            timed[name] = min(timed.get(name, 1e9), time.perf_counter() - began)
    peaks = {count: peak_memory(folder, "average", count) for count in (5, 40)}
    size = paths[0].stat().st_size / 1e6
    print(f"{MODELS} files of {size:.0f} MB: {MODELS * size:.0f} MB read, each once")
    return {
        "average_vs_read": round(timed["average"] / timed["read"], 2),
        "average_vs_floor": round(timed["average"] / timed["floor"], 2),
        "average_s": round(timed["average"], 3),
        "peak_mb_n5": peaks[5],
        "peak_mb_n40": peaks[40],
        "peak_mb_candidate": peak_memory(folder, "candidate", 5),
        "peak_mb_published": peak_memory(folder, "published", 5),
    }


def read_into_one_buffer(paths: list[Path]) -> None:
    """The least that reading files can cost."""
    buffer = bytearray(max(path.stat().st_size for path in paths))
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            stream.readinto(buffer)


def peak_memory(folder: Path, work: str, count: int) -> int:
    """Peak memory in MB that a process of its own takes for some work on so many files."""
    command = [sys.executable, __file__, "--memory", work, str(folder), str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def take_memory(work: str, folder: Path, count: int) -> None:
    """What ``peak_memory`` measures."""
    from voxelsoup.models.weight_files import load
    from voxelsoup.soups.averaging import RunningSum, average, equal_parts

    paths = [folder / f"large{number}.safetensors" for number in range(count)]
    before = resident("VmRSS")
    if work == "average":
        average(equal_parts([(path, path.name) for path in paths]))
    elif work == "candidate":
        total = RunningSum()
        for path in paths[:-1]:
            total.add(path)
        total.average_with(paths[-1])
    else:
        soup, added = load(paths[0])[0], load(paths[1])[0]
        candidate = {name: (value + added[name]) / 2 for name, value in soup.items()}
        assert len(candidate) == len(soup)
    print(round((resident("VmHWM") - before) / 1024))


def resident(field: str) -> int:
    """Resident memory of this process in kB: at its peak (VmHWM) or now (VmRSS).

    getrusage's peak would be that of the process which started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise ValueError(field)


def main() -> None:
    """Measure both, and print."""
    with tempfile.TemporaryDirectory() as name:
        result = {**measure_greedy(Path(name)), **measure_average(Path(name))}
    print_figures(None, result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        take_memory(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
