"""Does everything that a study does on a GPU work there, and is it what the CPU computes?

Small runs of a MedNeXt on phantoms, the most important first; the outcome of each check is written
before the next one begins, to `bench/results/gpu_smoke.json`:

    epoch_bfloat16, epoch_float16
                    one training epoch: all losses finite, weights moved
    resume          bit-identical: stopped in the middle of an epoch, saved, read, trained on
    evaluation      scores on the device beside those of the CPU, both in float32
    prediction      label maps and probabilities of `voxelsoup predict` likewise
    sharing         two runs at once on the device: each bit-identical to one alone
    epoch_bfloat16_compiled, epoch_float16_compiled
                    the first two through torch.compile

Ends with 1 if a check failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

from bench.machine import TINY, device_kind, keep_result  # noqa: E402
from bench.phantoms import prepare_phantoms  # noqa: E402

from voxelsoup.models import devices, weight_files  # noqa: E402
from voxelsoup.runs.resume_state import State, newest_state, save_state  # noqa: E402
from voxelsoup.study.loading import load  # noqa: E402
from voxelsoup.study.study import Study  # noqa: E402
from voxelsoup.study.trials import trials  # noqa: E402
from voxelsoup.training.run import Run, trial_run  # noqa: E402
from voxelsoup.training.train import Trained, initial_model, train  # noqa: E402

SHAPE = [20, 20, 20] if TINY else [72, 80, 64]
PATCH = [16, 16, 16] if TINY else [48, 48, 48]
STEPS = 2 if TINY else 10
CASES = 4
NETWORK: dict[str, Any] = {
    "size": "free",
    "arguments": {
        "init_filters": 4, "blocks_down": [1, 1], "blocks_up": [1, 1], "blocks_bottleneck": 1,
    },
}  # fmt: skip
if TINY:
    # Compiled in seconds, and not in minutes.
    NETWORK = {"name": "UNet", "arguments": {"channels": [2, 4], "strides": [2]}}
REGIONS = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
# On float32 numbers that the device's own order of sums changes; MONAI's networks end in logits.
MOST_DIFFERENCE = {"dice": 2e-3, "loss": 2e-3, "probability": 5e-3, "share_of_voxels": 1e-3}


class NotAlike(Exception):
    """A check found a difference."""


@dataclass(frozen=True)
class Place:
    """Where the checks run: the device, and a folder with preprocessed phantoms."""

    device: torch.device
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def cases(self) -> list[str]:
        return sorted(path.stem for path in self.data.glob("*.json"))


def study_of(**training: Any) -> Study:
    """A study of a small network: with the augmentation that most users train with."""
    content = {
        "dataset": {"channels": ["t1n", "t1c", "t2w", "t2f"]},
        "regions": REGIONS,
        "network": NETWORK,
        "training": {
            "patch": PATCH,
            "batch_size": 2,
            "epochs": 1,
            "steps_per_epoch": STEPS,
            "augmentation": "full",
            **training,
        },
        "sweep": {"grid": {"training.seed": [0]}},
    }
    return load(content)


class InTheMiddle:
    """A checkpointer that saves after a step, and resumes from there if it has."""

    def __init__(self, folder: Path, at: int) -> None:
        self.folder, self.at = folder, at

    def newest(self) -> State | None:
        """What was saved."""
        return newest_state(self.folder)

    def after_step(self, step: int, capture: Callable[[], State]) -> None:
        """Save and end the run, once."""
        if step == self.at and self.newest() is None:
            save_state(self.folder, step, {**capture(), "step": step})
            raise StoppedHere

    def after_epoch(self, rows: list[dict[str, float]]) -> None:
        """Nothing to note."""

    def save(self, step: int, capture: Callable[[], State]) -> None:
        """The end needs no state."""


class StoppedHere(Exception):
    """The run was stopped."""


def run_of(place: Place, **training: Any) -> Run:
    """A run on the phantoms."""
    trial = trials(study_of(**training))[0]
    return trial_run(trial, 0, place.cases, place.data, initial=None)


def trained(place: Place, checkpointer: Any = None, **training: Any) -> Trained:
    """What such a run leaves behind."""
    return train(run_of(place, **training), place.device, checkpointer)


def check_epoch(place: Place, **training: Any) -> dict[str, Any]:
    """One epoch: finite losses (train ends on others), and weights that moved."""
    # What was compiled for another precision is not asked about it by older versions of torch.
    torch.compiler.reset()
    cuda = place.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = initial_model(run_of(place, **training), torch.device("cpu")).state_dict()
    began = time.monotonic()
    result = trained(place, **training)
    taken = time.monotonic() - began
    loss = float(result.history["training_loss"].iloc[-1])
    moved = max(float((start[name] - one).abs().max()) for name, one in result.weights.items())
    if not (0 < loss < 100 and moved > 0):
        raise NotAlike(f"loss {loss}, and no weight moved by more than {moved}")
    memory = torch.cuda.max_memory_allocated() / 1e6 if cuda else None
    return {"training_loss": loss, "run_seconds": round(taken, 2), "peak_mb": memory}


def check_resume(place: Place) -> dict[str, Any]:
    """A run stopped in the middle ends with the bits of one that was not."""
    whole = trained(place)
    states = place.folder / "states"
    states.mkdir()
    checkpointer = InTheMiddle(states, STEPS // 2)
    try:
        trained(place, checkpointer)
    except StoppedHere:
        pass
    else:
        raise NotAlike("the run was not stopped")
    return {"weights": refuse_other_bits(whole, trained(place, checkpointer))}


def refuse_other_bits(first: Trained, second: Trained) -> int:
    """Number of weights, which are all bit-identical."""
    other = [
        f"{name} by {float((one - second.weights[name]).abs().max())}"
        for name, one in first.weights.items()
        if not torch.equal(one, second.weights[name])
    ]
    if other:
        raise NotAlike(f"{len(other)} of {len(first.weights)} weights differ: {other[:3]}")
    return len(first.weights)


def model_file(place: Place) -> Path:
    """A trained model of the phantoms; float32, so that the CPU can compute the same."""
    path = place.folder / "model.safetensors"
    if not path.exists():
        result = trained(place, precision="float32")
        weight_files.save(path, result.weights, weight_files.describe(study_of()))
    return path


def check_evaluation(place: Place) -> dict[str, Any]:
    """Scores of all cases, on the device and on the CPU."""
    from voxelsoup.evaluation.score import load_model, score_cases

    study, file, found = study_of(precision="float32"), model_file(place), []
    for device in (place.device, torch.device("cpu")):
        model = load_model(file, study, device)
        found.append(score_cases(model, place.cases, place.data, study, device))
    differences = {
        name: float((found[0][name] - found[1][name]).abs().max()) for name in ("dice", "loss")
    }
    return refuse_large(differences)


def refuse_large(differences: dict[str, float]) -> dict[str, Any]:
    """The differences, where none is above rounding."""
    large = {name: value for name, value in differences.items() if value > MOST_DIFFERENCE[name]}
    if large:
        raise NotAlike(f"more than rounding: {large}, at most {MOST_DIFFERENCE}")
    return {"difference": differences}


def check_prediction(place: Place) -> dict[str, Any]:
    """Label maps and probabilities of a scan, on the device and on the CPU."""
    import nibabel
    import numpy as np

    from voxelsoup.data.case import Source
    from voxelsoup.prediction.model_files import open_models
    from voxelsoup.prediction.predictor import PredictionSettings, Predictor, order_of

    models = open_models([model_file(place)])
    order = order_of(models, {"WT": 2, "TC": 1, "ET": 3}, "--label-order")
    scan = sorted(path for path in (place.folder / "raw").iterdir() if path.is_dir())[0]
    channels = {
        channel: Source(next(scan.glob(f"*{channel}.nii.gz")))
        for channel in models[0].description.channels
    }
    labels, probabilities = [], []
    for device in (place.device, torch.device("cpu")):
        outputs = [place.folder / f"{device.type}-{kind}.nii.gz" for kind in ("labels", "p")]
        predictor = Predictor(PredictionSettings(models, order), device, place.folder)
        predictor.predict(channels, outputs[0], outputs[1])
        labels.append(np.asarray(nibabel.load(outputs[0]).dataobj))
        probabilities.append(np.asarray(nibabel.load(outputs[1]).dataobj))
    return refuse_large(
        {
            "share_of_voxels": float((labels[0] != labels[1]).mean()),
            "probability": float(np.abs(probabilities[0] - probabilities[1]).max()),
        }
    )


def check_sharing(place: Place) -> dict[str, Any]:
    """Two runs on one device at the same time, each as one alone."""
    alone = trained(place)
    command = [sys.executable, __file__, "--share", str(place.folder)]
    runs = [subprocess.Popen([*command, str(number)]) for number in range(2)]
    for number, run in enumerate(runs):
        if run.wait() != 0:
            raise NotAlike(f"run {number} ended with {run.returncode}")
        weights, _ = weight_files.load(place.folder / f"shared{number}.safetensors")
        other = [name for name, one in alone.weights.items() if not torch.equal(one, weights[name])]
        if other:
            raise NotAlike(f"{len(other)} weights of run {number} differ from those of one alone")
    return {"runs": len(runs)}


def share(folder: Path, number: str) -> None:
    """One of two runs that share the device; in a process of its own."""
    device = devices.prepare(device_kind(), 1, runs_per_gpu=2)
    result = trained(Place(device, folder))
    path = folder / f"shared{number}.safetensors"
    weight_files.save(path, result.weights, weight_files.describe(study_of()))


CHECKS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "epoch_bfloat16": partial(check_epoch, precision="bfloat16"),
    "epoch_float16": partial(check_epoch, precision="float16"),
    "resume": check_resume,
    "evaluation": check_evaluation,
    "prediction": check_prediction,
    "sharing": check_sharing,
    "epoch_bfloat16_compiled": partial(check_epoch, precision="bfloat16", compile=True),
    "epoch_float16_compiled": partial(check_epoch, precision="float16", compile=True),
}


def outcome_of(check: Callable[[Place], dict[str, Any]], place: Place) -> dict[str, Any]:
    """What a check found, or why it failed."""
    began = time.monotonic()
    try:
        found = {"passed": True, **check(place)}
    except Exception as error:
        traceback.print_exc()
        found = {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """All checks; the outcomes so far are kept after each."""
    if sys.argv[1:2] == ["--share"]:
        share(Path(sys.argv[2]), sys.argv[3])
        return
    # A thread, so that two runs at once do the same sums as one.
    device = devices.prepare(device_kind(), 1, gpu=0)
    outcomes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Place(device, Path(name))
        prepare_phantoms(study_of(), place.folder, CASES, SHAPE)
        for check, work in CHECKS.items():
            outcomes[check] = outcome_of(work, place)
            keep_result("gpu_smoke", {"device": devices.name(device), "checks": outcomes})
            print(check, json.dumps(outcomes[check]), flush=True)
    if not all(one["passed"] for one in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
