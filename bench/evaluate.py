"""What the rule `evaluate` does to a case, beside MONAI's inferer and metric classes.

From the preprocessed arrays on the disk to the case's rows: windows, blended logits, probabilities
in the scan's voxels, then Dice and loss (*selection* case), or these and HD95, surface Dice,
sensitivity and precision (*test* case; MONAI has no lesion-wise scores, so they are measured
apart). MONAI: ``SlidingWindowInferer`` with the same patch, overlap, windows at once and Gaussian,
``DiceLoss``, and ``DiceMetric``, ``HausdorffDistanceMetric``, ``SurfaceDiceMetric`` and
``ConfusionMatrixMetric``. Each side runs in processes of its own, by turns; the least time counts.

Three pairs of cases and network: a glioma case of BraTS with a small MedNeXt and with a network
that costs next to nothing, and four hippocampi with the MedNeXt of `examples/hippocampus.yaml`.
So that predictions are right and wrong as those of a trained network, three channels behind the
scan's hold a disturbed truth, which one convolution over single voxels adds to what the network
says; alone it is the network that costs next to nothing. Phantoms take the places of
scans that are not at hand.

The last line is one JSON object, kept in `bench/results/evaluate.json`. `vs_monai` and what
stands beside it are those of the glioma with the MedNeXt; those of the others are under
`other`:

    vs_monai, vs_monai_test, vs_monai_selection     their time over ours
    cpu_vs_monai                                    the same in CPU seconds, for a shared machine
    cases_per_minute, cases_per_minute_monai        half test, half selection cases
    network_share, network_share_monai              the forward passes' part of the time: the floor
    seconds_windows, seconds_windows_monai          from the array on the disk to blended logits
    difference_dice, _loss, _nsd, ...               greatest difference of a score from MONAI's
    peak_mb, peak_mb_monai                          memory of a process
    seconds_all_metrics                             a test case with lesion-wise scores too
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

DATA = REPOSITORY.parent / "shared" / "data"
THREADS = 2
CONTRASTS = ["t1n", "t1c", "t2w", "t2f"]
SHARED_METRICS = ["hd95", "nsd", "sensitivity", "precision"]
LESIONS = ["lesion_dice", "lesion_hd95"]
SMALL = {
    "name": "MedNeXt",
    "size": "free",
    "kernel_size": 3,
    "arguments": {
        "init_filters": 8,
        "blocks_down": [0, 1],
        "blocks_bottleneck": 1,
        "blocks_up": [1, 0],
        "encoder_expansion_ratio": 2,
        "decoder_expansion_ratio": [2, 1],
        "bottleneck_expansion_ratio": 2,
    },
}
# The real glioma has no enhancing tumour: core, whole tumour, and what is around the core.
GLIOMA = {
    "dataset": {"layout": "brats", "channels": CONTRASTS, "on_bad_case": "skip"},
    "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ED": [2]},
    "network": SMALL,
    "training": {"patch": [128, 128, 128], "device": "cpu"},
}
HIPPOCAMPUS = {
    "dataset": {"layout": "decathlon", "channels": ["mri"]},
    "regions": {"anterior": [1], "posterior": [2], "whole": [1, 2]},
    "network": SMALL,
    "training": {"patch": [32, 40, 32], "device": "cpu"},
}


# Folder of the cases, and whether the network is the cheap one.
PAIRS = {
    "glioma_mednext": ("glioma", False),
    "glioma_cheap": ("glioma", True),
    "hippocampus_mednext": ("hippocampus", False),
}
HEADLINE = "glioma_mednext"
ROUNDS = {"glioma_mednext": 1, "glioma_cheap": 3, "hippocampus_mednext": 1}


def declare(settings: dict[str, Any], metrics: list[str]) -> Any:
    """A study on these cases."""
    from voxelsoup.study.loading import load

    return load(settings | {"metrics": {"names": metrics}})


def prepare(settings: dict[str, Any], root: Path, folder: Path, most: int) -> tuple[str, list[str]]:
    """Preprocess cases, and put a disturbed truth behind their channels; says which scans."""
    from voxelsoup.data.index.index import index_cases
    from voxelsoup.data.layouts.phantom import write_phantom
    from voxelsoup.data.preprocessing.preprocess import preprocess_all
    from voxelsoup.study.sections.data import Phantom

    scans = str(root.relative_to(DATA))
    if not root.is_dir():
        scans, root = "phantom", folder / "phantom"
        shape = [150, 180, 150] if most == 1 else [36, 48, 36]
        write_phantom(root, Phantom(cases=most, shape=shape))
        settings["dataset"] = {"layout": "phantom", "channels": CONTRASTS}
        settings["regions"] = GLIOMA["regions"]
    else:
        settings["dataset"] |= {"root": str(root)}
    study = declare(settings, [])
    found, _ = index_cases(study.dataset, study.regions, root, workers=1)
    cases = [case for case in found if case.label is not None][:most]
    patch = study.training.patch
    preprocess_all(cases, root, study.preprocess, patch, folder, folder / "manifest.tsv", 2)
    for number, case in enumerate(cases):
        disturb(folder, case.name, study.regions, number)
    return scans, [case.name for case in cases]


def disturb(folder: Path, case: str, regions: dict[str, list[int]], seed: int) -> None:
    """Append the regions to the channels: smooth, with noise, positive inside."""
    from scipy import ndimage

    from voxelsoup.data.regions import label_table, to_regions

    chance = np.random.default_rng(seed)
    path = folder / f"{case}.image.npy"
    label = np.load(folder / f"{case}.label.npy")
    fields = []
    for region in to_regions(label, label_table(regions)):
        noise = ndimage.gaussian_filter(chance.standard_normal(label.shape, np.float32), 3)
        smooth = ndimage.gaussian_filter(region.astype(np.float32), 1.5)
        fields.append(20 * (smooth - 0.5 + 0.12 * noise / noise.std()))
    np.save(path, np.concatenate([np.load(path), np.stack(fields).astype(np.float32)]))


def network_of(study: Any, cheap: bool) -> Any:
    """A network that adds what is behind the scan's channels; it counts its own seconds."""
    import torch

    from voxelsoup.models import networks

    channels, regions = len(study.dataset.channels), len(study.regions)

    class Counted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.seconds = 0.0
            self.network = torch.nn.Conv3d(channels + regions, regions, 1)
            with torch.no_grad():
                self.network.weight[:, channels:, 0, 0, 0] = torch.eye(regions)
                self.network.weight[:, :channels] *= 0.01
            self.real = None if cheap else networks.build(study.network, channels, regions)

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            began = time.perf_counter()
            logits = self.network(windows)
            if self.real is not None:
                logits += 0.01 * self.real(windows[:, :channels])
            self.seconds += time.perf_counter() - began
            return logits

    return Counted().eval()


