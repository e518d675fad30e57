"""A run killed with SIGKILL at 20 random moments, some of them while it writes a state.

Prints what was lost, and whether the final weights are those of a run that nothing happened to.
The last line is one JSON object:

    kills             SIGKILLs sent
    killed_writing    those sent while a state was being written
    identical         whether the SHA-256 of all weights that the run leaves, at its end and at its
                      checkpoints, are the undisturbed run's; models: their number
    interval_s        seconds between saved states during the storm
    lost_s            seconds of training repeated per kill, on average
    lost_s_max        and at most
    saving_overhead   share of the undisturbed run's training time spent on saving its states, at
                      the example study's own interval, writing counted as if it did not overlap
    saving_overhead_storm   the same at the storm's interval: what saving far too often costs
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from printing import print_figures

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REAL = REPOSITORY.parent / "shared" / "data" / "Task04_Hippocampus"
EXAMPLE = REPOSITORY / "examples" / "hippocampus.yaml"
KILLS = 20
CASES = 24
EPOCHS = 14
INTERVAL_SECONDS = 2.0


def declared(root: Path, save_minutes: float) -> dict[str, Any]:
    """The example study on a few cases, or on the phantom where there are no real scans."""
    study = yaml.safe_load(EXAMPLE.read_text())
    study["dataset"]["root"] = str(root)
    study["training"] |= {"epochs": EPOCHS, "checkpoints": 3}
    study["soup"] = {"weights": ["averaged", "raw"]}
    study["recovery"] = {"save_minutes": save_minutes}
    if root != REAL:
        study["dataset"] |= {"layout": "phantom", "channels": ["t1n"]}
        study["regions"] = {"TC": [1, 3], "WT": [1, 2, 3]}
    return study


def train(folder: Path, states: Path, target: Path, save_minutes: float) -> None:
    """What a job of the workflow does; run in a process of its own."""
    import torch

    from voxelsoup.common.logs import job_log
    from voxelsoup.data.preprocessing.store import read_manifest
    from voxelsoup.models import weight_files
    from voxelsoup.runs.guard import RunGuard
    from voxelsoup.study.loading import load
    from voxelsoup.study.trials import trials
    from voxelsoup.training.run import trial_run
    from voxelsoup.training.train import train as train_run

    torch.set_num_threads(1)
    root = REAL if REAL.is_dir() else folder
    study = load(declared(root, save_minutes))
    cases = sorted(read_manifest(folder / "manifest.tsv"))
    run = trial_run(trials(study)[0], 0, cases, folder, initial=None)
    with job_log(states / "log"):
        guard = RunGuard(states, {"settings": run.settings()}, run.steps, study.recovery)
        with guard:
            began = time.monotonic()
            trained = train_run(run, torch.device("cpu"), guard)
            seconds = time.monotonic() - began
            guard.confirm()
            for kept, weights in {"model": trained.weights, **trained.beside}.items():
                path = target / f"{kept}.safetensors"
                weight_files.save(path, weights, weight_files.describe(study))
            guard.finish()
    report = {"training_s": seconds, "saving_s": guard.seconds_saving}
    (target / "times.json").write_text(json.dumps(report))


def prepare(folder: Path) -> tuple[str, int]:
    """Preprocess the cases; returns what they are and how many."""
    from voxelsoup.data.index.index import index_cases
    from voxelsoup.data.layouts.phantom import write_phantom
    from voxelsoup.data.preprocessing.preprocess import preprocess_all
    from voxelsoup.study.loading import load
    from voxelsoup.study.sections.data import Phantom

    root = REAL
    if not REAL.is_dir():
        root = folder / "phantom"
        write_phantom(root, Phantom(cases=CASES, shape=[36, 44, 36]))
    study = load(declared(root, 5))
    found, _ = index_cases(study.dataset, study.regions, root, workers=2)
    preprocess_all(
        found[:CASES],
        root=root,
        settings=study.preprocess,
        patch=study.training.patch,
        folder=folder,
        manifest=folder / "manifest.tsv",
        workers=2,
    )
    return ("hippocampus, real scans" if root == REAL else "phantom"), len(found[:CASES])


def start(folder: Path, states: Path, target: Path, save_minutes: float) -> subprocess.Popen[bytes]:
    """A training process."""
    states.mkdir(exist_ok=True)
    arguments = ["--train", folder, states, target, save_minutes]
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)])


def first_steps(states: Path) -> list[float]:
    """When each attempt had done its first step, in seconds since 1970."""
    from voxelsoup.runs.record import read_record

    record = read_record(states)
    steps = [attempt.first_step for attempt in record.attempts] if record else []
    return [datetime.fromisoformat(step).timestamp() for step in steps if step]


def last_saved(states: Path) -> float:
    """When the newest state was written, in seconds since 1970; 0 before the first one."""
    from voxelsoup.runs.record import read_saved

    saved = read_saved(states)
    return datetime.fromisoformat(saved.time).timestamp() if saved else 0.0


def kill_once(process: subprocess.Popen[bytes], states: Path, chance: random.Random) -> float:
    """Kill a training process at a random moment; returns the seconds of work lost."""
    lives = len(first_steps(states))
    while len(first_steps(states)) == lives:
        time.sleep(0.02)
    wait_for_write = chance.random() < 0.5
    deadline = time.monotonic() + chance.uniform(0, 2 * INTERVAL_SECONDS)
    while time.monotonic() < deadline:
        time.sleep(0.001)
    give_up = time.monotonic() + 2 * INTERVAL_SECONDS
    while wait_for_write and not unfinished(states) and time.monotonic() < give_up:
        pass
    killed = time.time()
    process.kill()
    process.wait()
    last = max(last_saved(states), *first_steps(states))
    return max(0.0, killed - last)


def unfinished(states: Path) -> bool:
    """Whether a state is being written, or was when its writer was killed."""
    return any(states.glob(".*.state"))


def main() -> None:
    """Run the storm beside an undisturbed run, one core each."""
    from voxelsoup.common.files import sha256

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, count = prepare(folder)
        calm = start(folder, folder / "calm", folder / "calm-models", 5.0)

        minutes = INTERVAL_SECONDS / 60
        states, target = folder / "storm", folder / "storm-models"
        chance, lost, writing = random.Random(), [], 0
        for _ in range(KILLS):
            process = start(folder, states, target, minutes)
            lost.append(kill_once(process, states, chance))
            writing += unfinished(states)
            for path in states.glob(".*.state"):
                path.unlink()
        assert start(folder, states, target, minutes).wait() == 0
        assert calm.wait() == 0
        calm_hashes, hashes = (
            {path.name: sha256(path) for path in models.glob("*.safetensors")}
            for models in (folder / "calm-models", target)
        )
        report = json.loads((folder / "calm-models" / "times.json").read_text())
        stormy = json.loads((target / "times.json").read_text())
    result = {
        "kills": KILLS,
        "killed_writing": writing,
        "identical": hashes == calm_hashes,
        "models": len(hashes),
        "interval_s": INTERVAL_SECONDS,
        "lost_s": round(sum(lost) / KILLS, 2),
        "lost_s_max": round(max(lost), 2),
        "saving_overhead": round(report["saving_s"] / report["training_s"], 5),
        "saving_overhead_storm": round(stormy["saving_s"] / stormy["training_s"], 5),
    }
    print_figures(f"A run of {report['training_s']:.0f} s on {count} cases ({data})", result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*map(Path, sys.argv[2:5]), float(sys.argv[5]))
    else:
        main()
