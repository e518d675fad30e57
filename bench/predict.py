"""What a prediction takes, beside MONAI's sliding-window inferer and beside an ensemble.

Windows are compared on a skull-stripped case (the real one in ../shared/data where it is at hand,
else a phantom of its size), memory on a volume of 512 x 512 x 800 voxels (int16, one channel and,
besides, four), all with three regions, small networks of random weights, float32.
Times are CPU seconds on one thread, the least of repeats, each side in processes of its own that
take turns: what the machine does besides is not to count.
The last line is one JSON object, kept in `bench/results/predict.json`:

    vs_monai              MONAI's time over ours, same windows, same network, both in memory
    seconds_windows, seconds_windows_monai
                          CPU seconds of these
    seconds_forward       of the same windows' forward passes alone: the floor
    max_abs_difference    greatest difference of any probability from MONAI's
    peak_mb               memory of a process that predicts the 512 x 512 x 800 volume from its
                          .nii.gz file to its label map (below 4000 is the aim)
    peak_mb_four_channels the same for a volume of four channels
    peak_mb_monai         of a process that runs MONAI's inferer over the same prepared image
    memory_vs_monai       peak_mb_monai over peak_mb
    skip_empty_saves      time of every window over time without those outside of the foreground,
                          for the whole scan (`preprocess.crop: false`)
    skipped_share         share of the windows that is outside, for the whole scan
    skipped_share_cropped the same for the box around the foreground, as studies have it
    ensemble_vs_soup      time of the mean of five models over the time of one soup
    seconds_soup          of the case with one soup, from its files to its label map
    case                  `real` or `phantom`
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

REAL = REPOSITORY.parent / "shared" / "data" / "brats" / "TCGA-DU-7294"
CHANNELS = ["t1n", "t1c", "t2w", "t2f"]
REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
SHAPE, LARGE = (240, 240, 155), (512, 512, 800)
PATCH, LARGE_PATCH = [64, 64, 64], [128, 128, 128]
# Memory does not depend on the overlap, but the minutes of the large volume do.
OVERLAP, LARGE_OVERLAP = 0.5, 0.0
MODELS, REPEATS, THREADS = 5, 4, 2
SMALL = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2]}}
# Slow enough that a case's windows take longer than reading it.
LARGER = {"name": "UNet", "arguments": {"channels": [8, 16, 32], "strides": [2, 2]}}


def write_models(
    folder: Path, channels: list[str], patch: list[int], count: int, network: dict[str, Any]
) -> list[Path]:
    """Model files with random weights."""
    from voxelsoup.models import networks, weight_files
    from voxelsoup.study.loading import load

    study = load(
        {
            "dataset": {"channels": channels},
            "regions": REGIONS,
            "network": network,
            "training": {"patch": patch},
        }
    )
    files: list[Path] = []
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        with networks.seeded(seed):
            model = networks.build(study.network, len(channels), len(REGIONS))
        files.append(folder / f"{len(channels)}-{seed}.safetensors")
        weight_files.save(files[-1], model.state_dict(), weight_files.describe(study))
    return files


def write_case(folder: Path) -> dict[str, Path]:
    """The real case's files, or those of a phantom: a head with texture, 0 outside."""
    if REAL.is_dir():
        return {name: REAL / f"{REAL.name}-{name}.nii.gz" for name in CHANNELS}
    axes = np.ogrid[tuple(slice(side) for side in SHAPE)]
    radii = (70, 87, 70)
    head = sum(((a - n / 2) / r) ** 2 for a, n, r in zip(axes, SHAPE, radii, strict=True)) < 1
    chance, files = np.random.default_rng(0), {}
    for name in CHANNELS:
        data = np.where(head, chance.normal(600, 120, SHAPE), 0).astype(np.int16)
        files[name] = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(data, np.eye(4)), files[name])
    return files


def write_large(path: Path, seed: int) -> None:
    """512 x 512 x 800 voxels, int16, without an empty one; slice by slice."""
    chance = np.random.default_rng(seed)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(LARGE)
    header.set_sform(np.diag([0.7, 0.7, 0.7, 1]), "scanner")
    header["vox_offset"], header["magic"] = header.sizeof_hdr + 4, b"n+1"
    noise = chance.integers(1, 5, LARGE[:2], dtype=np.int16)
    with gzip.open(path, "wb", 1) as packed:
        packed.write(header.binaryblock + bytes(4))
        for number in range(LARGE[2]):
            packed.write((noise + 200 + number % 50).tobytes(order="F"))