def score_by_voxelsoup(study: Any, model: Any, folder: Path, cases: list[str], test: bool) -> Any:
    """What the rule calls."""
    import torch

    from voxelsoup.evaluation.score import score_cases

    measured = cases if test else []
    return score_cases(model, cases, folder, study, torch.device("cpu"), measured=measured)


def windows_by_voxelsoup(study: Any, model: Any, folder: Path, case: str) -> None:
    """From the array on the disk to logits."""
    import torch

    from voxelsoup.data.preprocessing.store import load_case
    from voxelsoup.evaluation.score import predict

    predict(model, load_case(folder, case), study, torch.device("cpu"))


def logits_by_monai(study: Any, model: Any, folder: Path, case: str) -> Any:
    """From the array on the disk to logits (1, region, x, y, z)."""
    import torch
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(
        roi_size=study.training.patch,
        sw_batch_size=study.evaluation.window_batch,
        overlap=study.evaluation.overlap,
        mode="gaussian",
    )
    image = torch.from_numpy(np.load(folder / f"{case}.image.npy"))
    with torch.inference_mode():
        return inferer(image[None], model)


def score_by_monai(study: Any, model: Any, folder: Path, cases: list[str], test: bool) -> Any:
    """The same with MONAI's classes."""
    import pandas as pd
    import torch
    from monai.losses import DiceLoss
    from monai.metrics import (
        ConfusionMatrixMetric,
        DiceMetric,
        HausdorffDistanceMetric,
        SurfaceDiceMetric,
    )

    from voxelsoup.common.files import read_json
    from voxelsoup.data.preprocessing.geometry import inside

    tolerances = [study.metrics.surface_tolerance] * len(study.regions)
    dice = DiceMetric(reduction="none", ignore_empty=False)
    hausdorff = HausdorffDistanceMetric(percentile=95, include_background=True)
    surface = SurfaceDiceMetric(
        tolerances, include_background=True, use_subvoxels=bool(os.environ.get("SUBVOXELS"))
    )
    counts = ConfusionMatrixMetric(metric_name=["sensitivity", "precision"])
    rows = []
    for case in cases:
        logits = logits_by_monai(study, model, folder, case)
        geometry = read_json(folder / f"{case}.json")
        label = np.load(folder / f"{case}.label.npy")
        truth = np.stack([np.isin(label, values) for values in study.regions.values()])
        target = torch.from_numpy(truth)[None].float()
        loss = float(DiceLoss(sigmoid=True)(logits, target))
        place = (slice(None), slice(None), *inside(geometry))
        mask, target = (torch.sigmoid(logits)[place] > 0.5).float(), target[place]
        columns = {"dice": dice(mask, target)}
        if test:
            spacing = geometry["spacing_before"]
            columns["hd95"] = hausdorff(mask, target, spacing=spacing)
            columns["nsd"] = surface(mask, target, spacing=spacing)
            matrix = counts(mask, target)[0]
            positive, negative = matrix[:, 0], matrix[:, 3]
            columns["sensitivity"] = (positive / (positive + negative))[None]
            columns["precision"] = (positive / (positive + matrix[:, 1]))[None]
        rows += [
            {"case": case, "region": region, "loss": loss}
            | {name: float(values[0, number]) for name, values in columns.items()}
            for number, region in enumerate(study.regions)
        ]
    return pd.DataFrame(rows)


