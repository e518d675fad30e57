"""What a prediction takes, beside MONAI's sliding-window inferer and beside an ensemble.

Windows are compared on a skull-stripped case (the real one in ../shared/data where it is at hand,
else a phantom of its size), memory on a volume of 512 x 512 x 800 voxels (int16, one channel and,
besides, four), all with three regions, small networks of random weights, float32.
Times are CPU seconds on one thread, the least of repeats that take turns: what the machine does
besides is not to count.
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
# Memory does not hang on the overlap, but the minutes of the large volume do.
OVERLAP, LARGE_OVERLAP = 0.5, 0.0
MODELS, REPEATS, THREADS = 5, 5, 2
SMALL = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2]}}
# Slow enough that a case's windows take longer than reading it.
LARGER = {"name": "UNet", "arguments": {"channels": [8, 16, 32], "strides": [2, 2]}}


def write_models(
    folder: Path, channels: list[str], patch: list[int], count: int, network: dict[str, Any]
) -> list[Path]:
    """Model files with random weights."""
    from segsoup import checkpoints, networks
    from segsoup.study import load

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
        checkpoints.save(files[-1], model.state_dict(), checkpoints.describe(study))
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


def compare_windows(model: Path, case: dict[str, Path], folder: Path) -> dict[str, float]:
    """Ours against MONAI's, and with every window against without empty ones."""
    import torch

    from segsoup.cases.case import Source
    from segsoup.inference import Covered, Windows, predict_rows
    from segsoup.models import open_models
    from segsoup.preprocess import preprocess_image

    (opened,) = open_models([model])
    sources = {name: Source(path) for name, path in case.items()}
    images = []
    for crop in (True, False):
        how = opened.description.preprocess.model_copy(update={"crop": crop})
        preprocess_image(sources, how, PATCH, folder / "image.npy")
        images.append(torch.from_numpy(np.load(folder / "image.npy")))
    cropped, uncropped = images
    network, covered = opened.build(torch.device("cpu")), list[Covered]()

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

    difference = float(np.abs(ours(cropped) - monai(network, cropped, PATCH, OVERLAP)).max())
    mine, theirs, forward = least_seconds(
        lambda: ours(cropped), lambda: monai(network, cropped, PATCH, OVERLAP), forward_passes
    )
    share = skipped_share(uncropped)
    every, few = least_seconds(
        lambda: ours(uncropped), lambda: ours(uncropped, every=False), repeats=1
    )
    return {
        "vs_monai": round(theirs / mine, 3),
        "seconds_windows": round(mine, 3),
        "seconds_windows_monai": round(theirs, 3),
        "seconds_forward": round(forward, 3),
        "max_abs_difference": difference,
        "skip_empty_saves": round(every / few, 3),
        "skipped_share": share,
        "skipped_share_cropped": skipped_share(cropped),
    }


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
    """One case as `segsoup predict` does it."""
    import torch

    from segsoup.cases.case import Source
    from segsoup.label_order import label_order
    from segsoup.models import open_models
    from segsoup.prediction import Predictor, Way

    way = Way(open_models(models), label_order(REGIONS), overlap=overlap)
    sources = {name: Source(path) for name, path in case.items()}
    Predictor(way, torch.device("cpu"), folder).predict(sources, folder / "labels.nii.gz")


def peak_of(*arguments: object) -> float:
    """MB of a process of its own that runs one of ``MEASURED``."""
    command = [sys.executable, __file__, *map(str, arguments)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(run.stdout.split()[-1])


def measure_ours(folder: Path, channels: int) -> None:
    """Predict the large volume from its files, by the command itself."""
    from segsoup import cli

    given = ",".join(f"{name}={folder}/large-{name}.nii.gz" for name in CHANNELS[:channels])
    words = ["predict", folder / f"{channels}-0.safetensors", given, folder / f"out{channels}"]
    words += ["--overlap", LARGE_OVERLAP, "--threads", THREADS]
    assert cli.main([str(word) for word in words]) == 0


def measure_monai(folder: Path, channels: int) -> None:
    """Run MONAI's inferer over the large volume, prepared as ours is."""
    import torch

    from segsoup.models import open_models

    (opened,) = open_models([folder / f"{channels}-0.safetensors"])
    image = torch.from_numpy(np.load(folder / "prepared.npy"))
    monai(opened.build(torch.device("cpu")), image, LARGE_PATCH, LARGE_OVERLAP)


MEASURED = {"ours": measure_ours, "monai": measure_monai}


def own_peak_mb() -> float:
    """The most memory this process has had; getrusage would count its parent's at the start."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure_memory(folder: Path, table: Table) -> dict[str, float]:
    """Peaks of the large volume: ours with one and four channels, MONAI's with one."""
    from segsoup.cases.case import Source
    from segsoup.models import open_models
    from segsoup.preprocess import preprocess_image

    for seed, name in enumerate(CHANNELS):
        write_large(folder / f"large-{name}.nii.gz", seed)
    write_models(folder, CHANNELS[:1], LARGE_PATCH, 1, SMALL)
    write_models(folder, CHANNELS, LARGE_PATCH, 1, SMALL)
    ours, four = peak_of("ours", folder, 1), peak_of("ours", folder, 4)
    (opened,) = open_models([folder / "1-0.safetensors"])
    source = {CHANNELS[0]: Source(folder / f"large-{CHANNELS[0]}.nii.gz")}
    preprocess_image(source, opened.description.preprocess, LARGE_PATCH, folder / "prepared.npy")
    theirs = peak_of("monai", folder, 1)
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
    for column in ("what", "segsoup", "MONAI or ensemble"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (small,) = write_models(folder / "small", CHANNELS, PATCH, 1, SMALL)
        case = write_case(folder)
        found: dict[str, Any] = compare_windows(small, case, folder)
        models = write_models(folder / "larger", CHANNELS, PATCH, MODELS, LARGER)
        soup, ensemble = least_seconds(
            lambda: predict(models[:1], case, folder, OVERLAP),
            lambda: predict(models, case, folder, OVERLAP),
            repeats=1,
        )
        found |= measure_memory(folder, table)
    table.add_row("speed of the windows, ratio", "1", f"{1 / found['vs_monai']:.2f}")
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
    if sys.argv[1:2] and sys.argv[1] in MEASURED:
        MEASURED[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
        print(own_peak_mb())
    else:
        main()