def least_seconds(*works: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """Least CPU seconds of several things, which take turns."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for times, work in zip(taken, works, strict=True):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
    return [min(times) for times in taken]


def compare_windows(
    model: Path, case: dict[str, Path], folder: Path, turns: int
) -> dict[str, float]:
    """Ours against MONAI's, each in processes of its own as it is used, by turns."""
    from voxelsoup.data.case import Source
    from voxelsoup.data.preprocessing.preprocess import preprocess_image
    from voxelsoup.prediction.model_files import open_models

    (opened,) = open_models([model])
    sources = {name: Source(path) for name, path in case.items()}
    for name, crop in (("cropped", True), ("uncropped", False)):
        how = opened.description.preprocess.model_copy(update={"crop": crop})
        preprocess_image(sources, how, PATCH, folder / f"{name}.npy")
    found = [(measured("windows", model), measured("windows_monai", model)) for _ in range(turns)]
    ours, theirs = (min(side, key=lambda one: one["seconds"]) for side in zip(*found, strict=True))
    difference = np.abs(np.load(folder / "ours.npy") - np.load(folder / "monai.npy")).max()
    return {
        "vs_monai": round(theirs["seconds"] / ours["seconds"], 3),
        "seconds_windows": round(ours["seconds"], 3),
        "seconds_windows_monai": round(theirs["seconds"], 3),
        "seconds_forward": round(ours["seconds_forward"], 3),
        "max_abs_difference": float(difference),
        "skip_empty_saves": round(ours["seconds_every"] / ours["seconds_skipping"], 3),
        "skipped_share": ours["skipped_share"],
        "skipped_share_cropped": ours["skipped_share_cropped"],
    }


def measure_windows(model: Path) -> dict[str, float]:
    """CPU seconds of our windows, with every one and without empty ones, and of forward passes."""
    import torch

    from voxelsoup.evaluation.sliding_window import Covered, Windows, predict_rows
    from voxelsoup.models import devices
    from voxelsoup.prediction.model_files import open_models

    device = devices.prepare("cpu", 1)
    network, covered = open_models([model])[0].build(device), list[Covered]()
    cropped, uncropped = (
        torch.from_numpy(np.load(model.parents[1] / f"{name}.npy"))
        for name in ("cropped", "uncropped")
    )

    def ours(image: Any, every: bool = True) -> NDArray[np.float32]:
        windows = Windows(PATCH, OVERLAP, 1, every)
        found = np.empty((len(REGIONS), *image.shape[1:]), np.float32)
        rows = predict_rows(
            network,
            len(REGIONS),
            lambda start, stop: image[:, start:stop],
            image.shape[1:],
            windows,
            covered.append,
        )
        for row, logits in rows:
            found[:, row : row + logits.shape[1]] = logits.sigmoid_().numpy()
        return found

    def forward_passes() -> None:
        window = cropped[None, :, : PATCH[0], : PATCH[1], : PATCH[2]]
        with torch.inference_mode():
            for _ in range(covered[-1].total):
                network(window)

    def skipped_share(image: Any) -> float:
        ours(image, every=False)
        return round(covered[-1].skipped / covered[-1].total, 3)

    np.save(model.parents[1] / "ours.npy", ours(cropped))
    seconds, forward = least_seconds(lambda: ours(cropped), forward_passes)
    every, skipping = least_seconds(
        lambda: ours(uncropped), lambda: ours(uncropped, every=False), repeats=2
    )
    return {
        "seconds": seconds,
        "seconds_forward": forward,
        "seconds_every": every,
        "seconds_skipping": skipping,
        "skipped_share": skipped_share(uncropped),
        "skipped_share_cropped": skipped_share(cropped),
    }


def measure_windows_monai(model: Path) -> dict[str, float]:
    """CPU seconds of MONAI's windows."""
    import torch

    from voxelsoup.models import networks
    from voxelsoup.models.weight_files import load
    from voxelsoup.prediction.model_files import open_models

    torch.set_num_threads(1)
    facts = open_models([model])[0].description
    network = networks.build(facts.network, len(facts.channels), len(facts.regions)).eval()
    network.load_state_dict(load(model)[0])
    image = torch.from_numpy(np.load(model.parents[1] / "cropped.npy"))
    np.save(model.parents[1] / "monai.npy", monai(network, image, PATCH, OVERLAP))
    (seconds,) = least_seconds(lambda: monai(network, image, PATCH, OVERLAP))
    return {"seconds": seconds}


def monai(network: Any, image: Any, patch: list[int], overlap: float) -> NDArray[np.float32]:
    """Probabilities by MONAI's inferer."""
    import torch
    from monai.inferers import sliding_window_inference

    with torch.inference_mode():
        logits = sliding_window_inference(
            image[None], patch, 1, network, overlap=overlap, mode="gaussian"
        )
        return logits[0].sigmoid_().numpy()


def predict(models: list[Path], case: dict[str, Path], folder: Path, overlap: float) -> None:
    """One case as `voxelsoup predict` does it."""
    import torch

    from voxelsoup.data.case import Source
    from voxelsoup.data.regions import label_order
    from voxelsoup.prediction.model_files import open_models
    from voxelsoup.prediction.predictor import PredictionSettings, Predictor

    way = PredictionSettings(open_models(models), label_order(REGIONS), overlap=overlap)
    sources = {name: Source(path) for name, path in case.items()}
    Predictor(way, torch.device("cpu"), folder).predict(sources, folder / "labels.nii.gz")


def measured(kind: str, model: Path) -> dict[str, float]:
    """What one of ``MEASURED`` finds, in a process of its own."""
    command = [sys.executable, __file__, kind, str(model)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(run.stdout.splitlines()[-1]))


def measure_volume(model: Path) -> dict[str, float]:
    """Predict the large volume from its files, by the command itself."""
    from voxelsoup.commands import cli

    folder, channels = model.parent, int(model.name[0])
    given = ",".join(f"{name}={folder}/large-{name}.nii.gz" for name in CHANNELS[:channels])
    words = ["predict", model, given, folder / f"out{channels}"]
    words += ["--overlap", LARGE_OVERLAP, "--threads", THREADS]
    assert cli.main([str(word) for word in words]) == 0
    return {}


def measure_volume_monai(model: Path) -> dict[str, float]:
    """Run MONAI's inferer over the large volume, prepared as ours is."""
    import torch

    from voxelsoup.prediction.model_files import open_models

    (opened,) = open_models([model])
    image = torch.from_numpy(np.load(model.parent / "prepared.npy"))
    monai(opened.build(torch.device("cpu")), image, LARGE_PATCH, LARGE_OVERLAP)
    return {}


MEASURED = {
    "windows": measure_windows,
    "windows_monai": measure_windows_monai,
    "volume": measure_volume,
    "volume_monai": measure_volume_monai,
}


def own_peak_mb() -> float:
    """The most memory this process has had; getrusage would count its parent's at the start."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure_memory(folder: Path, table: Table) -> dict[str, float]:
    """Peaks of the large volume: ours with one and four channels, MONAI's with one."""
    from voxelsoup.data.case import Source
    from voxelsoup.data.preprocessing.preprocess import preprocess_image
    from voxelsoup.prediction.model_files import open_models

    for seed, name in enumerate(CHANNELS):
        write_large(folder / f"large-{name}.nii.gz", seed)
    (one,) = write_models(folder, CHANNELS[:1], LARGE_PATCH, 1, SMALL)
    (of_four,) = write_models(folder, CHANNELS, LARGE_PATCH, 1, SMALL)
    ours, four = (measured("volume", model)["peak_mb"] for model in (one, of_four))
    (opened,) = open_models([one])
    source = {CHANNELS[0]: Source(folder / f"large-{CHANNELS[0]}.nii.gz")}
    preprocess_image(source, opened.description.preprocess, LARGE_PATCH, folder / "prepared.npy")
    theirs = measured("volume_monai", one)["peak_mb"]
    table.add_row("MB, 512 x 512 x 800, one channel", f"{ours:.0f}", f"{theirs:.0f}")
    table.add_row("MB, 512 x 512 x 800, four channels", f"{four:.0f}", "")
    return {
        "peak_mb": round(ours),
        "peak_mb_four_channels": round(four),
        "peak_mb_monai": round(theirs),
        "memory_vs_monai": round(theirs / ours, 2),
    }


def main() -> None:
    """Measure, keep and print."""
    import torch
    from bench.machine import keep_result

    torch.set_num_threads(1)
    table = Table(title="Predictions, three regions")
    for column in ("what", "voxelsoup", "MONAI or ensemble"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (small,) = write_models(folder / "small", CHANNELS, PATCH, 1, SMALL)
        case = write_case(folder)
        found: dict[str, Any] = compare_windows(small, case, folder, turns=2)
        models = write_models(folder / "larger", CHANNELS, PATCH, MODELS, LARGER)
        soup, ensemble = least_seconds(
            lambda: predict(models[:1], case, folder, OVERLAP),
            lambda: predict(models, case, folder, OVERLAP),
            repeats=1,
        )
        found |= measure_memory(folder, table)
    table.add_row("time of the windows, ratio", "1", f"{found['vs_monai']:.2f}")
    table.add_row(
        f"CPU seconds per case, one soup and {MODELS} models", f"{soup:.1f}", f"{ensemble:.1f}"
    )
    Console().print(table)
    found |= {
        "ensemble_vs_soup": round(ensemble / soup, 2),
        "seconds_soup": round(soup, 1),
        "case": "real" if REAL.is_dir() else "phantom",
    }
    keep_result("predict", found)
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in MEASURED:
        found_here = MEASURED[sys.argv[1]](Path(sys.argv[2]))
        print(json.dumps(found_here | {"peak_mb": own_peak_mb()}))
    else:
        main()
