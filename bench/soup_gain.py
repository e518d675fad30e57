"""Which models gain by being averaged? Soups against the best single model on real scans.

For each fold a stem is trained, and from it branches of several kinds, two checkpoints along each;
beside them runs from scratch that get the steps of stem and branch together. Soups are chosen on
the selection cases and scored on the test cases, against the best single model of *all* kinds,
chosen on the selection cases too. What the table compares:

    scratch / branch      from random weights, each its own, or from the fold's stem
    averaged / raw        schedule-free's running average, or the point it takes gradients at
    constant, cosine      AdamW without any averaging
    subset                constant, each branch on 70 % of the training cases
    long                  one cosine run from scratch, with the steps of stem and all branches

(The iterate z that schedule-free takes its steps with is no model: it scored 0.25 to 0.5 where
the other two scored 0.84.) The last line is one JSON object:

    gain_dice         greedy soup of all branches' checkpoints minus the best single model,
                      mean over the test cases of all folds
    ci_low, ci_high   95 % paired bootstrap over these cases
    folds, cases      numbers of them
    accepted          ingredients that the greedy soup kept, per fold
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table
from scipy import stats

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REAL = REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"
EXAMPLE = REPOSITORY / "examples" / "hippocampus.yaml"
PHANTOM_CASES = 36
STEPS_PER_EPOCH = 25
STEM_EPOCHS, BRANCH_EPOCHS = 16, 6
CHECKPOINTS = 2
PROCESSES = 2
# One window per case: the network is convolutional, and overlapping windows take four times as
# long here.
WINDOW = [40, 56, 40]

CONSTANT = {"schedule": "constant", "lr": 0.01}
COSINE = {"schedule": "cosine-warmup", "lr": 0.01, "warmup_steps": 30}
AVERAGING = {"schedule": "schedule-free", "lr": 0.03, "warmup_steps": 50}


@dataclass(frozen=True)
class Branch:
    """One run of the comparison.

    Attributes:
        kind: its row in the table.
        seed: of its patches (and of its weights, from scratch).
        optimizer: its settings.
        share: of the training cases that it sees.
        from_stem: whether it starts from the fold's stem.
        epochs: trained, of 25 steps each; from scratch the stem's are added.
    """

    kind: str
    seed: int
    optimizer: dict[str, Any]
    share: float = 1.0
    from_stem: bool = True
    epochs: int = BRANCH_EPOCHS

    @property
    def name(self) -> str:
        """A file's name."""
        return f"{self.kind}-lr{self.optimizer['lr']}-seed{self.seed}"


STEM_BRANCHES = [
    *(Branch("schedule-free", seed, AVERAGING) for seed in range(3)),
    *(Branch("constant", seed, CONSTANT) for seed in range(3)),
    *(Branch("cosine", seed, COSINE) for seed in range(3)),
    *(Branch("subset", seed, CONSTANT, share=0.7) for seed in range(2)),
]
ALL_EPOCHS = BRANCH_EPOCHS * len(STEM_BRANCHES)
BRANCHES = [
    # The longest first, so that it does not run alone at the end.
    Branch("long", 0, COSINE, from_stem=False, epochs=ALL_EPOCHS),
    *STEM_BRANCHES,
    *(Branch("scratch", seed, AVERAGING, from_stem=False) for seed in range(2)),
]