def measure(side: str, folder: Path, cheap: bool) -> dict[str, Any]:
    """In a process of its own: one side's seconds per case."""
    import resource

    import torch

    from voxelsoup.models import devices

    ours = side == "voxelsoup"
    if ours:
        devices.prepare("cpu", THREADS)
    torch.set_num_threads(THREADS)
    settings = json.loads((folder / "settings.json").read_text())
    study = declare(settings["study"], SHARED_METRICS)
    cases = settings["cases"]
    model = network_of(study, cheap)
    score = score_by_voxelsoup if ours else score_by_monai
    found: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        model.seconds, began, spent = 0.0, time.perf_counter(), time.process_time()
        result = work()
        found[f"{name}_cpu"] = (time.process_time() - spent) / len(cases)
        found[name] = (time.perf_counter() - began) / len(cases)
        found[f"{name}_network"] = model.seconds / len(cases)
        return result

    # The first case pays for imports and for what libraries prepare.
    score(study, model, folder, cases[:1], True)
    for name, test in (("test", True), ("selection", False)):
        rows = timed(name, lambda test=test: score(study, model, folder, cases, test))
        found[f"{name}_rows"] = rows.to_dict("records")
    windows = windows_by_voxelsoup if ours else logits_by_monai
    timed("windows", lambda: [windows(study, model, folder, case) for case in cases])
    if ours:
        everything = declare(settings["study"], SHARED_METRICS + LESIONS)
        timed("all_metrics", lambda: score(everything, model, folder, cases, True))
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return found


def seconds_of(rounds: list[dict[str, Any]], name: str) -> float:
    """The least time of all rounds: what the machine does besides is not to count."""
    return min(float(found[name]) for found in rounds)


def share_of(rounds: list[dict[str, Any]]) -> float:
    """The forward passes' part of a test and a selection case, in the quickest round."""
    spent, forward = min(
        (
            found["test"] + found["selection"],
            found["test_network"] + found["selection_network"],
        )
        for found in rounds
    )
    return float(forward / spent)