# Which checkpoints, by name, go into the soups of a row.
def _of(kind: str, *parts: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(kind) and all(part in name for part in parts)


def from_stem(name: str) -> bool:
    """Whether a checkpoint's branch starts from the stem."""
    return not name.startswith(("scratch", "long"))


ROWS: dict[str, Callable[[str], bool]] = {
    "scratch, averaged": _of("scratch", "averaged", "-2"),
    "long": _of("long"),
    "schedule-free, averaged, last": _of("schedule-free", "averaged-2"),
    "schedule-free, averaged, path": _of("schedule-free", "averaged"),
    "schedule-free, raw, last": _of("schedule-free", "raw-2"),
    "schedule-free, raw, path": _of("schedule-free", "raw"),
    "constant, last": _of("constant", "weights-2"),
    "constant, path": _of("constant", "weights"),
    "constant, subsets, path": _of("subset", "weights"),
    "cosine, last": _of("cosine", "weights-2"),
    "cosine, path": _of("cosine", "weights"),
    "all branches, last": lambda name: from_stem(name) and name.endswith("-2"),
    "all branches, path": from_stem,
}
HEADLINE = "all branches, path"


class Checkpoints:
    """Keeps the weights along a run (what ``training.train`` takes as checkpointer)."""

    def __init__(self, steps: Sequence[int], momentum: float) -> None:
        self.steps, self.momentum = steps, momentum
        self.kept: dict[str, dict[str, Any]] = {}

    def newest(self) -> None:
        """Never resumes from a state."""

    def after_epoch(self, rows: list[dict[str, float]]) -> None:
        """Nothing to do."""

    def save(self, step: int, capture: Callable[[], dict[str, Any]]) -> None:
        """Nothing to do."""

    def after_step(self, step: int, capture: Callable[[], dict[str, Any]]) -> None:
        """Keep the weights if the step is one of those asked for."""
        if step not in self.steps:
            return
        number = self.steps.index(step) + 1
        captured = capture()
        weights, state = captured["model"], captured["optimizer"]["state"]
        if "z" not in state[0]:
            self.kept[f"weights-{number}"] = weights
            return
        self.kept[f"raw-{number}"] = weights
        # Defazio et al. 2024, eq. 1: y = (1 - beta) z + beta x. The network has no buffers.
        self.kept[f"averaged-{number}"] = {
            name: (y - (1 - self.momentum) * state[position]["z"]) / self.momentum
            for position, (name, y) in enumerate(weights.items())
        }


def declared(root: str, **changes: Any) -> Any:
    """The example study, on the phantom where there are no real scans."""
    from voxelsoup.study.loading import load

    study = yaml.safe_load(EXAMPLE.read_text())
    study.pop("sweep")
    study["dataset"]["root"] = root
    study["folds"]["selection_share"] = 0.3
    study["training"]["steps_per_epoch"] = STEPS_PER_EPOCH
    study["evaluation"] = {"overlap": 0.25}
    if Path(root) != REAL:
        study["dataset"] |= {"layout": "phantom", "channels": ["t1n"]}
        study["regions"] = {"TC": [1, 3], "WT": [1, 2, 3]}
    for section, values in changes.items():
        study[section] = study.get(section, {}) | values
    return load(study)


def prepare(folder: Path) -> tuple[str, dict[str, dict[str, list[str]]]]:
    """Preprocess the cases and split them; returns the data set's folder and the folds."""
    from voxelsoup.data.folds import make_folds
    from voxelsoup.data.index.index import index_cases
    from voxelsoup.data.layouts.phantom import write_phantom
    from voxelsoup.data.preprocessing.preprocess import preprocess_all
    from voxelsoup.study.sections.data import Phantom

    root = REAL
    if not REAL.is_dir():
        root = folder / "phantom"
        write_phantom(root, Phantom(cases=PHANTOM_CASES, shape=[36, 44, 36]))
    study = declared(str(root))
    found, _ = index_cases(study.dataset, study.regions, root, workers=PROCESSES)
    preprocess_all(
        found,
        root=root,
        settings=study.preprocess,
        patch=study.training.patch,
        folder=folder,
        manifest=folder / "manifest.tsv",
        workers=PROCESSES,
    )
    patients = {case.name: case.patient for case in found}
    return str(root), make_folds(patients, study.folds, "held-out", [])["folds"]


def train_stem(root: str, fold: int, cases: list[str], folder: Path, target: Path) -> None:
    """Train the stem of a fold; run in a process of its own."""
    import torch

    from voxelsoup.models import weight_files
    from voxelsoup.training.run import stem_run
    from voxelsoup.training.train import train

    torch.set_num_threads(1)
    study = declared(root, stem={"epochs": STEM_EPOCHS})
    trained = train(stem_run(study, fold, cases, folder), torch.device("cpu"))
    weight_files.save(target, trained.weights, weight_files.describe(study))


def train_branch(
    root: str, fold: int, branch: Branch, cases: list[str], folder: Path, stem: Path
) -> list[Path]:
    """Train one branch; returns the files of its checkpoints."""
    import torch

    from voxelsoup.models import weight_files
    from voxelsoup.study.trials import trials
    from voxelsoup.training.run import trial_run
    from voxelsoup.training.train import train

    torch.set_num_threads(1)
    epochs = branch.epochs + (0 if branch.from_stem else STEM_EPOCHS)
    training = {"epochs": epochs, "seed": branch.seed}
    study = declared(root, training=training, optimizer=branch.optimizer)
    chance = np.random.default_rng(branch.seed)
    drawn = chance.choice(cases, round(branch.share * len(cases)), replace=False).tolist()
    initial = stem if branch.from_stem else None
    run = trial_run(trials(study)[0], fold, sorted(drawn), folder, initial)
    steps = [number * run.steps // CHECKPOINTS for number in range(1, CHECKPOINTS + 1)]
    checkpoints = Checkpoints(steps, study.optimizer.momentum)
    train(run, torch.device("cpu"), checkpoints)
    paths = []
    for name, weights in checkpoints.kept.items():
        paths.append(stem.parent / f"{branch.name}-{name}.safetensors")
        weight_files.save(paths[-1], weights, weight_files.describe(study))
    return paths


def judge(
    root: str, fold: int, split: dict[str, list[str]], folder: Path, paths: list[Path]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make all soups of a fold.

    Returns:
        One row per row of the table, and the test Dice per case of the soups and singles.
    """
    import torch

    from voxelsoup.common.files import sha256
    from voxelsoup.evaluation.case_scores import case_mean
    from voxelsoup.models import weight_files
    from voxelsoup.soups.recipes import best, greedy, hierarchical, learned, uniform
    from voxelsoup.soups.scorer import WeightsScorer
    from voxelsoup.soups.selection import Cache, Selection
    from voxelsoup.soups.soup import Ingredient, SoupResult
    from voxelsoup.study.sections.soup import Learned

    torch.set_num_threads(1)
    study = declared(root, training={"patch": WINDOW})
    scorer = WeightsScorer(study, split, folder, torch.device("cpu"))
    # The window is larger than some cases; gradients are taken on the patches of the training.
    scorer.gradient = WeightsScorer(declared(root), split, folder, torch.device("cpu")).gradient
    selection = Selection(split["selection"], [scorer], Cache(None, ""), None)

    def single(path: Path) -> Ingredient:
        scorer.use(weight_files.load(path)[0])
        scores = {case: scorer.score(case) for case in split["selection"]}
        # Groups of the hierarchical recipe: branches of one kind.
        kind = path.stem.partition("-lr")[0]
        return Ingredient(path.stem, path, sha256(path), scores, kind)

    def tested(weights: weight_files.Weights) -> list[float]:
        scorer.use(weights)
        return [case_mean(scorer.score(case)) for case in split["test"]]

    singles = [single(path) for path in paths]
    known: dict[str, list[float]] = {}

    def tested_once(soup: SoupResult) -> list[float]:
        parts = json.dumps([[p.sha256, p.weight, p.blocks] for p in soup.parts])
        if parts not in known:
            known[parts] = tested(soup.weights)
        return known[parts]

    cases = {"best of all": tested_once(best(singles, selection))}
    rows = []
    for row, belongs in ROWS.items():
        own = [ingredient for ingredient in singles if belongs(ingredient.trial)]
        recipes = {"best": best, "uniform": uniform, "greedy": greedy}
        if row == HEADLINE:
            per_block = partial(learned, settings=Learned(per="block"))
            recipes |= {"hierarchical": hierarchical, "learned": learned}
            recipes |= {"learned per block": per_block}
        made = {name: recipe(own, selection) for name, recipe in recipes.items()}
        cases |= {f"{row}: {name}": tested_once(soup) for name, soup in made.items()}
        kept = len(made["greedy"].trials)
        rows.append({"fold": fold, "row": row, "ingredients": len(own), "kept": kept})
    return pd.DataFrame(rows), pd.DataFrame(cases, index=split["test"])


def run_fold(
    pool: ProcessPoolExecutor, root: str, fold: int, split: dict[str, list[str]], folder: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and judge one fold, in the processes of the pool."""
    target = folder / f"fold{fold}"
    target.mkdir()
    stem, cases = target / "stem.safetensors", split["training"]
    pool.submit(train_stem, root, fold, cases, folder, stem).result()
    runs: list[Future[list[Path]]] = [
        pool.submit(train_branch, root, fold, branch, cases, folder, stem) for branch in BRANCHES
    ]
    paths = [path for run in runs for path in run.result()]
    rows, of_cases = pool.submit(judge, root, fold, split, folder, paths).result()
    gain = interval(of_cases[f"{HEADLINE}: greedy"] - of_cases["best of all"])
    print("fold {}: {:+.4f} [{:+.4f}, {:+.4f}]".format(fold, *gain), file=sys.stderr, flush=True)
    return rows, of_cases


def interval(differences: pd.Series[float]) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % bootstrap interval; equal ones have no width."""
    mean = float(differences.mean())
    if differences.nunique() == 1:
        return mean, mean, mean
    result = stats.bootstrap((differences.to_numpy(),), np.mean, rng=0).confidence_interval
    return mean, float(result.low), float(result.high)


def show(rows: pd.DataFrame, cases: pd.DataFrame, title: str) -> None:
    """Print the table."""
    table = Table(title=title, caption="greedy minus best: the best single model of all kinds")
    for column in ("ingredients", "n", "best own", "uniform", "greedy", "kept"):
        table.add_column(column, justify="left" if column == "ingredients" else "right")
    table.add_column("greedy minus best [95 %]", justify="right", no_wrap=True)
    for row, of_row in rows.groupby("row", sort=False):
        names = ("best", "uniform", "greedy")
        scores = [f"{cases[f'{row}: {name}'].mean():.4f}" for name in names]
        kept = ", ".join(str(number) for number in of_row["kept"])
        gain = interval(cases[f"{row}: greedy"] - cases["best of all"])
        shown = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*gain)
        table.add_row(str(row), str(of_row["ingredients"].iloc[0]), *scores, kept, shown)
    Console(width=110).print(table)


def show_recipes(cases: pd.DataFrame) -> None:
    """Print what each recipe makes of all branches."""
    table = Table(title=f"recipes, {HEADLINE}")
    for column in ("recipe", "test Dice", "minus best [95 %]"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for column in cases.columns:
        row, _, recipe = column.partition(": ")
        if row == HEADLINE:
            gain = interval(cases[column] - cases["best of all"])
            shown = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*gain)
            table.add_row(recipe, f"{cases[column].mean():.4f}", shown)
    Console(width=110).print(table)


def main() -> None:
    """Train and judge all folds, two processes at a time."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool,
        ThreadPoolExecutor(PROCESSES) as waiting,
    ):
        folder = Path(name)
        root, folds = prepare(folder)
        results = [
            waiting.submit(run_fold, pool, root, int(fold), split, folder)
            for fold, split in folds.items()
        ]
        found = [result.result() for result in results]
    rows = pd.concat([rows for rows, _ in found])
    cases = pd.concat([cases for _, cases in found])
    data = "hippocampus, real scans" if Path(root) == REAL else "phantom"
    minutes = (time.monotonic() - began) / 60
    best = cases["best of all"].mean()
    show(rows, cases, f"{data}, {minutes:.0f} min: test Dice; best of all kinds {best:.4f}")
    show_recipes(cases)
    gain, low, high = interval(cases[f"{HEADLINE}: greedy"] - cases["best of all"])
    result = {
        "gain_dice": round(gain, 5),
        "ci_low": round(low, 5),
        "ci_high": round(high, 5),
        "folds": len(folds),
        "cases": len(cases),
        "accepted": rows.loc[rows["row"] == HEADLINE, "kept"].tolist(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