def differences(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """Greatest difference of each score, of regions where both sides have a number."""
    found = {}
    for name in [name for name in ours[0] if name not in ("case", "region")]:
        pairs = [(mine[name], other[name]) for mine, other in zip(ours, theirs, strict=True)]
        apart = [abs(a - b) for a, b in pairs if np.isfinite(a) and np.isfinite(b)]
        found[f"difference_{name}"] = float(f"{max(apart):.2g}")
    return found


def run(side: str, folder: Path, cheap: bool) -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, __file__, side, str(folder), "cheap" if cheap else "real"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(folder: Path, cheap: bool, rounds: int) -> dict[str, Any]:
    """Both sides by turns."""
    sides: dict[str, list[dict[str, Any]]] = {"voxelsoup": [], "monai": []}
    for _ in range(rounds):
        for side, found in sides.items():
            found.append(run(side, folder, cheap))
    ours, theirs = sides["voxelsoup"], sides["monai"]
    measures = ("test", "selection", "windows", "test_cpu", "selection_cpu")
    mine = {name: seconds_of(ours, name) for name in measures}
    other = {name: seconds_of(theirs, name) for name in mine}
    both, both_monai = mine["test"] + mine["selection"], other["test"] + other["selection"]
    cpu, cpu_monai = (side["test_cpu"] + side["selection_cpu"] for side in (mine, other))
    return {
        "vs_monai": round(both_monai / both, 2),
        "cpu_vs_monai": round(cpu_monai / cpu, 2),
        "vs_monai_test": round(other["test"] / mine["test"], 2),
        "vs_monai_selection": round(other["selection"] / mine["selection"], 2),
        "cases_per_minute": round(120 / both, 1),
        "cases_per_minute_monai": round(120 / both_monai, 1),
        "network_share": round(share_of(ours), 2),
        "network_share_monai": round(share_of(theirs), 2),
        "seconds_windows": round(mine["windows"], 3),
        "seconds_windows_monai": round(other["windows"], 3),
        "peak_mb": round(ours[0]["peak_mb"]),
        "peak_mb_monai": round(theirs[0]["peak_mb"]),
        "seconds_all_metrics": round(seconds_of(ours, "all_metrics"), 3),
        **differences(ours[0]["test_rows"], theirs[0]["test_rows"]),
    }


def main() -> None:
    """Measure, keep and print."""
    from bench.machine import keep_result

    pairs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = {}
        for kind, settings, root, most in (
            ("glioma", GLIOMA, DATA / "brats", 1),
            ("hippocampus", HIPPOCAMPUS, DATA / "Task04_Hippocampus", 4),
        ):
            folder = Path(name) / kind
            folder.mkdir()
            scans, cases = prepare(settings, root, folder, most)
            (folder / "settings.json").write_text(json.dumps({"study": settings, "cases": cases}))
            folders[kind] = folder, scans, len(cases)
        for pair, (kind, cheap) in PAIRS.items():
            folder, scans, number = folders[kind]
            pairs[pair] = {"scans": scans, "cases": number}
            pairs[pair] |= compare(folder, cheap, ROUNDS[pair])
    show(pairs)
    figures = pairs.pop(HEADLINE) | {"threads": THREADS, "pair": HEADLINE, "other": pairs}
    keep_result("evaluate", figures)
    print(json.dumps(figures))


def show(pairs: dict[str, dict[str, Any]]) -> None:
    """A table of all pairs."""
    table = Table(title="Evaluation beside MONAI's inferer and metric classes, two CPU threads")
    table.add_column("measure")
    for pair in pairs:
        table.add_column(pair, justify="right")
    for measure in next(iter(pairs.values())):
        table.add_row(measure, *(str(found.get(measure)) for found in pairs.values()))
    Console().print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        given, place, network = sys.argv[1:]
        print(json.dumps(measure(given, Path(place), network == "cheap")))
    else:
        main()
